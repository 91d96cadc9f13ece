"""The virtual memory of a guest's kernel, read through the kernel's own page tables and never through those of a process.

A process's tables may be freed while they are looked at; the kernel's own (init_top_pgt) stay where they are. Two ranges need no tables:
the kernel's image, which is contiguous in physical memory, and the direct map of all memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from unspool.formats.paging import MAX_READ, PAGE, PageTables
from unspool.model.memory import Memory
from unspool.targets.guest.pages import PagedMemory

# Larger reads are of tables that are read once: they would only push the small pages out.
_MAX_KEPT_READ = 16 * PAGE


class Window(NamedTuple):
    """Virtual addresses `[start, end)` that lie contiguously in physical memory from `pa` on."""

    start: int
    end: int
    pa: int


class KernelMemory(PagedMemory):
    """A `model.memory.Memory` of kernel virtual addresses that keeps the pages it has read until `forget`.

    While a vCPU is held its pages stand still; a guest that has run since is another memory: call `forget` between two holds.
    """

    longest = MAX_READ

    def __init__(self, tables: PageTables, windows: tuple[Window, ...]) -> None:
        """Read through `tables`, and without them where a window holds the address."""
        super().__init__()
        self.tables = tables
        self.windows = windows

    @property
    def physical(self) -> Memory:
        """The guest's physical memory."""
        return self.tables.physical

    def forget(self) -> None:
        """Drop every page and table that was read, because the guest has run since."""
        super().forget()
        self.tables.forget()

    def word(self, address: int) -> int | None:
        """The little-endian 64-bit word at the address, None when it cannot be read."""
        data = self.read(address, 8)
        return None if data is None else int.from_bytes(data, "little")

    def half(self, address: int) -> int | None:
        """The little-endian 32-bit word at the address, None when it cannot be read."""
        data = self.read(address, 4)
        return None if data is None else int.from_bytes(data, "little")

    def string(self, address: int, limit: int = 256) -> bytes | None:
        """The bytes up to the first NUL, or `limit` of them; None when they cannot be read."""
        data = b""
        while len(data) < limit:
            part = self.read(address + len(data), min(limit - len(data), PAGE - (address + len(data) & PAGE - 1)))
            if part is None:
                return None
            text, end, _ = part.partition(b"\0")
            data += text
            if end:
                break
        return data

    def _read_long(self, address: int, size: int) -> bytes | None:
        return self._read_page(address, size) if size > _MAX_KEPT_READ else super()._read_long(address, size)

    def _read_page(self, address: int, size: int = PAGE) -> bytes | None:
        for window in self.windows:
            if window.start <= address < window.end:
                return self.physical.read(address - window.start + window.pa, size) if address + size <= window.end else None
        return self.tables.read(address, size)


def list_entries(memory: KernelMemory, head: int, limit: int) -> Iterator[int]:
    """The addresses of the nodes on a `struct list_head` at `head`, at most `limit`; a list that leads back or nowhere ends there."""
    seen = {head}
    at = memory.word(head)
    while at and at not in seen and len(seen) <= limit:
        seen.add(at)
        yield at
        at = memory.word(at)
