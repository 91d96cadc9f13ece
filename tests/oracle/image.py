"""The bytes that mapped files show in a process, and the functions they hold."""

from __future__ import annotations

import functools
import mmap
import os
from bisect import bisect_right
from pathlib import Path
from typing import Protocol

from oracle.fde_ranges import function_ranges, function_symbols

from unspool.errors import BadInput
from unspool.formats.elf.file import Elf
from unspool.model.memory import Bytes
from unspool.model.module import AddressSpace, Mapping


class Files(Protocol):
    """Where the files of a stepped program are: on this machine's disk, or in the corpus."""

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Up to `size` bytes of a file, b"" where there are none."""

    def function(self, path: str, offset: int) -> int | None:
        """What identifies the function that holds that byte of the file, None for no function."""


class Disk:
    """The files of this machine."""

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Up to `size` bytes of a file."""
        data = _mapped_file(path)
        return data[offset : offset + size] if data else b""

    def function(self, path: str, offset: int) -> int | None:
        """The offset of the function's first byte."""
        table = _file_table(path)
        return table.start(offset) if table else None


class ImageMemory:
    """Memory that is what the files hold: nothing that a program or its loader wrote."""

    def __init__(self, space: AddressSpace, vdso: Bytes | None, files: Files) -> None:
        """Show the files of that address space."""
        self.space = space
        self.vdso = vdso
        self.files = files

    def read(self, address: int, size: int) -> bytes | None:
        """The bytes, None where a file has none or the mapping may have been written to."""
        if self.vdso and (data := self.vdso.read(address, size)) is not None:
            return data
        parts = b""
        while len(parts) < size:
            mapping = self.space.find(address + len(parts))
            part = self._part(mapping, address + len(parts), size - len(parts)) if mapping else b""
            if not part:
                return None
            parts += part
        return parts

    def _part(self, mapping: Mapping, address: int, size: int) -> bytes:
        if mapping.kind != "file" or (mapping.writable and not mapping.shared):
            return b""
        return self.files.read(mapping.path, mapping.file_offset(address), min(size, mapping.end - address))


class Functions:
    """Which function an address belongs to: the ground on which reported and true stacks are compared.

    A function is the range of its FDE; the part of it that the compiler moved away (`.cold`) counts as the function. Where there is no FDE
    the symbol counts, and without a symbol the address itself.
    """

    def __init__(self, vdso: Bytes | None, files: Files) -> None:
        """Know the vDSO's bytes; files are read when they are asked for."""
        self._vdso = vdso
        self._files = files
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
            start = _vdso_table(self._vdso.data).start(address - mapping.start)
        else:
            start = self._files.function(mapping.path, mapping.file_offset(address)) if mapping.kind == "file" else None
        return (mapping.path, start) if start is not None else ("", address)


class FunctionTable:
    """The functions of a file by file offset."""

    def __init__(self, elf: Elf) -> None:
        """Read the FDEs and the symbols."""
        self.ranges = [
            (offset, offset + end - start) for start, end in function_ranges(elf) if (offset := elf.file_offset(start)) is not None
        ]
        self._starts = [start for start, _ in self.ranges]
        self._symbols: list[tuple[int, int]] = []
        self._parents: dict[int, int] = {}
        self._read_symbols(elf)

    def _read_symbols(self, elf: Elf) -> None:
        names: dict[str, int] = {}
        for name, address, size in function_symbols(elf):
            offset = elf.file_offset(address)
            if offset is None:
                continue
            names[name] = offset
            if size:
                self._symbols.append((offset, size))
        self._symbols.sort()
        for name, offset in names.items():
            parent, cold, _ = name.partition(".cold")
            if cold and parent in names:
                self._parents[offset] = names[parent]

    def start(self, offset: int) -> int | None:
        """What identifies the function that holds that byte."""
        index = bisect_right(self._starts, offset) - 1
        if index >= 0 and offset < self.ranges[index][1]:
            start = self.ranges[index][0]
            return self._parents.get(start, start)
        index = bisect_right(self._symbols, (offset, 1 << 62)) - 1
        if index >= 0 and offset < sum(self._symbols[index]):
            start = self._symbols[index][0]
            return self._parents.get(start, start)
        return None

    def extent(self, offset: int) -> tuple[int, int] | None:
        """The bytes around that one that belong to the same function (or piece of one)."""
        index = bisect_right(self._starts, offset) - 1
        if index >= 0 and offset < self.ranges[index][1]:
            return self.ranges[index]
        index = bisect_right(self._symbols, (offset, 1 << 62)) - 1
        if index >= 0 and offset < sum(self._symbols[index]):
            return self._symbols[index][0], sum(self._symbols[index])
        return None


@functools.cache
def _mapped_file(path: str) -> mmap.mmap | None:
    try:
        with Path(path).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else None
    except OSError:
        return None


@functools.cache
def _file_table(path: str) -> FunctionTable | None:
    data = _mapped_file(path)
    try:
        return FunctionTable(Elf(data, file=path)) if data else None
    except BadInput:
        return None


def file_table(path: str) -> FunctionTable | None:
    """The functions of a file of this machine."""
    return _file_table(path)


@functools.cache
def _vdso_table(data: bytes) -> FunctionTable:
    return FunctionTable(Elf(data, file="[vdso]"))
