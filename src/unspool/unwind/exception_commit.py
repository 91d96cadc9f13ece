"""Whether a frame may be in the middle of committing an exception (rule R9b): then the stack above it is not what its unwind data says."""

from __future__ import annotations

from unspool.errors import BadInput
from unspool.formats.dwarf import How, Row, rows
from unspool.model.arch import X86_64, Arch
from unspool.model.memory import Memory
from unspool.unwind.rule import Rule

WINDOW = 256
"""Bytes before the jump to the landing pad in which the two calls of the commit stand."""
NEAR = 1 << 16
"""The calls of the commit go to functions of the same object file, which are nearer than this."""


def may_be_committing(rule: Rule, ip: int, memory: Memory, arch: Arch, *, exact: bool) -> bool:
    """Whether the frame at `ip` may have begun to overwrite its caller's registers.

    A function with __builtin_eh_return (libgcc's _Unwind_RaiseException and its kin) ends in

        call uw_install_context_1     overwrites the saved registers and the return address of this very frame
        call _Unwind_DebugHook
        jump to the landing pad       the first row whose CFA is in another register

    in one straight run. A call before the first of them happens while the stack is whole.
    """
    if not rule.saves_exception_data:
        return False
    if exact or arch is not X86_64 or rule.fde is None:
        return True
    try:
        leaving = next((row.start for row in rows(rule.fde) if leaves_for_landing_pad(row, arch)), None)
    except BadInput:
        return True
    if leaving is None:
        return True
    low = max(rule.start, leaving - WINDOW)
    code = memory.read(low, leaving - low)
    calls = [] if code is None else [low + end for end in near_calls(code)]
    if len(calls) < 2:
        return True
    return calls[-2] <= ip <= leaving


def leaves_for_landing_pad(row: Row, arch: Arch) -> bool:
    """Whether the row is of the instructions that jump to the landing pad: no frame register holds the CFA, or RA is not on the stack."""
    cfa, ra = row.cfa, row.registers.get(arch.ra)
    if cfa is None or cfa.expression is not None or cfa.register not in {arch.sp, arch.fp}:
        return True
    return ra is None or ra.how is not How.OFFSET or ra.value != -arch.word


def near_calls(code: bytes) -> list[int]:
    """The offsets behind each `call rel32` to a near function and each `call *disp32(%rip)` that lie whole in the code."""
    ends = []
    for at in range(len(code)):
        if code[at] == 0xE8 and at + 5 <= len(code) and abs(int.from_bytes(code[at + 1 : at + 5], "little", signed=True)) <= NEAR:
            ends.append(at + 5)
        elif code[at : at + 2] == b"\xff\x15" and at + 6 <= len(code):
            ends.append(at + 6)
    return ends
