"""Rules out of the kernel's ORC tables (arch/x86/kernel/unwind_orc.c): where the caller's stack pointer, return address and rbp are.

ORC knows rsp, rbp and the return address; at interrupts and exceptions the kernel has saved all registers, and then so does the rule.
"""

from __future__ import annotations

from functools import cache

from unspool.formats.dwarf import CfaRule, How, RegisterRule
from unspool.formats.orc import OrcEntry, OrcRegister, OrcType
from unspool.model.arch import X86_64
from unspool.model.verdict import Stop, Trust
from unspool.unwind.rule import Miss, Rule, block_of

PT_REGS_SIZE = 168
"""Bytes of x86-64's struct pt_regs (arch/x86/include/asm/ptrace.h)."""
PT_REGS_IP = 128
"""Where the words that the processor itself has pushed lie in it."""
IRET_FRAME_SIZE = 40
"""Bytes of these: rip, cs, rflags, rsp, ss."""
_IRET_SP = 24
# Order of struct pt_regs: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di, as DWARF numbers.
PT_REGS_ORDER = (15, 14, 13, 12, 6, 3, 11, 10, 9, 8, 0, 2, 1, 4, 5)
"""The general registers at the start of struct pt_regs, eight bytes each, by DWARF number."""

_RSP, _RBP = X86_64.sp, X86_64.fp
_DWARF = {
    OrcRegister.SP: _RSP,
    OrcRegister.BP: _RBP,
    OrcRegister.R10: 10,
    OrcRegister.R13: 13,
    OrcRegister.DI: 5,
    OrcRegister.DX: 1,
    OrcRegister.AX: 0,
}
_BREG0, _DEREF, _CONSTS, _PLUS = 0x70, 0x06, 0x11, 0x22
LOST = tuple((number, RegisterRule(How.UNDEFINED)) for number in range(16) if number not in {_RSP, _RBP})
"""ORC does not follow the other registers: after a call nothing is known of them."""

END = Rule(0, 0, CfaRule(_RSP, 0), RegisterRule(How.UNDEFINED), LOST, trust=Trust.ORC)
"""The rule of code where stacks end: there is no return address."""


@cache
def rule_of(entry: OrcEntry) -> Rule | Miss:
    """What an ORC entry says as a rule; NO_UNWIND_INFO where it says that nothing is known, UNSUPPORTED_RULE for what no kernel writes.

    A call: `cfa = base + sp_offset; ra = *(cfa - 8); rbp = *(cfa + bp_offset)`. Saved registers: they all lie at the cfa.
    An entry that says where a stack ends has the RA rule `undefined`.
    """
    if entry.type is OrcType.END_OF_STACK:
        return END
    if entry.type is OrcType.UNDEFINED:
        return Miss(Stop.NO_UNWIND_INFO, "the kernel's ORC table says that nothing is known here")
    cfa = _cfa(entry)
    if cfa is None:
        return Miss(Stop.UNSUPPORTED_RULE, f"an ORC entry is relative to {entry.sp_reg.name}")
    if entry.type is OrcType.CALL:
        return _call(entry, cfa)
    return _interrupted(entry, cfa)


def _call(entry: OrcEntry, cfa: CfaRule) -> Rule | Miss:
    rbp = _rbp(entry)
    if rbp is None:
        return Miss(Stop.UNSUPPORTED_RULE, f"an ORC entry says that rbp is relative to {entry.bp_reg.name}")
    # Only a call onto an interrupt stack goes through a pointer, and a function that realigns its stack through rbp.
    switches = cfa.expression is not None
    return Rule(0, 0, cfa, RegisterRule(How.OFFSET, -8), (*LOST, (_RBP, rbp)), trust=Trust.ORC, switches_stack=switches)


def _interrupted(entry: OrcEntry, cfa: CfaRule) -> Rule:
    """The rule of code that runs on top of saved registers: all of struct pt_regs, or the five words of the processor."""
    partial = entry.type is OrcType.REGS_PARTIAL
    ip = 0 if partial else PT_REGS_IP
    # Where only the processor's words are saved, the other registers still hold the interrupted code's values. So do those that were
    # given back already, on the way out: they lie below the stack pointer then.
    popped = -entry.sp_offset if entry.sp_reg is OrcRegister.SP else 0
    general = tuple(
        (number, RegisterRule(How.SAME_VALUE) if partial or 8 * place < popped else RegisterRule(How.OFFSET, 8 * place))
        for place, number in enumerate(PT_REGS_ORDER)
    )
    registers = (*general, (_RSP, RegisterRule(How.OFFSET, ip + _IRET_SP)))
    ra = RegisterRule(How.OFFSET, ip)
    block = block_of(cfa, ra, registers, X86_64)
    return Rule(0, 0, cfa, ra, registers, trust=Trust.ORC, signal=entry.signal, switches_stack=True, restores_volatile=True, block=block)


def _cfa(entry: OrcEntry) -> CfaRule | None:
    """`base + offset`; through a pointer: `*rsp + offset` and `*(rbp + offset)`."""
    register = _DWARF.get(entry.sp_reg)
    if register is not None:
        return CfaRule(register, entry.sp_offset)
    if entry.sp_reg is OrcRegister.SP_INDIRECT:
        return CfaRule(expression=bytes([_BREG0 + _RSP, 0, _DEREF, _CONSTS, *_sleb(entry.sp_offset), _PLUS]))
    if entry.sp_reg is OrcRegister.BP_INDIRECT:
        return CfaRule(expression=bytes([_BREG0 + _RBP, *_sleb(entry.sp_offset), _DEREF]))
    return None


def _rbp(entry: OrcEntry) -> RegisterRule | None:
    if entry.bp_reg is OrcRegister.UNDEFINED:
        return RegisterRule(How.SAME_VALUE)
    if entry.bp_reg is OrcRegister.PREV_SP:
        return RegisterRule(How.OFFSET, entry.bp_offset)
    if entry.bp_reg is OrcRegister.BP:
        return RegisterRule(How.EXPRESSION, 0, bytes([_BREG0 + _RBP, *_sleb(entry.bp_offset)]))
    return None


def _sleb(value: int) -> bytes:
    """The number as signed LEB128 (DWARF 5, section 7.6)."""
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        if (value == 0 and not byte & 0x40) or (value == -1 and byte & 0x40):
            return bytes([*out, byte])
        out.append(byte | 0x80)
