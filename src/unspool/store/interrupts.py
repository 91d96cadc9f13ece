"""Ctrl-C while DuckDB works comes back as an error of DuckDB's; here it becomes what it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

QUERY = "Query interrupted"
"""The RuntimeError of DuckDB 2.0's Python package when a signal's handler raised while a query ran."""

CALLBACK = "KeyboardInterrupt"
"""How the last line of a duckdb.Error begins, whose text is a traceback, when it raised while DuckDB called Python (to read an array)."""


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """While this lasts, Ctrl-C is a KeyboardInterrupt wherever it comes."""
    import duckdb

    try:
        yield
    except RuntimeError as error:
        if str(error) != QUERY:
            raise
        raise KeyboardInterrupt from error
    except duckdb.Error as error:
        if not (isinstance(error, duckdb.InterruptException) or _is_callback(str(error))):
            raise
        raise KeyboardInterrupt from error


def _is_callback(text: str) -> bool:
    return text.startswith("Traceback ") and text.rstrip().rpartition("\n")[2].startswith(CALLBACK)
