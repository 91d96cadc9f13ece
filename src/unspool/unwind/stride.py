"""Many plain steps at once: the short cut for frames whose sites are known and ordinary. All others go through step.py, which decides.

    cfa = sp or fp + offset; ra = [cfa - 8]; callee-saved registers below the CFA

A stride makes the guards of `step.check_cfa`, but gives no reasons: where one fails it stops, and `step` meets the same frame and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct

from unspool.model.arch import X86_64, Arch
from unspool.model.stack import Frame
from unspool.model.verdict import Trust
from unspool.unwind.rule import Rule
from unspool.unwind.step import Position

Plan = tuple[bool, int, int, Callable[..., tuple[int, ...]], int, int, tuple[tuple[int, int], ...]]
"""by fp?; the CFA's offset; the saved words' offset from the CFA; their decoder; index of RA; of fp (-1: none); registers."""

# Stack is read in pieces: most strides need one, and a snapshot's end is found by the page.
_PIECE = 16384
_PAGE = 4096


def plan_of(rule: Rule, arch: Arch) -> Plan | None:
    """The short form of a rule, None for one that is not plain."""
    block, cfa = rule.block, rule.cfa
    if block is None or arch is not X86_64 or rule.signal or rule.restores_volatile or cfa.register not in {arch.sp, arch.fp}:
        return None
    fp = dict(block.registers).get(arch.fp, -1)
    if arch.sp in dict(block.registers):
        return None
    decoder = Struct(f"<{block.size // arch.word}Q").unpack_from
    return cfa.register == arch.fp, cfa.offset, block.low, decoder, block.ra, fp, block.registers


def stride(position: Position, plans: Mapping[int, Plan], frames: list[Frame], limit: int) -> int:
    """Move the position over frames that have plans, as long as their callers have one, too; the number of frames passed and appended."""
    plan = plans.get(position.ip)
    if plan is None or position.exact or position.volatile or not position.guarded:
        return 0
    arch, read, top = position.arch, position.memory.read, position.stack[1]
    ip, sp, fp = position.ip, position.sp, position.values.get(arch.fp)
    before = len(frames)
    saved: list[tuple[tuple[tuple[int, int], ...], tuple[int, ...]]] = []
    piece, start, end = b"", 0, 0
    while len(frames) < limit:
        by_fp, offset, low, decode, ra_at, fp_at, registers = plan
        if by_fp:
            if fp is None:
                break
            cfa = fp + offset
        else:
            cfa = sp + offset
        if cfa <= sp or cfa > top or cfa & 7:
            break
        if cfa > end or cfa + low < start:
            piece, start = read_piece(read, sp, top), sp
            end = start + len(piece)
            if cfa > end or cfa + low < start:
                break
        words = decode(piece, cfa + low - start)
        ra = words[ra_at]
        caller = plans.get(ra)
        if caller is None:
            break
        frames.append(_frame(Frame, (ip, sp, _CFI, False, cfa, False)))
        if registers:
            saved.append((registers, words))
            if fp_at >= 0:
                fp = words[fp_at]
        ip, sp, plan = ra, cfa, caller
    passed = len(frames) - before
    if passed:
        position.ip, position.sp = ip, sp
        position.values = latest(position, saved)
    return passed


_frame = tuple.__new__
_CFI = Trust.CFI


def read_piece(read: Callable[[int, int], bytes | None], address: int, top: int) -> bytes:
    """A piece of the stack from the address on, as long as can be had: at least the rest of its page, b"" when not even that is there."""
    for size in (_PIECE, _PAGE - address % _PAGE):
        data = read(address, min(size, top - address))
        if data is not None:
            return data
    return b""


def latest(position: Position, saved: list[tuple[tuple[tuple[int, int], ...], tuple[int, ...]]]) -> dict[int, int]:
    """The registers after all the steps: of each, what the last frame that had saved it gave."""
    values = dict(position.values)
    wanted = set(position.arch.callee_saved)
    for registers, words in reversed(saved):
        for number, index in registers:
            if number in wanted:
                wanted.discard(number)
                values[number] = words[index]
        if not wanted:
            break
    values[position.arch.sp] = position.sp
    return values
