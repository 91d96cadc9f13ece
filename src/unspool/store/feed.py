"""A writer that also tells somebody what it has put on disk: the live page sees the same rows as the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unspool.store.header import Header
from unspool.store.wire import Rows
from unspool.store.writer import Writer

Listener = Callable[[Rows], None]
"""Called after each commit with the new rows by table. The tables `counters` and `guests` come whole, or not at all."""


class FeedingWriter(Writer):
    """A `Writer` with a listener; the listener must not raise, and must not wait."""

    def __init__(self, path: str | Path, header: Header | None, listener: Listener, *, replace: bool = False, later: bool = False) -> None:
        """Create the file, as `Writer` does."""
        self._listener = listener
        super().__init__(path, header, replace=replace, later=later)

    def _forget(self) -> None:
        # What was committed is about to be forgotten; only what is on disk is told.
        rows: dict[str, list[tuple[Any, ...]]] = {table: batch.rows for table, batch in self._batches.items() if batch.rows}
        if rows:
            self._listener(rows)
        super()._forget()
