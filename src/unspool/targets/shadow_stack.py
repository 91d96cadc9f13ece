"""The return addresses on a hardware shadow stack (x86-64 CET; Documentation/arch/x86/shstk.rst)."""

from __future__ import annotations

import struct

from unspool.model.memory import Memory
from unspool.model.module import AddressSpace

MAX_ENTRIES = 1 << 20
_SIGNAL_FRAME = 1 << 63
_PAGE = 4096


def shadow_stack(memory: Memory, space: AddressSpace, note: bytes) -> tuple[int, ...] | None:
    """The return addresses from the shadow stack pointer on, innermost first; None when the note (NT_X86_SHSTK) or the memory is missing.

    Words that are no return addresses are left out: the mark of a signal frame (bit 63) and the token of a stack that was switched away
    from (its own address, with bit 0).
    """
    if len(note) < 8:
        return None
    (pointer,) = struct.unpack_from("<Q", note)
    mapping = space.find(pointer)
    if mapping is None or pointer % 8:
        return None
    found: list[int] = []
    end = min(mapping.end, pointer + 8 * MAX_ENTRIES)
    while pointer < end:
        size = min(_PAGE - pointer % _PAGE, end - pointer)
        data = memory.read(pointer, size)
        if data is None:
            return None
        for index, (word,) in enumerate(struct.iter_unpack("<Q", data)):
            token = (pointer + 8 * index + 8) | 1
            if word and not word & _SIGNAL_FRAME and word != token:
                found.append(word)
        pointer += size
    return tuple(found)
