"""The guess by frame pointer: `fp = [fp]; ra = [fp + 8]; sp = fp + 16`, right only where the code keeps frame pointers."""

from __future__ import annotations

from unspool.model.arch import S390X
from unspool.unwind.methods import CodeTest
from unspool.unwind.step import Position


def guess(position: Position, sites: CodeTest) -> bool:
    """Whether the frame pointer looks like one; then the position is moved to the presumed caller."""
    arch = position.arch
    fp = position.values.get(arch.fp)
    if arch is S390X or fp is None or fp % arch.word or fp < position.sp:
        return False
    start, end = position.stack
    if not (start <= fp and fp + 2 * arch.word <= end):
        return False
    data = position.memory.read(fp, 2 * arch.word)
    if data is None:
        return False
    caller_fp, ra = (int.from_bytes(data[at : at + arch.word], arch.byte_order) for at in (0, arch.word))
    ra &= ~position.pac_mask
    if not (sites.is_executable(ra - 1) and sites.is_call_site(ra)):
        return False
    position.sp = fp + 2 * arch.word
    position.values = {arch.sp: position.sp, arch.fp: caller_fp}
    position.ip = ra
    position.exact = position.volatile = False
    return True
