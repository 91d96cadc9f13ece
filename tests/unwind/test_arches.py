"""AArch64 and s390x: link registers, signed return addresses, register save areas, and registers kept in registers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from formats.dwarf.cfi_builder import NEGATE_RA_STATE, advance, def_cfa, def_cfa_offset, in_register, offset, undefined
from unwind.process_builder import Program, sp_of

from unspool.model.arch import AARCH64, S390X
from unspool.model.memory import Bytes
from unspool.model.module import Mapping
from unspool.model.stack import Stack
from unspool.model.verdict import Stop
from unspool.unwind.api import unwind_user

BL = b"\x01\0\0\x94"
NOP4 = b"\x1f\x20\x03\xd5"
FP, LR, SP = 29, 30, 31
PAC = 0x5A << 48


def stops(stack: Stack) -> tuple[Stop, Stop, int | None]:
    return stack.stop, stack.judgement.reason, stack.judgement.first_bad_frame


def aarch64() -> tuple[Program, int, int, int]:
    """_start calls main, main calls leaf; leaf has not saved its link register, main has (x29 and x30 in 32 bytes)."""
    program = Program(AARCH64, initial=(def_cfa(SP, 0),))
    start = program.function(NOP4 + BL + NOP4, undefined(LR))
    main = program.function(NOP4 + BL + NOP4, advance(4), def_cfa_offset(32), offset(FP, 4), offset(LR, 3))
    leaf = program.function(NOP4 * 4)
    return program, start, main, leaf


def test_a_leaf_function_returns_to_its_link_register() -> None:
    program, start, main, leaf = aarch64()
    stack = unwind_user(program.thread(leaf + 4, [0, start + 8, 0, 0], {LR: main + 8, FP: 0}))
    assert [leaf + 4, main + 8, start + 8] == [frame.ip for frame in stack.frames]
    assert (Stop.END_PROCESS_ENTRY, Stop.NONE, None) == stops(stack)


def test_a_link_register_is_believed_in_the_innermost_frame_only() -> None:
    """Main's row without a place for x30: its own call has overwritten the register, and the caller would be main again."""
    program = Program(AARCH64, initial=(def_cfa(SP, 0),))
    start = program.function(NOP4 + BL + NOP4, undefined(LR))
    main = program.function(NOP4 + BL + NOP4, advance(4), def_cfa_offset(32))
    leaf = program.function(NOP4 * 4)
    stack = unwind_user(program.thread(leaf, [0, start + 8, 0, 0], {LR: main + 8}))
    assert (Stop.LR_AMBIGUOUS, Stop.LR_AMBIGUOUS, 1) == stops(stack)
    assert [leaf, main + 8] == [frame.ip for frame in stack.frames]


def test_the_authentication_code_is_taken_off() -> None:
    program = Program(AARCH64, initial=(def_cfa(SP, 0),))
    start = program.function(NOP4 + BL + NOP4, undefined(LR))
    main = program.function(NOP4 + BL + NOP4, advance(4), NEGATE_RA_STATE, def_cfa_offset(32), offset(FP, 4), offset(LR, 3))
    leaf = program.function(NOP4 * 4)
    thread = program.thread(leaf, [0, start + 8 | PAC, 0, 0], {LR: main + 8})
    stack = unwind_user(replace(thread, pac_mask=0x7F << 48))
    assert [leaf, main + 8, start + 8] == [frame.ip for frame in stack.frames]
    assert Stop.END_PROCESS_ENTRY is stack.stop
    # Without the mask nobody knows which bits are address and which are signature.
    assert (Stop.PAC_FAIL, Stop.PAC_FAIL, 1) == stops(unwind_user(thread))


def test_the_sp_of_two_frames_may_be_the_same_in_a_leaf_only() -> None:
    program = Program(AARCH64, initial=(def_cfa(SP, 0),))
    start = program.function(NOP4 + BL + NOP4, undefined(LR))
    main = program.function(NOP4 + BL + NOP4, offset(LR, 3))
    leaf = program.function(NOP4 * 4)
    stack = unwind_user(program.thread(leaf, [0, start + 8, 0, 0], {LR: main + 8}))
    assert (Stop.CFA_NOT_ABOVE_SP, 1) == (stack.stop, stack.judgement.first_bad_frame)


BRASL = bytes.fromhex("c0e500000000")
NOPR = bytes.fromhex("0707")
R11, R14, R15, F0, F8 = 11, 14, 15, 16, 24


def s390x(*rules: bytes) -> tuple[Program, int, int, int]:
    """_start calls main, main calls leaf; main has a frame of 160 bytes and its registers in its caller's save area."""
    program = Program(S390X, initial=(def_cfa(R15, 160),))
    start = program.function(NOPR + BRASL + NOPR, undefined(R14))
    saves = (advance(2), offset(R14, 6), offset(R15, 5), def_cfa_offset(320))
    main = program.function(NOPR + BRASL + NOPR, *(rules or saves))
    leaf = program.function(NOPR * 4)
    return program, start, main, leaf


def area(program: Program, leaf: int, start: int) -> list[int]:
    """40 words from leaf's sp on: main's own frame, then the save area of _start with r14 and r15 of main."""
    words = [0] * 40
    caller_sp = sp_of(program.thread(leaf, words), 20)
    # The CFA is caller_sp + 160; r14 at CFA - 48, r15 at CFA - 40.
    words[20 + 14], words[20 + 15] = start + 8, caller_sp
    return words


def test_s390x_finds_its_callers_in_the_save_area() -> None:
    program, start, main, leaf = s390x()
    words = area(program, leaf, start)
    thread = program.thread(leaf, words, {R14: main + 8})
    stack = unwind_user(thread)
    assert [leaf, main + 8, start + 8] == [frame.ip for frame in stack.frames]
    assert [sp_of(thread), sp_of(thread), sp_of(thread, 20)] == [frame.sp for frame in stack.frames]
    assert (Stop.END_PROCESS_ENTRY, Stop.NONE, None) == stops(stack)


def test_a_return_address_in_a_floating_point_register_needs_that_register() -> None:
    """GCC keeps r14 in f0 where a function calls nobody: without the floating-point registers the walk ends with a reason."""
    program, start, main, _ = s390x()
    leaf = program.function(NOPR * 4, in_register(R14, F0))
    words = area(program, leaf, start)
    known = unwind_user(program.thread(leaf, words, {R14: 0x1234, F0: main + 8}))
    assert [leaf, main + 8, start + 8] == [frame.ip for frame in known.frames]
    assert (Stop.END_PROCESS_ENTRY, Stop.NONE, None) == stops(known)
    assert (Stop.REG_UNAVAILABLE, Stop.REG_UNAVAILABLE, 0) == stops(unwind_user(program.thread(leaf, words, {R14: 0x1234})))


def test_a_saved_stack_pointer_must_lead_outwards() -> None:
    program, start, main, leaf = s390x()
    words = area(program, leaf, start)
    words[20 + 15] -= 0x1000
    assert (Stop.CFA_NOT_ABOVE_SP, 1) == stops(unwind_user(program.thread(leaf, words, {R14: main + 8})))[::2]


@pytest.mark.parametrize("register", [R11, F8])
def test_callee_saved_registers_reach_the_caller(register: int) -> None:
    program, start, main, leaf = s390x(
        advance(2), offset(R14, 6), offset(R15, 5), def_cfa(register, 320)
    )  # fmt: skip
    words = area(program, leaf, start)
    thread = program.thread(leaf, words, {R14: main + 8})
    known = replace(thread, registers=replace(thread.registers, values={**thread.registers.values, register: sp_of(thread)}))
    assert Stop.END_PROCESS_ENTRY is unwind_user(known).stop
    assert Stop.REG_UNAVAILABLE is unwind_user(thread).stop


VDSO = 0x600000


def with_vdso(program: Program, code: bytes) -> None:
    """Map a vDSO without unwind data that begins with a no-operation and this code."""
    program.mappings.append(Mapping(VDSO, VDSO + 0x1000, readable=True, writable=False, executable=True, offset=0, path="[vdso]"))
    program.memory.append(Bytes(VDSO, b"\0" * 0x100 + code + bytes(0x1000 - 0x100 - len(code))))


def test_an_aarch64_signal_frame_is_read_by_the_kernels_layout() -> None:
    """Mov x8,#139; svc #0 in the vDSO, which has no CFI since Linux 5.8."""
    program, start, _, leaf = aarch64()
    with_vdso(program, bytes.fromhex("681180d2 010000d4"))
    interrupted = program.function(NOP4 * 4, def_cfa_offset(0))
    words = [0] * 120
    probe = program.thread(leaf, words)
    # siginfo 16 words, then 22 of the ucontext and the fault address; x0-x30, sp, pc.
    words[39 + 30], words[39 + 31], words[39 + 32] = start + 8, sp_of(probe, 120), interrupted
    words[39 + 29] = 0x29
    stack = unwind_user(program.thread(leaf, words, {LR: VDSO + 0x100}))
    assert [leaf, VDSO + 0x100, interrupted, start + 8] == [frame.ip for frame in stack.frames]
    assert [True, True, True, False] == [frame.exact for frame in stack.frames]
    assert [False, True, False, False] == [frame.signal for frame in stack.frames]
    assert (Stop.END_PROCESS_ENTRY, Stop.NONE, None) == stops(stack)


def test_an_s390x_signal_frame_is_read_by_the_kernels_layout() -> None:
    """Svc 173 in the vDSO."""
    program, start, _, leaf = s390x()
    with_vdso(program, bytes.fromhex("0aad"))
    words = [0] * 120
    probe = program.thread(leaf, words)
    # 42 words before the PSW; mask, address, then r0-r15.
    words[43] = leaf
    words[44 + 14], words[44 + 15] = start + 8, sp_of(probe, 120)
    stack = unwind_user(program.thread(leaf, words, {R14: VDSO + 0x100}))
    assert [leaf, VDSO + 0x100, leaf, start + 8] == [frame.ip for frame in stack.frames]
    assert (Stop.END_PROCESS_ENTRY, Stop.NONE, None) == stops(stack)


def test_the_same_code_elsewhere_is_not_taken_for_the_kernels() -> None:
    program, _, _, leaf = aarch64()
    trampoline = program.function(bytes.fromhex("681180d2 010000d4"), frames=False)
    program.entry = 0
    stack = unwind_user(program.thread(leaf, [0] * 120, {LR: trampoline}))
    assert (Stop.SIGFRAME_UNKNOWN, Stop.SIGFRAME_UNKNOWN, 1) == stops(stack)
