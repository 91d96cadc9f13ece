"""Where QEMU keeps each block of a machine's memory, read out of its own lists: for a QEMU that cannot be asked.

A block is a struct RAMBlock (include/exec/ramblock.h, which begins alike in QEMU 7.2 to 10.0): its name is searched in the heap, and what
stands before the name must be an address inside of a mapping, and the block's size.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

from unspool.model.module import Mapping
from unspool.targets.guest.layout import Block, is_ram

# rcu (two words), mr, host, colo_cache, offset, used_length, max_length, resized, flags (four bytes), idstr[256].
_BEFORE = struct.Struct("<3Q Q 2Q 2Q Q I")
_HOST, _USED = 3, 6
_CHUNK = 4 << 20
_LARGEST = 1 << 30
_MOST_HITS = 1000


def addresses(pid: int, mappings: Sequence[Mapping], blocks: Sequence[Block]) -> tuple[int, ...]:
    """The address of each block in the process, () when one of them is not found, is found at two places, or cannot be read."""
    found: list[int] = []
    with suppress(OSError):
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for block in blocks:
                places = set(_places(memory, mappings, block))
                if len(places) != 1 or places & set(found):
                    return ()
                found += places
        finally:
            os.close(memory)
    return tuple(found)


def _places(memory: int, mappings: Sequence[Mapping], block: Block) -> Iterator[int]:
    starts = [mapping for mapping in mappings if is_ram(mapping)]
    heap = [mapping for mapping in mappings if mapping.path == "[heap]" and mapping.end - mapping.start <= _LARGEST]
    # Machine types up to 4.0 name a block by the whole path of its object (hw/core/machine.c, hw_compat_4_0).
    for name in (block.name, f"/objects/{block.name}"):
        mark = os.fsencode(name) + b"\0"
        for address in (address for mapping in heap for address in _hits(memory, mapping, mark)):
            data = _read(memory, address - _BEFORE.size, _BEFORE.size)
            if len(data) == _BEFORE.size:
                words = _BEFORE.unpack(data)
                host = words[_HOST]
                if words[_USED] == block.size and any(one.start <= host and host + block.size <= one.end for one in starts):
                    yield host


def _hits(memory: int, mapping: Mapping, mark: bytes) -> Iterator[int]:
    """Where the mark stands in the mapping, also across the border of two reads."""
    hits = 0
    for start in range(mapping.start, mapping.end, _CHUNK):
        data = _read(memory, start, min(_CHUNK + len(mark), mapping.end - start))
        at = data.find(mark)
        while at >= 0 and hits < _MOST_HITS:
            hits += 1
            yield start + at
            at = data.find(mark, at + 1)


def _read(memory: int, address: int, size: int) -> bytes:
    try:
        return os.pread(memory, size, address)
    except (OSError, OverflowError):
        return b""
