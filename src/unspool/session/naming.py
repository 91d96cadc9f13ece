"""Names for the addresses of one live process: each address becomes a place in a module, each place is asked for once."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unspool.model.module import AddressSpace
from unspool.model.module import Mapping as Mapped
from unspool.model.symbol import Named, Unnamed
from unspool.targets import procfs
from unspool.targets.process import ProcessMemory

if TYPE_CHECKING:
    from unspool.symbols.symbolizer import Symbolizer

ModuleKey = tuple[str, tuple[int, int], int]
"""What tells one mapped file from another: path, device, inode."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address lies: the module's path ("[vdso]", "" for memory that no file backs), and the byte of its file.

    Where no file is, the offset is the address itself; None where nothing is mapped.
    `key` tells apart files that had the same path one after another.
    """

    module: str
    offset: int | None
    key: ModuleKey = field(default=("", (0, 0), 0), repr=False)


class Places:
    """The places of addresses in one process, and a mapping of each module that was met."""

    def __init__(self, pid: int) -> None:
        """No address was met yet."""
        self.pid = pid
        self.mappings: dict[ModuleKey, Mapped] = {}
        self.offsets: dict[ModuleKey, set[int]] = {}

    def add(self, space: AddressSpace, address: int) -> None:
        """Note an address that has to be named."""
        mapping = space.find(address)
        if mapping is not None:
            key = key_of(mapping)
            self.mappings.setdefault(key, mapping)
            self.offsets.setdefault(key, set()).add(offset_in(mapping, address))

    @staticmethod
    def place(space: AddressSpace, address: int) -> Place:
        """Where the address lies."""
        mapping = space.find(address)
        return Place("", None) if mapping is None else Place(mapping.path, offset_in(mapping, address), key_of(mapping))


def key_of(mapping: Mapped) -> ModuleKey:
    """The module behind a mapping."""
    return mapping.path, mapping.device, mapping.inode


def offset_in(mapping: Mapped, address: int) -> int:
    """The byte of the mapped file; the address itself in memory that no file backs, where there is nothing else to count from."""
    return address if mapping.kind == "anon" else mapping.file_offset(address)


def names_of(places: Places, symbolizer: Symbolizer) -> Mapping[Place, Named]:
    """The names of all places: an address without one has its reason."""
    from unspool.symbols.jit import jit_names
    from unspool.symbols.mapped_files import open_mapping

    names: dict[Place, Named] = {Place("", None): Unnamed("nothing is mapped there")}
    memory = ProcessMemory(living_thread(places.pid))
    for key, mapping in places.mappings.items():
        is_jit = mapping.executable and not mapping.path
        source = jit_names(places.pid) if is_jit else open_mapping(places.pid, mapping, memory)
        symbolizer.add(key, source)
        offsets = sorted(places.offsets[key])
        found = symbolizer.names(key, offsets)
        names |= {Place(mapping.path, offset, key): named for offset, named in zip(offsets, found, strict=True)}
    return names


def living_thread(pid: int) -> int:
    """A thread whose memory can still be read: the process's first one may have ended before the others."""
    with contextlib.suppress(OSError):
        for tid in procfs.thread_ids(pid):
            state = procfs.thread_state(pid, tid)
            if state is not None and not state.ended:
                return tid
    return pid
