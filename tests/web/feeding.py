"""Rows as a live recording sends them, made of the recordings that other tests use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from store import recordings

from unspool.store import wire
from unspool.store.feed import FeedingWriter
from unspool.store.header import Header


def bodies(build: Callable[[Path], object], path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was sent while `build` wrote a recording to `path`, a body for each commit."""
    sent: list[bytes] = []

    def writer(file: Path, header: Header) -> FeedingWriter:
        return FeedingWriter(file, header, lambda rows: sent.append(wire.encoded(rows)))

    monkeypatch.setattr(recordings, "Writer", writer)
    build(path)
    return sent
