"""x86-64 page tables: from a virtual address to a physical one, with 4 or 5 levels and pages of 4 KiB, 2 MiB and 1 GiB.

Bits as in the Intel SDM, volume 3A, section 4.5 (4-level and 5-level paging). The tables are a guest's: whatever they hold, a walk ends
after `levels` reads, and an iteration after `MAX_TABLES`.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from unspool.model.memory import Memory

PAGE = 4096
MAX_TABLES = 2048
"""The tables that one iteration enters or comes back to: 1 GiB by 4 KiB, more than any kernel has, takes 1027."""
MAX_READ = 64 << 20
"""The largest single read of virtual memory in bytes."""

_PRESENT, _WRITABLE, _USER, _LARGE = 1 << 0, 1 << 1, 1 << 2, 1 << 7
_NO_EXECUTE = 1 << 63
_FRAME = 0x000F_FFFF_FFFF_F000
_ALL = _PRESENT | _WRITABLE | _USER
_KEPT_TABLES = 1024
_ENTRY = Struct("<Q")
_ENTRIES = Struct("<512Q")


class Translation(NamedTuple):
    """Where a virtual address lies: its physical address, the size of its page (bytes), and what the page allows.

    `executable` holds as far as the tables say (EFER.NXE set, as on every Linux).
    """

    pa: int
    size: int
    writable: bool
    user: bool
    executable: bool


class Region(NamedTuple):
    """A run of mapped addresses `[start, start + size)` that is contiguous in physical memory from `pa` on, with the same rights."""

    start: int
    size: int
    pa: int
    writable: bool
    user: bool
    executable: bool


class PageTables:
    """The address space under one top table; as `read` it is a `model.memory.Memory` of virtual addresses.

    Tables that were read are kept until `forget`: they are the guest's, which changes them while it runs.
    """

    def __init__(self, physical: Memory, root: int, levels: int = 4) -> None:
        """Start at the table at physical address `root` (CR3 without its flags), with 4 or 5 levels."""
        self.physical = physical
        self.root = root & _FRAME
        self.levels = 5 if levels == 5 else 4
        self._kept: dict[int, bytes | None] = {}

    def forget(self) -> None:
        """Drop the tables that were read, because the guest has run since."""
        self._kept.clear()

    def translate(self, address: int) -> Translation | None:
        """Where the address lies, None when it is not mapped (or not canonical, or a table cannot be read)."""
        if not self._canonical(address):
            return None
        table, rights, no_execute = self.root, _ALL, 0
        for level in range(self.levels - 1, -1, -1):
            entries = self._table(table)
            if entries is None:
                return None
            (entry,) = _ENTRY.unpack_from(entries, (address >> 12 + 9 * level & 511) * 8)
            if not entry & _PRESENT:
                return None
            rights &= entry
            no_execute |= entry & _NO_EXECUTE
            if level == 0 or entry & _LARGE:
                return _leaf(entry, level, address, rights, executable=not no_execute)
            table = entry & _FRAME
        return None

    def is_empty(self, address: int) -> bool:
        """Whether the entry that ends the address's way is 0: nothing is there, and nothing was swapped out from there."""
        table = self.root
        for level in range(self.levels - 1, -1, -1):
            entries = self._table(table) if self._canonical(address) else None
            if entries is None:
                return False
            (entry,) = _ENTRY.unpack_from(entries, (address >> 12 + 9 * level & 511) * 8)
            if not entry & _PRESENT or (level and entry & _LARGE):
                return not entry
            table = entry & _FRAME
        return False

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes at the virtual address, or None when any of them cannot be read or there are more than `MAX_READ`."""
        if not 0 <= size <= MAX_READ:
            return None
        parts = []
        while size:
            where = self.translate(address)
            if where is None:
                return None
            part = min(size, where.size - (address & where.size - 1))
            data = self.physical.read(where.pa, part)
            if data is None:
                return None
            parts.append(data)
            address += part
            size -= part
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def regions(self, start: int, end: int) -> Iterator[Region]:
        """The mapped runs of `[start, end)`, in order; it ends early, without an error, after `MAX_TABLES` tables."""
        run: Region | None = None
        for page in self._pages(start, end):
            if run is not None and page.start == run.start + run.size and page.pa == run.pa + run.size and page[3:] == run[3:]:
                run = run._replace(size=run.size + page.size)
                continue
            if run is not None:
                yield run
            run = page
        if run is not None:
            yield run

    def _pages(self, start: int, end: int) -> Iterator[Region]:
        """Every mapped page of `[start, end)` in order, cut to that range."""
        budget = MAX_TABLES
        # What is left to do, innermost last: table, level, rights, no-execute bit, the address to go on from.
        stack = [(self.root, self.levels - 1, _ALL, 0, start)]
        while stack:
            table, level, rights, no_execute, address = stack.pop()
            span = PAGE << 9 * level
            budget -= 1
            data = self._table(table) if budget >= 0 else None
            if data is None:
                continue
            entries = _ENTRIES.unpack(data)
            limit = min(end, (address | span * 512 - 1) + 1)
            while address < limit:
                entry = entries[address // span & 511]
                after = (address | span - 1) + 1
                if entry & _PRESENT and (level == 0 or entry & _LARGE):
                    leaf = _leaf(entry, level, address, rights & entry, executable=not (no_execute | entry & _NO_EXECUTE))
                    if leaf is not None:
                        yield Region(address, min(after, end) - address, leaf.pa, leaf.writable, leaf.user, leaf.executable)
                elif entry & _PRESENT:
                    if after < limit:
                        stack.append((table, level, rights, no_execute, after))
                    stack.append((entry & _FRAME, level - 1, rights & entry, no_execute | entry & _NO_EXECUTE, address))
                    break
                address = after

    def _table(self, physical: int) -> bytes | None:
        try:
            return self._kept[physical]
        except KeyError:
            pass
        if len(self._kept) >= _KEPT_TABLES:
            self._kept.clear()
        self._kept[physical] = data = self.physical.read(physical, PAGE)
        return data

    def _canonical(self, address: int) -> bool:
        top = address >> 9 * self.levels + 11
        return top in {0, (1 << 53 - 9 * self.levels) - 1}


def _leaf(entry: int, level: int, address: int, rights: int, *, executable: bool) -> Translation | None:
    """The translation by an entry that maps a page; None for a large page where the machine knows none (512 GiB and up)."""
    if level > 2:
        return None
    size = PAGE << 9 * level
    base = entry & _FRAME & -size
    return Translation(base | address & size - 1, size, bool(rights & _WRITABLE), bool(rights & _USER), executable)
