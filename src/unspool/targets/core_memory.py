"""The memory of a process that was dumped: what the core holds, and what the files that were mapped still hold."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

_LONGEST_READ = 1 << 28
"""No rule, table or stack needs more bytes at once; a length that hostile bytes made up must not allocate memory."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `[offset, offset + size)` of a buffer, seen at `start` in the process."""

    start: int
    size: int
    data: bytes | bytearray | memoryview | mmap.mmap
    offset: int


class CoreMemory:
    """Memory put together from pieces; where two cover an address, the one that was added first counts."""

    def __init__(self) -> None:
        """Nothing can be read yet."""
        self._layers: list[tuple[list[int], list[Piece]]] = []

    def add(self, pieces: Iterable[Piece]) -> None:
        """Put pieces that do not overlap each other below all that were added before."""
        ordered = sorted(pieces, key=lambda piece: piece.start)
        self._layers.append(([piece.start for piece in ordered], ordered))

    def clear(self) -> None:
        """Forget all pieces."""
        self._layers.clear()

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes at `address`, or None when any of them was neither dumped nor can be had from a mapped file."""
        if size < 0 or size > _LONGEST_READ:
            return None
        data = b""
        while len(data) < size:
            part = self._part(address + len(data), size - len(data))
            if not part:
                return None
            data += part
        return data

    def _part(self, address: int, size: int) -> bytes:
        """The longest run of bytes at the address that one piece has, up to where a piece above it begins."""
        for starts, pieces in self._layers:
            index = bisect_right(starts, address)
            piece = pieces[index - 1] if index else None
            if piece is not None and address < piece.start + piece.size:
                place = piece.offset + address - piece.start
                return bytes(piece.data[place : place + min(size, piece.start + piece.size - address)])
            if index < len(starts):
                size = min(size, starts[index] - address)
        return b""


def mapped(path: str) -> mmap.mmap | None:
    """The bytes of a regular file, None when it cannot be had. It is asked what it is before it is opened: opening a device drives it."""
    with contextlib.suppress(OSError, ValueError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            descriptor = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        finally:
            os.close(handle)
        try:
            return mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
    return None
