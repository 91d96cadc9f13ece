"""A reader of DWARF's primitive values that never reads past its end."""

from __future__ import annotations

from typing import Literal

from unspool.errors import BadInput

ByteOrder = Literal["little", "big"]

# Ten groups of seven bits hold 64; producers may pad, but nothing real pads beyond a few bytes.
_MAX_LEB128 = 16
_MASK = (1 << 64) - 1


class Cursor:
    """Values from `data[offset:end]`, front to back; BadInput (with the offset in `data` plus `origin`) when one does not fit.

    `offset` may be set; `origin` is where `data` starts, in the section or in memory.
    """

    __slots__ = ("byte_order", "data", "end", "offset", "origin")

    def __init__(self, data: bytes, byte_order: ByteOrder, *, offset: int = 0, end: int | None = None, origin: int = 0) -> None:
        """Start at `offset`."""
        self.data = data
        self.byte_order = byte_order
        self.offset = offset
        self.end = len(data) if end is None else min(end, len(data))
        self.origin = origin

    def bad(self, what: str) -> BadInput:
        """The error for what stands at the current offset."""
        return BadInput(what, offset=self.origin + self.offset)

    def __bool__(self) -> bool:
        """Whether bytes are left."""
        return self.offset < self.end

    def bytes(self, size: int) -> bytes:
        """The next `size` bytes."""
        start = self.offset
        if size < 0 or start + size > self.end:
            raise self.bad(f"{size} bytes are not there")
        self.offset = start + size
        return self.data[start : start + size]

    def unsigned(self, size: int) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.bytes(size), self.byte_order)

    def signed(self, size: int) -> int:
        """A two's complement integer of `size` bytes."""
        return int.from_bytes(self.bytes(size), self.byte_order, signed=True)

    def u8(self) -> int:
        """One byte."""
        offset = self.offset
        if offset >= self.end:
            raise self.bad("a byte is missing")
        self.offset = offset + 1
        return self.data[offset]

    def uleb(self) -> int:
        """An unsigned LEB128 (DWARF 5, section 7.6); more than 64 bits are BadInput."""
        value = shift = 0
        for _ in range(_MAX_LEB128):
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > _MASK:
                    raise self.bad("LEB128 of more than 64 bits")
                return value
            shift += 7
        raise self.bad("LEB128 without an end")

    def sleb(self) -> int:
        """A signed LEB128; more than 64 bits are BadInput."""
        value = shift = 0
        for _ in range(_MAX_LEB128):
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                value -= (byte & 0x40) << (shift - 6)
                if not -(1 << 63) <= value < 1 << 63:
                    raise self.bad("LEB128 of more than 64 bits")
                return value
        raise self.bad("LEB128 without an end")

    def string(self) -> str:
        """A zero-terminated string; bytes that are not ASCII are escaped."""
        end = self.data.find(b"\0", self.offset, self.end)
        if end < 0:
            raise self.bad("string without an end")
        text = self.data[self.offset : end].decode("ascii", "backslashreplace")
        self.offset = end + 1
        return text
