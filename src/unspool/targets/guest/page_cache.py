"""Files out of a guest's page cache: what the guest has read of a file is in its memory, so that no file is needed from its disk.

A page is found as the kernel finds it: through the tree of the file's `struct address_space` (lib/xarray.c), to a folio, to the physical
page that its place in the array of `struct page` stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unspool.errors import BadInput
from unspool.formats.elf import Elf
from unspool.formats.paging import PAGE
from unspool.targets.guest.kernel_memory import KernelMemory
from unspool.targets.guest.structs import MemoryStructs

MAX_FILE = 256 << 20
"""The largest file that is taken whole, in bytes."""
MAX_BUILD_IDS = 4096
_KERNEL_HALF = 1 << 63
# A node tells its level by the bits below it; 6 bits a level cover 64 bits of index in 11 levels.
_MAX_LEVELS = 11
_LARGEST_FOLIO = 1 << 18
_LARGEST_NODE = 4096
_WORD_BITS = 64


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file that a guest has mapped. `path` is that inside the guest; `pages` is the address of its `struct address_space`.

    `size` in bytes; `device` is (major, minor), `inode` the number.
    """

    pages: int
    path: str
    deleted: bool
    device: tuple[int, int]
    inode: int
    size: int


class PageCache:
    """The cached pages of one guest's files. Its memory keeps what it has read: call `kernel.forget()` before a new look."""

    def __init__(self, memory: KernelMemory, structs: MemoryStructs, page_structs: int) -> None:
        """`page_structs` is where the array of `struct page` begins (`vmemmap_base`)."""
        self.memory = memory
        self.structs = structs
        self._array = page_structs
        self._build_ids: dict[GuestFile, str] = {}

    def page(self, file: GuestFile, index: int) -> bytes | None:
        """The file's page of that number, None when it is not in memory."""
        folio = self._entry(file.pages + self.structs.cache_head, index)
        if folio is None or folio < _KERNEL_HALF:
            return None
        at, read = self.structs, self.memory
        first, owner, flags = (read.word(folio + offset) for offset in (at.page_index, at.page_mapping, at.page_flags))
        # The folio may have been given to another file since the tree was read.
        if first is None or flags is None or owner != file.pages or not flags & at.uptodate:
            return None
        if not 0 <= index - first < _LARGEST_FOLIO:
            return None
        place, rest = divmod(folio - self._array, at.page_size)
        if place < 0 or rest:
            return None
        return read.physical.read((place + index - first) * PAGE, PAGE)

    def read(self, file: GuestFile, offset: int, size: int) -> bytes | None:
        """`size` bytes of the file from `offset` on, None when any of them is not in memory or behind its end."""
        if offset < 0 or not 0 <= size <= MAX_FILE or offset + size > file.size:
            return None
        parts = []
        for index in range(offset // PAGE, -(-(offset + size) // PAGE)):
            data = self.page(file, index)
            if data is None:
                return None
            parts.append(data)
        start = offset % PAGE
        return b"".join(parts)[start : start + size]

    def piece(self, file: GuestFile, first: int, count: int) -> Iterator[bytes | None]:
        """The file's pages from number `first` on, each None that is not in memory."""
        for index in range(first, first + count):
            yield self.page(file, index) if 0 <= index * PAGE < file.size else None

    def whole(self, file: GuestFile) -> bytes | None:
        """The whole file, when all of it is in memory and it is no larger than `MAX_FILE`."""
        return self.read(file, 0, file.size) if file.size <= MAX_FILE else None

    def build_id(self, file: GuestFile) -> str:
        """The GNU build id out of the file's notes, in hexadecimal; "" when it has none, or its first pages are not in memory."""
        if file not in self._build_ids:
            if len(self._build_ids) >= MAX_BUILD_IDS:
                self._build_ids.clear()
            self._build_ids[file] = self._read_build_id(file)
        return self._build_ids[file]

    def _read_build_id(self, file: GuestFile) -> str:
        try:
            return Elf(FileMemory(self, file), file=file.path).build_id
        except BadInput:
            return ""

    def _entry(self, head: int, index: int) -> int | None:
        """The tree's entry for a page number; None where there is none, or something else than a page (a shadow of one, a swap entry)."""
        entry = self.memory.word(head)
        # Without a node the tree holds the one entry of index 0.
        shift_above = _WORD_BITS
        node = None if entry is None else _node(entry)
        if node is None:
            return entry if index == 0 and _is_pointer(entry) else None
        offset, slots = self.structs.node_slots
        bits = slots.bit_length() - 1
        for _ in range(_MAX_LEVELS):
            data = self.memory.read(node + self.structs.node_shift, 1)
            # Each node is for fewer bits than the one above; the topmost must have room for the whole number.
            if data is None or data[0] >= shift_above or (shift_above == _WORD_BITS and index >> data[0] >> bits):
                return None
            shift_above = data[0]
            slot = index >> shift_above & slots - 1
            entry = self.memory.word(node + offset + 8 * slot)
            if entry is not None and _is_sibling(entry, slots):
                # Slots of one large folio point at the first of them.
                entry = self.memory.word(node + offset + 8 * (entry >> 2))
            below = None if entry is None else _node(entry)
            if below is None:
                return entry if _is_pointer(entry) else None
            node = below
        return None


class FileMemory:
    """A file in the page cache as a `model.Memory` of its offsets."""

    def __init__(self, cache: PageCache, file: GuestFile) -> None:
        """Read that file."""
        self._cache = cache
        self._file = file

    def read(self, address: int, size: int) -> bytes | None:
        """The file's bytes at an offset."""
        return self._cache.read(self._file, address, size)


def _node(entry: int) -> int | None:
    """The address of the node that an entry leads to (xa_is_node and xa_to_node, linux/xarray.h)."""
    return entry - 2 if entry & 3 == 2 and entry > _LARGEST_NODE and entry >= _KERNEL_HALF else None


def _is_sibling(entry: int, slots: int) -> bool:
    return entry & 3 == 2 and entry >> 2 < slots


def _is_pointer(entry: int | None) -> bool:
    return entry is not None and entry != 0 and entry & 3 == 0
