"""The bytes that mapped files show in a process, and the functions they hold."""

from __future__ import annotations

import functools
import mmap
import os
from bisect import bisect_right
from pathlib import Path

from oracle.fde_ranges import function_ranges, function_symbols

from unspool.errors import BadInput
from unspool.formats.elf.file import Elf
from unspool.model.memory import Bytes
from unspool.model.module import AddressSpace, Mapping


@functools.cache
def _mapped_file(path: str) -> mmap.mmap | None:
    try:
        with Path(path).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else None
    except OSError:
        return None


class ImageMemory:
    """Memory that is what the files hold: nothing that a program or its loader wrote."""

    def __init__(self, space: AddressSpace, vdso: Bytes | None = None) -> None:
        """Show the files of that address space."""
        self.space = space
        self.vdso = vdso

    def read(self, address: int, size: int) -> bytes | None:
        """The bytes, None where a file has none or the mapping may have been written to."""
        if self.vdso and (data := self.vdso.read(address, size)) is not None:
            return data
        parts = b""
        while len(parts) < size:
            mapping = self.space.find(address + len(parts))
            part = _part(mapping, address + len(parts), size - len(parts)) if mapping else b""
            if not part:
                return None
            parts += part
        return parts


def _part(mapping: Mapping, address: int, size: int) -> bytes:
    if mapping.kind != "file" or (mapping.writable and not mapping.shared):
        return b""
    data = _mapped_file(mapping.path)
    start = mapping.file_offset(address)
    return data[start : start + min(size, mapping.end - address)] if data else b""


class Functions:
    """Which function an address belongs to: the ground on which reported and true stacks are compared.

    A function is the range of its FDE; the part of it that the compiler moved away (`.cold`) counts as the function. Where there is no FDE
    the symbol counts, and without a symbol the address itself.
    """

    def __init__(self, vdso: Bytes | None = None) -> None:
        """Know the vDSO's bytes; files are read when they are asked for."""
        self._vdso = vdso
        self._known: dict[tuple[int, int], tuple[str, int]] = {}

    def at(self, space: AddressSpace, address: int) -> tuple[str, int]:
        """A key that two addresses share exactly when they lie in one function."""
        mapping = space.find(address)
        if mapping is None:
            return "", address
        key = (mapping.start ^ mapping.inode << 48, address)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._lookup(mapping, address)
        return found

    def _lookup(self, mapping: Mapping, address: int) -> tuple[str, int]:
        if mapping.kind == "vdso" and self._vdso:
            table = _vdso_table(self._vdso.data)
            start = table.start(address - mapping.start)
            return ("[vdso]", start) if start is not None else ("", address)
        table_of = _file_table(mapping.path) if mapping.kind == "file" else None
        if table_of is None:
            return "", address
        svma = table_of.elf.svma(mapping.file_offset(address))
        start = table_of.start(svma) if svma is not None else None
        return (mapping.path, start) if start is not None else ("", address)


class _Table:
    def __init__(self, elf: Elf) -> None:
        self.elf = elf
        self._ranges = function_ranges(elf)
        self._starts = [start for start, _ in self._ranges]
        self._symbols: list[tuple[int, int]] = []
        self._parents: dict[int, int] = {}
        self._read_symbols()

    def _read_symbols(self) -> None:
        names: dict[str, int] = {}
        for name, address, size in function_symbols(self.elf):
            names[name] = address
            if size:
                self._symbols.append((address, size))
        self._symbols.sort()
        for name, address in names.items():
            parent, cold, _ = name.partition(".cold")
            if cold and parent in names:
                self._parents[address] = names[parent]

    def start(self, address: int) -> int | None:
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._ranges[index][1]:
            start = self._ranges[index][0]
            return self._parents.get(start, start)
        index = bisect_right(self._symbols, (address, 1 << 62)) - 1
        if index >= 0 and address < sum(self._symbols[index]):
            start = self._symbols[index][0]
            return self._parents.get(start, start)
        return None


@functools.cache
def _file_table(path: str) -> _Table | None:
    data = _mapped_file(path)
    try:
        return _Table(Elf(data, file=path)) if data else None
    except BadInput:
        return None


@functools.cache
def _vdso_table(data: bytes) -> _Table:
    return _Table(Elf(data, file="[vdso]"))
