"""What is mapped into a process: the ranges, and the files, vDSO and anonymous code behind them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

ModuleKind = Literal["file", "vdso", "anon", "jit", "kernel"]


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps (or one MMAP2 event, one core segment): `[start, end)` shows `path` from byte `offset` on.

    `path` is as the kernel printed it: "" for anonymous memory, "[vdso]", "[stack]", "[heap]", "[uprobes]"; " (deleted)" is taken off and
    kept in `deleted`. `device` is (major, minor).
    """

    start: int
    end: int
    readable: bool
    writable: bool
    executable: bool
    offset: int
    path: str
    device: tuple[int, int] = (0, 0)
    inode: int = 0
    shared: bool = False
    deleted: bool = False
    build_id: str = ""

    def __contains__(self, address: object) -> bool:
        """Whether the address lies in the range."""
        return isinstance(address, int) and self.start <= address < self.end

    @property
    def kind(self) -> ModuleKind:
        """What stands behind the range: a file, the vDSO, or memory that no file backs."""
        if self.path == "[vdso]":
            return "vdso"
        if self.inode or (self.path and not self.path.startswith("[")):
            return "file"
        return "anon"

    def file_offset(self, address: int) -> int:
        """The byte of the file that shows at `address`."""
        return address - self.start + self.offset


@dataclass(frozen=True, slots=True)
class AddressSpace:
    """A process's mappings, sorted by address; `find` is a binary search."""

    mappings: tuple[Mapping, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, mappings: Iterable[Mapping]) -> AddressSpace:
        """Sort the mappings."""
        ordered = tuple(sorted(mappings, key=lambda mapping: mapping.start))
        return cls(ordered, tuple(mapping.start for mapping in ordered))

    def find(self, address: int) -> Mapping | None:
        """The mapping that holds the address, None when nothing is mapped there."""
        index = bisect_right(self.starts, address) - 1
        if index < 0:
            return None
        mapping = self.mappings[index]
        return mapping if address < mapping.end else None

    def __iter__(self) -> Iterator[Mapping]:
        """Every mapping in address order."""
        return iter(self.mappings)
