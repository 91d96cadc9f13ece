"""Source lines and inlined calls of one file, by the `symbolic` library; only ever used inside a worker."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Any

from unspool.formats.elf import Elf, SectionFlag
from unspool.formats.elf.compression import MAX_RATIO, stated_size

MAX_DEBUG_INFO = 1 << 30
"""Bytes of DWARF, unpacked, that are read; a file with more keeps its functions' names."""
_NO_ADDRESS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Call:
    """One of the calls at an address: a function's linkage name, with the place in it (None for what DWARF does not say)."""

    function: str
    file: str | None
    line: int | None
    start: int | None


class DwarfFile:
    """The DWARF of one file; ImportError or ValueError when it cannot be read."""

    def __init__(self, data: mmap.mmap | bytes, elf: Elf) -> None:
        """Convert all of it (30-50 ms a MB of .debug_info): a lookup then takes some microseconds."""
        from symbolic._lowlevel import ffi
        from symbolic.debuginfo import Archive
        from symbolic.exceptions import SymbolicError

        # Archive keeps a pointer into the data and no reference to it.
        self._data = ffi.from_buffer("uint8_t[]", data)
        try:
            self._archive = Archive.from_bytes(self._data)
            self._object = next(self._archive.iter_objects(), None)
            if self._object is None:
                raise ValueError("no object in the file")
            self._cache: Any = self._object.make_symcache()
        except SymbolicError as error:
            raise ValueError(str(error)) from None
        self._base = image_base(elf)

    def calls(self, address: int) -> list[Call]:
        """The calls at an Svma, innermost inlined one first; [] where DWARF says nothing."""
        relative = address - self._base
        if relative < 0:
            return []
        return [
            Call(
                found.symbol or "",
                _tidy(found.full_path) if found.full_path else None,
                found.line or None,
                found.sym_addr + self._base if found.sym_addr != _NO_ADDRESS else None,
            )
            for found in self._cache.lookup(relative)
        ]


def has_dwarf(elf: Elf) -> bool:
    """Whether the file holds functions or lines, in an amount that may be unpacked."""
    total = 0
    for section in elf.sections:
        if section.has_bytes and section.name.startswith((".debug_", ".zdebug_")):
            size = stated_size(elf.read(section.offset, min(section.size, 24)), section.name, elf.layout, section.flags, section.size)
            if section.flags & SectionFlag.COMPRESSED and size > MAX_RATIO * section.size + (1 << 20):
                return False
            total += size
    present = any(elf.section(name) for name in (".debug_info", ".zdebug_info", ".debug_line", ".zdebug_line"))
    return present and total <= MAX_DEBUG_INFO


def image_base(elf: Elf) -> int:
    """The address that `symbolic` counts from: of the lowest loaded segment."""
    return min((segment.address for segment in elf.loads), default=0)


def _tidy(path: str) -> str:
    """The path without a folder that compiler and build folder both state, as in "malloc/malloc/malloc.c"; absolute paths as they are."""
    if path.startswith("/"):
        return path
    parts = os.path.normpath(path).split("/")
    for size in range(1, len(parts) // 2 + 1):
        if parts[:size] == parts[size : 2 * size]:
            return "/".join(parts[size:])
    return "/".join(parts)
