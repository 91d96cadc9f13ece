"""Files of the guest that its frames lie in: asked for piece by piece between two samples, and kept in files without a name."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass

from unspool.capture.guest_wire import BadAnswer, GuestModule

PIECE = 256 << 10
"""Bytes that one request asks for: a few hundred microseconds of work."""
MAX_TOTAL = 256 << 20
"""Bytes of all files of one guest between two boots: they are kept in memory until the recording ends."""


@dataclass(slots=True)
class _Fetched:
    number: int
    size: int
    descriptor: int
    offset: int = 0
    whole: bool = True


class FileQueue:
    """The files that are wanted; each is fetched once. What the guest has not in its page cache stays zero, and the file is not whole."""

    def __init__(self) -> None:
        """Nothing is wanted yet."""
        self._waiting: deque[tuple[int, int]] = deque()
        self._current: _Fetched | None = None
        self._total = 0

    def want(self, number: int, module: GuestModule) -> None:
        """Fetch a module's file, unless it has none or too much was fetched already."""
        if module.kind in {"file", "vdso"} and module.size and self._total + module.size <= MAX_TOTAL:
            self._total += module.size
            self._waiting.append((number, module.size))

    def request(self) -> dict[str, object] | None:
        """The next request to the decoder, None when there is nothing to do; `take` gets the answer."""
        if self._current is None:
            if not self._waiting:
                return None
            number, size = self._waiting.popleft()
            descriptor = os.memfd_create("unspool-guest-file", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, size)
            self._current = _Fetched(number, size, descriptor)
        current = self._current
        return {"op": "file", "module": current.number, "offset": current.offset, "size": min(PIECE, current.size - current.offset)}

    def take(self, answer: bytes | None) -> tuple[int, int, bool] | None:
        """Store the answer; when the file is done its module, its descriptor (to be closed by the caller) and whether it is whole.

        An answer begins with one byte for each page of it, 1 where the page was there; None: nothing of that piece is there.
        """
        current = self._current
        assert current is not None
        size = min(PIECE, current.size - current.offset)
        pages = -(-size // 4096)
        if answer is None:
            current.whole = False
        elif len(answer) != pages + size:
            raise BadAnswer("a piece of a file of another size")
        else:
            current.whole = current.whole and all(answer[:pages])
            os.pwrite(current.descriptor, answer[pages:], current.offset)
        current.offset += size
        if current.offset < current.size:
            return None
        self._current = None
        return current.number, current.descriptor, current.whole

    def close(self) -> None:
        """Drop what is not done."""
        if self._current is not None:
            os.close(self._current.descriptor)
            self._current = None
        self._waiting.clear()
