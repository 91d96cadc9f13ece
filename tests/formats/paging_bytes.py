"""Physical memory made of pages, and page tables written into it entry by entry (Intel SDM, volume 3A, section 4.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from unspool.model.memory import Memory

PAGE = 4096
LARGE, HUGE = 2 << 20, 1 << 30
PRESENT, WRITABLE, USER, LARGE_PAGE, NO_EXECUTE = 1, 2, 4, 1 << 7, 1 << 63


@dataclass
class FakeRam:
    """Pages by their number; what was never written is a hole, which reads as None."""

    pages: dict[int, bytearray] = field(default_factory=dict)
    reads: list[tuple[int, int]] = field(default_factory=list)

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes, None when a page of them is a hole."""
        self.reads.append((address, size))
        parts = []
        while size > 0:
            page = self.pages.get(address // PAGE)
            if page is None:
                return None
            part = min(size, PAGE - address % PAGE)
            parts.append(bytes(page[address % PAGE : address % PAGE + part]))
            address, size = address + part, size - part
        return b"".join(parts)

    def write(self, address: int, data: bytes) -> None:
        """Put the bytes there, and zeros into the rest of new pages."""
        while data:
            page = self.pages.setdefault(address // PAGE, bytearray(PAGE))
            part = min(len(data), PAGE - address % PAGE)
            page[address % PAGE : address % PAGE + part] = data[:part]
            address, data = address + part, data[part:]

    def word(self, address: int) -> int:
        """The 64-bit word there, 0 in a hole."""
        data = self.read(address, 8)
        return 0 if data is None else int.from_bytes(data, "little")


@dataclass(frozen=True)
class Damaged:
    """Memory in which some bytes are others: `changes` gives what each is xor-ed with; `holes` are pages that are gone."""

    memory: Memory
    changes: Mapping[int, int]
    holes: frozenset[int] = frozenset()

    def read(self, address: int, size: int) -> bytes | None:
        """The bytes with the damage."""
        data = self.memory.read(address, size)
        if data is None or any(address // PAGE <= hole <= (address + size - 1) // PAGE for hole in self.holes):
            return None
        hit = [place for place in self.changes if address <= place < address + size]
        if not hit:
            return data
        copy = bytearray(data)
        for place in hit:
            copy[place - address] ^= self.changes[place]
        return bytes(copy)


class TableWriter:
    """Page tables in physical memory; each new table takes the next free page from `free` on."""

    def __init__(self, ram: FakeRam, root: int, free: int, *, levels: int = 4) -> None:
        """Put an empty top table at `root`."""
        self.ram, self.root, self.free, self.levels = ram, root, free, levels
        ram.write(root, bytes(PAGE))

    def map(self, address: int, pa: int, size: int = PAGE, rights: int = WRITABLE) -> None:
        """One page of `size` bytes at `address`; `rights` are bits of its entry."""
        level = {PAGE: 0, LARGE: 1, HUGE: 2}[size]
        table = self.root
        for above in range(self.levels - 1, level, -1):
            place = table + (address >> 12 + 9 * above & 511) * 8
            entry = self.ram.word(place)
            if not entry & PRESENT:
                entry = self.free | PRESENT | WRITABLE | USER
                self.ram.write(self.free, bytes(PAGE))
                self.free += PAGE
                self.ram.write(place, entry.to_bytes(8, "little"))
            table = entry & 0x000F_FFFF_FFFF_F000
        entry = pa | PRESENT | rights | (LARGE_PAGE if level else 0)
        self.ram.write(table + (address >> 12 + 9 * level & 511) * 8, entry.to_bytes(8, "little"))
