"""The guess by scanning: the nearest word on the stack that looks like a return address."""

from __future__ import annotations

from unspool.unwind.methods import CodeTest
from unspool.unwind.step import Position

WORDS = 512
"""How many words are looked at."""


def guess(position: Position, sites: CodeTest, words: int = WORDS) -> bool:
    """Whether one of the next words looks like a return address; then the position is moved to the presumed caller."""
    arch = position.arch
    for index in range(words):
        address = position.sp + index * arch.word
        if not position.stack[0] <= address < position.stack[1]:
            return False
        data = position.memory.read(address, arch.word)
        if data is None:
            return False
        ra = int.from_bytes(data, arch.byte_order) & ~position.pac_mask
        if sites.is_executable(ra - 1) and sites.is_call_site(ra):
            fp = position.values.get(arch.fp)
            position.sp = address + arch.word
            position.values = {arch.sp: position.sp} | ({} if fp is None else {arch.fp: fp})
            position.ip = ra
            position.exact = position.volatile = False
            return True
    return False
