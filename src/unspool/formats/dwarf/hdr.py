""".eh_frame_hdr: where .eh_frame is, and the table that finds an FDE by binary search (LSB 5.0, section 10.6.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unspool.errors import BadInput
from unspool.formats.dwarf.cfi import Fde, FrameSection
from unspool.formats.dwarf.cursor import ByteOrder, Cursor
from unspool.formats.dwarf.pointers import OMIT, Bases, fixed_size, pointer
from unspool.model.memory import Memory

_HEADER_SIZE = 4 + 2 * 10  # four bytes, then two pointers of at most ten bytes
# Entries with an equal start stand in any order, and one of them can be an FDE of no bytes; two suffice for every known file.
_SAME_START = 2


@dataclass(frozen=True, slots=True)
class SearchTable:
    """The header at `address` of `memory`: .eh_frame's address, and `count` pairs (function, FDE) of `entry_size` bytes at `table`.

    `count` is 0 where there is no table: .eh_frame must be read through.
    """

    memory: Memory
    address: int
    frames: int
    count: int
    table: int
    encoding: int
    entry_size: int
    word: int
    byte_order: ByteOrder

    @classmethod
    def read(cls, memory: Memory, address: int, *, size: int, byte_order: ByteOrder = "little", word: int = 8) -> SearchTable:
        """The header at the address; `size` bytes are header and table. BadInput for another version or encodings without meaning."""
        word = 8
        data = memory.read(address, min(size, _HEADER_SIZE))
        if data is None:
            raise BadInput(".eh_frame_hdr cannot be read", offset=address)
        cursor = Cursor(data, byte_order, origin=address)
        version, frames_encoding, count_encoding, encoding = cursor.u8(), cursor.u8(), cursor.u8(), cursor.u8()
        if version != 1:
            raise BadInput(f".eh_frame_hdr version {version}", offset=address)
        bases = Bases(data=address)
        frames = pointer(cursor, frames_encoding, word, bases)
        entry = None if encoding == OMIT else fixed_size(encoding, word)
        if count_encoding == OMIT or entry is None:
            return cls(memory, address, frames, 0, 0, OMIT, 0, word, byte_order)
        count = pointer(cursor, count_encoding, word, bases)
        if count > (size - cursor.offset) // (2 * entry):
            # A count that does not fit the section is a broken table; .eh_frame itself may still be good.
            return cls(memory, address, frames, 0, 0, OMIT, 0, word, byte_order)
        return cls(memory, address, frames, count, address + cursor.offset, encoding, 2 * entry, word, byte_order)

    def pair(self, index: int) -> tuple[int, int]:
        """The function's start and its FDE's address."""
        at = self.table + index * self.entry_size
        data = self.memory.read(at, self.entry_size)
        if data is None:
            raise BadInput(".eh_frame_hdr's table cannot be read", offset=at)
        cursor = Cursor(data, self.byte_order, origin=at)
        bases = Bases(data=self.address)
        return pointer(cursor, self.encoding, self.word, bases), pointer(cursor, self.encoding, self.word, bases)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Every pair, in the table's order."""
        return (self.pair(index) for index in range(self.count))

    def candidates(self, pc: int) -> Iterator[int]:
        """Addresses of the FDEs that may hold the pc: that of the last function that starts at or before it, then one more."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.pair(middle)[0] <= pc:
                low = middle + 1
            else:
                high = middle
        for index in range(low - 1, max(low - 1 - _SAME_START, -1), -1):
            yield self.pair(index)[1]

    def find(self, pc: int, section: FrameSection) -> Fde | None:
        """The FDE that holds the pc, None when the table has none."""
        for address in self.candidates(pc):
            fde = section.fde_at(address)
            if pc in fde:
                return fde
            if fde.end > fde.start:
                return None
        return None
