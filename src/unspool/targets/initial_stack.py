"""Where a program's stack began, found from the auxiliary vector that lies above it (System V psABI AMD64, section 3.4.1)."""

from __future__ import annotations

import struct

from unspool.formats.auxv import AuxType, parse_auxv
from unspool.model.arch import Arch
from unspool.model.memory import Memory

# The kernel allows 6 MB of arguments and environment (fs/exec.c), and 8 bytes of pointer for each string.
_SEARCHED = 16 << 20
_STEPS = (1 << 16, 1 << 20, _SEARCHED)


def initial_sp(memory: Memory, auxv: bytes, arch: Arch) -> int | None:
    """The stack pointer at the program's first instruction, which points at argc: what mm->start_stack is. None when it cannot be found.

    From there upwards: argc, that many pointers, 0, the environment's pointers, 0, the auxiliary vector; what AT_RANDOM points at.
    """
    values = parse_auxv(auxv, word=arch.word, byte_order=arch.byte_order)
    above = values.get(AuxType.RANDOM) or values.get(AuxType.EXECFN)
    # Two entries tell the vector from an accidental copy of one.
    mark = auxv[: 4 * arch.word]
    if not above or len(mark) < 4 * arch.word:
        return None
    for size in _STEPS:
        data = _readable(memory, above, size)
        place = data.rfind(mark)
        if place >= 0:
            words = struct.unpack(f"{'<' if arch.byte_order == 'little' else '>'}{place // 8}Q", data[place % 8 : place])
            found = _argc(words)
            return None if found is None else above - len(data) + place - arch.word * found
    return None


def _readable(memory: Memory, end: int, size: int) -> bytes:
    """The longest run of at most `size` bytes below `end` that is a power of two of pages, "" when there is none."""
    while size >= 1 << 12:
        data = memory.read(end - size, size)
        if data is not None:
            return data
        size //= 2
    return b""


def _argc(words: tuple[int, ...]) -> int | None:
    """How many words before the end of `words` argc is; None when what lies there is no such stack."""
    environment = len(words) - 1
    if environment < 0 or words[environment] != 0:
        return None
    arguments = environment - 1
    while arguments >= 0 and words[arguments] != 0:
        arguments -= 1
    for count, index in enumerate(range(arguments - 1, -1, -1)):
        if words[index] == count:
            return len(words) - index
    return None
