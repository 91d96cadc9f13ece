"""Whole walks over processes made of bytes: frames, ends, stops and verdicts, one rule at a time (docs/verdicts.md)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from formats.dwarf.cfi_builder import (
    DEREF,
    RA,
    RBP,
    RBX,
    RSP,
    advance,
    breg,
    def_cfa,
    def_cfa_expression,
    def_cfa_offset,
    def_cfa_register,
    expression,
    in_register,
    offset,
    skip,
    undefined,
)
from unwind.process_builder import ANON, BASE, CALL, HDR, INITIAL_SP, NOP, RET, STACK, STACK_END, TEXT, UPROBES, Program, sp_of

from unspool.model.memory import Layered
from unspool.model.registers import Registers
from unspool.model.stack import Stack
from unspool.model.thread import EntryPoints, Thread
from unspool.model.verdict import Stop, Trust, Verdict
from unspool.unwind.api import Unwinder, unwind_user
from unspool.unwind.policy import Check, Method, Policy

LEAF_SIZE = 16
RDI = 5


class Chain:
    """_start -> main -> leaf, each with 16 bytes of locals below its return address; the thread is in leaf, frame set up."""

    def __init__(self, **options: object) -> None:
        """Write the functions."""
        self.program = Program(**options)  # type: ignore[arg-type]
        self.start = self.program.function(CALL + NOP * 3, undefined(RA))
        self.main = self.program.function(NOP * 4 + CALL + NOP * 3 + RET, advance(4), def_cfa_offset(24))
        self.leaf = self.program.function(NOP * 8 + RET, advance(4), def_cfa_offset(24))

    @property
    def words(self) -> list[int]:
        """The stack from leaf's sp on: locals and return address of leaf, then of main."""
        return [11, 12, self.main + 9, 21, 22, self.start + 5]

    def thread(self, **options: object) -> Thread:
        """The thread in leaf."""
        return self.program.thread(self.leaf + 4, self.words, **options)  # type: ignore[arg-type]


def ips(stack: Stack) -> list[int]:
    return [frame.ip for frame in stack.frames]


def verdict(stack: Stack) -> tuple[Stop, Stop, int | None]:
    """The stop, the verdict's reason, and its first bad frame."""
    return stack.stop, stack.judgement.reason, stack.judgement.first_bad_frame


def reliable(stop: Stop) -> tuple[Stop, Stop, None]:
    return stop, Stop.NONE, None


def test_a_whole_stack_ends_at_the_entry_point_and_is_reliable() -> None:
    chain = Chain()
    stack = unwind_user(chain.thread())
    assert [chain.leaf + 4, chain.main + 9, chain.start + 5] == ips(stack)
    assert [True, False, False] == [frame.exact for frame in stack.frames]
    assert [Trust.REGISTERS, Trust.CFI, Trust.CFI] == [frame.trust for frame in stack.frames]
    sp = sp_of(chain.thread())
    assert [sp, sp + 24, sp + 48] == [frame.sp for frame in stack.frames]
    assert [sp + 24, sp + 48, sp + 56] == [frame.cfa for frame in stack.frames]
    assert reliable(Stop.END_PROCESS_ENTRY) == verdict(stack)
    assert Verdict.RELIABLE is stack.judgement.verdict


def test_an_unwinder_that_knows_the_code_finds_the_same() -> None:
    chain = Chain()
    unwinder = Unwinder()
    thread = chain.thread()
    assert unwinder.unwind(thread) == unwinder.unwind(thread) == unwinder.unwind(thread)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_limit_of_frames_cuts_the_stack_there(most: int) -> None:
    unwinder = Unwinder()
    thread = Chain().thread()
    whole = unwinder.unwind(thread)
    for _ in range(2):
        stack = unwinder.unwind(thread, most)
        assert whole.frames[:most] == stack.frames
        assert (Stop.END_PROCESS_ENTRY if most == 3 else Stop.FRAME_LIMIT) is stack.stop
        assert (None if most == 3 else most - 1) == stack.judgement.first_bad_frame


def test_less_than_one_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_entries is 0"):
        unwind_user(Chain().thread(), max_entries=0)


def test_a_kernel_thread_has_no_frames() -> None:
    stack = unwind_user(Chain().thread(kernel_thread=True))
    assert ((), Stop.NO_USER_STACK, Verdict.NONE) == (stack.frames, stack.stop, stack.judgement.verdict)


class TestEnds:
    """R6: only ends by address are ends."""

    def test_the_interpreters_entry_point_is_an_end(self) -> None:
        """As good as the program's own."""
        chain = Chain()
        thread = chain.thread(ends=EntryPoints(interpreter=chain.start))
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(unwind_user(thread))

    def test_a_frame_without_caller_elsewhere_is_not(self) -> None:
        """An undefined return address alone proves nothing."""
        stack = unwind_user(Chain().thread(ends=EntryPoints(process=0x1234)))
        assert (Stop.END_UNEXPECTED, Stop.END_UNEXPECTED, 2) == verdict(stack)

    def test_an_entry_point_with_a_caller_ends_at_the_initial_stack_pointer(self) -> None:
        """A _start whose CFI does not say that it is outermost."""
        program = Program()
        start = program.function(CALL + NOP * 3)
        leaf = program.function(NOP + RET)
        # The CFA of a row that assumes a return address lies one word above the initial sp.
        thread = program.thread(leaf, [start + 5])
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(unwind_user(thread))
        assert Stop.END_PROCESS_ENTRY is not unwind_user(replace(thread, ends=EntryPoints(process=start, initial_sp=STACK))).stop

    def test_an_entry_point_without_unwind_data_is_an_end_where_the_stack_begins(self) -> None:
        """ld.so's _start has no FDE."""
        program = Program()
        start = program.function(CALL + NOP * 3, frames=False)
        leaf = program.function(NOP + RET)
        thread = program.thread(leaf, [start + 5])
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(unwind_user(thread))
        deeper = program.thread(leaf, [start + 5, *([0] * 20)])
        assert (Stop.NO_UNWIND_INFO, Stop.NO_UNWIND_INFO, 1) == verdict(unwind_user(deeper))

    def test_a_function_that_a_bare_entry_point_called_is_not_the_entry_point(self) -> None:
        """As with musl: _start_c follows _start, and neither has unwind data: the return address on the stack tells them apart."""
        program = Program()
        start = program.function(CALL + NOP * 3, frames=False)
        called = program.function(NOP * 8, frames=False)
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(unwind_user(program.thread(start + 5, [0x1234])))
        assert Stop.NO_UNWIND_INFO is unwind_user(program.thread(called, [start + 5])).stop

    def test_a_threads_first_frame_is_an_end_below_its_thread_pointer(self) -> None:
        """clone3: RA undefined right behind the system call, and the thread's descriptor lies right above."""
        chain = Chain(text=bytearray(NOP * 14 + b"\x0f\x05"))
        chain.program.entry = 0
        thread = chain.thread()

        def at(thread_pointer: int | None) -> Stop:
            registers = replace(thread.registers, thread_pointer=thread_pointer)
            return unwind_user(replace(thread, registers=registers, ends=EntryPoints())).stop

        assert Stop.END_THREAD_ENTRY is at(INITIAL_SP + 0x80)
        assert Stop.END_UNEXPECTED is at(None)
        assert Stop.END_UNEXPECTED is at(INITIAL_SP - 0x100)
        assert Stop.END_UNEXPECTED is at(BASE)

    def test_a_context_made_by_makecontext_is_a_coroutine(self) -> None:
        """The return address is __start_context's first byte, and no call stands before it."""
        program = Program()
        base = program.function(bytes.fromhex("4889dc488b3c24") + NOP * 19)
        body = program.function(NOP + RET)
        stack = unwind_user(program.thread(body, [base, 0]))
        assert reliable(Stop.END_COROUTINE) == verdict(stack)
        assert "coroutine" == stack.judgement.scope
        assert [(body, True), (base, True)] == [(frame.ip, frame.exact) for frame in stack.frames]

    @pytest.mark.parametrize("lead", [b"", bytes.fromhex("f30f1efa")])
    def test_the_exit_of_a_boost_context_is_a_coroutines_base(self, lead: bytes) -> None:
        """No unwind data there at all."""
        program = Program()
        program.function(NOP, undefined(RA))
        base = program.function(lead + bytes.fromhex("4831ffe800000000f4"), frames=False)
        body = program.function(NOP + RET)
        stack = unwind_user(program.thread(body, [base, 0]))
        assert reliable(Stop.END_COROUTINE) == verdict(stack)

    def test_a_return_address_of_zero_is_no_end(self) -> None:
        """What other unwinders take for the end of the stack."""
        chain = Chain()
        stack = unwind_user(chain.program.thread(chain.leaf + 4, [11, 12, chain.main + 9, 21, 22, 0]))
        assert (Stop.RA_NOT_EXECUTABLE, Stop.RA_NOT_EXECUTABLE, 1) == verdict(stack)
        assert 2 == len(stack.frames)


class TestIdentity:
    """R2: where code may be."""

    @pytest.mark.parametrize(
        ("pc", "stop"),
        [
            (0x10, Stop.NO_MAPPING),
            (STACK + 8, Stop.NOT_EXECUTABLE),
            (ANON + 16, Stop.ANON_CODE),
            (UPROBES + 16, Stop.RA_REWRITTEN),
            (TEXT + 0x2000, Stop.NO_UNWIND_INFO),
        ],
    )
    def test_the_first_frame_says_what_is_wrong_with_its_place(self, pc: int, stop: Stop) -> None:
        """And is still reported."""
        chain = Chain()
        stack = unwind_user(chain.program.thread(pc, chain.words))
        assert ([pc], (stop, stop, 0)) == (ips(stack), verdict(stack))

    def test_a_return_address_into_generated_code_is_a_frame_that_ends_the_stack(self) -> None:
        """ANON_CODE: the frame is there, its caller is not known."""
        chain = Chain()
        stack = unwind_user(chain.program.thread(chain.leaf + 4, [11, 12, ANON + 5, 0]))
        assert ([chain.leaf + 4, ANON + 5], (Stop.ANON_CODE, Stop.ANON_CODE, 1)) == (ips(stack), verdict(stack))

    def test_a_file_without_search_table_segment_has_no_unwind_data(self) -> None:
        """Section headers are not mapped."""
        assert Stop.NO_UNWIND_INFO is unwind_user(Chain(header=False).thread()).stop

    def test_a_trampoline_without_unwind_data_is_named(self) -> None:
        """Musl's __restore_rt."""
        chain = Chain()
        chain.program.function(NOP * 64)
        trampoline = chain.program.function(bytes.fromhex("48c7c00f0000000f05"), frames=False)
        stack = unwind_user(chain.program.thread(chain.leaf + 4, [11, 12, trampoline, 0]))
        assert (Stop.SIGFRAME_UNKNOWN, Stop.SIGFRAME_UNKNOWN, 1) == verdict(stack)


class TestCallSites:
    """R4: a return address follows a call."""

    def test_a_return_address_behind_no_call_makes_the_stack_unreliable(self) -> None:
        """The walk goes on: the stack is whole, but not to be believed."""
        chain = Chain()
        words = chain.words
        words[2] = chain.main + 11
        stack = unwind_user(chain.program.thread(chain.leaf + 4, words))
        assert (Stop.END_PROCESS_ENTRY, Stop.NOT_A_CALL_SITE, 1) == verdict(stack)
        assert 3 == len(stack.frames)

    def test_the_rule_can_be_switched_off_to_see_what_it_prevents(self) -> None:
        """As every rule can."""
        chain = Chain()
        words = chain.words
        words[2] = chain.main + 11
        thread = chain.program.thread(chain.leaf + 4, words)
        assert Verdict.RELIABLE is Unwinder(Policy().without(Check.R4)).unwind(thread).judgement.verdict

    def test_a_call_that_is_a_functions_last_instruction_is_looked_up_in_that_function(self) -> None:
        """R3: one byte before the return address; abort() never returns."""
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        caller = program.function(NOP * 11 + CALL, def_cfa_offset(16))
        program.function(NOP * 16, def_cfa_offset(64))
        leaf = program.function(NOP + RET)
        stack = unwind_user(program.thread(leaf, [caller + 16, 1, start + 5]))
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(stack)


class TestGuards:
    """R5 and R7, and memory that is not there."""

    def step_of(self, *cfi: bytes, words: list[int] | None = None, registers: dict[int, int] | None = None) -> Stack:
        """The walk from a function with these instructions."""
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        leaf = program.function(NOP * 4, *cfi)
        return unwind_user(program.thread(leaf, words or [start + 5] * 4, registers))

    def test_a_return_address_off_the_stack_leaves_sp_where_the_callers_is(self) -> None:
        """What glibc's vfork does: `pop %rdi`, CFA = rsp, RA in rdi. The stack is whole, and not to be relied on."""
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        leaf = program.function(NOP * 4, def_cfa(RSP, 0), in_register(RA, RDI))
        stack = unwind_user(program.thread(leaf, [0] * 4, {RDI: start + 5}))
        assert (Stop.END_PROCESS_ENTRY, 2) == (stack.stop, len(stack.frames))
        assert stack.frames[0].sp == stack.frames[1].sp
        assert (Stop.RA_RULE_NONSTANDARD, 0) == (stack.judgement.reason, stack.judgement.first_bad_frame)

    def test_only_the_frame_that_runs_can_have_it_there(self) -> None:
        """A call would have pushed something."""
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        middle = program.function(CALL + NOP * 3, def_cfa(RSP, 0), in_register(RA, RBX))
        leaf = program.function(NOP * 4, def_cfa(RSP, 8))
        stack = unwind_user(program.thread(leaf, [middle + 5] * 4, {RBX: start + 5}))
        assert (Stop.CFA_NOT_ABOVE_SP, 2) == (stack.stop, len(stack.frames))

    @pytest.mark.parametrize(
        ("cfi", "stop"),
        [
            ((def_cfa(RSP, 0),), Stop.CFA_NOT_ABOVE_SP),
            ((def_cfa(RSP, (1 << 64) - 64),), Stop.CFA_NOT_ABOVE_SP),
            ((def_cfa(RSP, 12),), Stop.CFA_UNALIGNED),
            ((def_cfa(RSP, 0x8000),), Stop.OUTSIDE_STACK),
            ((def_cfa(13, 8),), Stop.REG_UNAVAILABLE),
            ((in_register(RA, 13),), Stop.REG_UNAVAILABLE),
            ((offset(RBX, 0x1000),), Stop.MEM_FAULT),
            ((def_cfa_expression(skip(-3)),), Stop.EXPR_LIMIT),
            ((def_cfa_expression(b"\x03" + bytes(8) + DEREF),), Stop.MEM_FAULT),
            ((def_cfa_expression(b"\x9c"),), Stop.UNSUPPORTED_RULE),
            ((def_cfa_expression(b"\x22"),), Stop.BAD_CFI),
            ((expression(RA, skip(-3)),), Stop.EXPR_LIMIT),
            ((b"\x3e",), Stop.BAD_CFI),
            ((b"\x0a" * 100,), Stop.PARSE_BUDGET),
            ((b"\xd0",), Stop.END_PROCESS_ENTRY),
        ],
    )
    def test_a_rule_that_does_not_fit_ends_the_walk_with_its_reason(self, cfi: tuple[bytes, ...], stop: Stop) -> None:
        """The frame stays; its caller is not invented."""
        stack = self.step_of(*cfi)
        assert stop is stack.stop
        if not stop.is_end:
            assert (1, 0) == (len(stack.frames), stack.judgement.first_bad_frame)

    def test_a_register_that_no_frame_kept_is_not_known_in_the_caller(self) -> None:
        """r10 belongs to nobody after a call."""
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        caller = program.function(CALL + NOP * 3, def_cfa(10, 0))
        leaf = program.function(NOP * 4)
        thread = program.thread(leaf, [caller + 5, 0, start + 5], {10: INITIAL_SP})
        stack = unwind_user(thread)
        assert (Stop.REG_UNAVAILABLE, Stop.REG_UNAVAILABLE, 1) == verdict(stack)

    def test_a_callee_saved_register_is_restored_from_where_it_was_saved(self) -> None:
        """Main's frame is found through the rbp that leaf had pushed."""
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        main = program.function(NOP * 4 + CALL + NOP * 3, advance(4), def_cfa_offset(16), offset(RBP, 2), def_cfa_register(RBP))
        leaf = program.function(NOP * 4, def_cfa_offset(16), offset(RBP, 2))
        probe = program.thread(leaf, [0] * 6)
        frame = sp_of(probe, 4)
        stack = unwind_user(program.thread(leaf, [frame, main + 9, 1, 2, 0xBEEF, start + 5]))
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(stack)
        assert [leaf, main + 9, start + 5] == ips(stack)

    def test_the_stacks_mapping_must_be_writable(self) -> None:
        """A pivoted stack pointer."""
        chain = Chain()
        thread = chain.thread()
        pivoted = Registers(thread.registers.arch, chain.leaf + 4, {RSP: HDR})
        assert Stop.OUTSIDE_STACK is unwind_user(replace(thread, registers=pivoted)).stop

    def test_a_stack_pointer_that_was_not_captured_is_a_reason(self) -> None:
        """Nothing can be done without it."""
        chain = Chain()
        thread = chain.thread()
        assert Stop.REG_UNAVAILABLE is unwind_user(replace(thread, registers=Registers(thread.registers.arch, chain.leaf + 4, {}))).stop


class TestSignals:
    """Signal frames: the interrupted pc is exact, the stack may change."""

    def program(self) -> tuple[Program, int, int, int, int]:
        """_start, a function that is interrupted in its first instruction, a handler, and the trampoline as glibc has it."""
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        interrupted = program.function(NOP * 8)
        handler = program.function(NOP + RET)
        # As glibc's: the FDE begins one byte before the code; CFA = [rsp + 16], RA = [rsp], rbp = [rsp + 8] of a small signal frame.
        cie = program.section.cie(augmentation="zRS")
        rules = (def_cfa_expression(breg(RSP, 16) + DEREF), expression(RA, breg(RSP, 0)), expression(RBP, breg(RSP, 8)))
        program.text += NOP
        trampoline = program.function(NOP * 9, *rules, cie=cie, lead=1)
        return program, start, interrupted, handler, trampoline

    def test_the_interrupted_pc_is_looked_up_as_it_is(self) -> None:
        """It is a function's first byte: one byte before is another function."""
        program, start, interrupted, handler, trampoline = self.program()
        words = [trampoline, interrupted, 0x77, 0, 5, start + 5]
        words[3] = sp_of(program.thread(handler, words), 5)
        stack = unwind_user(program.thread(handler, words))
        assert [handler, trampoline, interrupted, start + 5] == ips(stack)
        assert [True, True, True, False] == [frame.exact for frame in stack.frames]
        assert [False, True, False, False] == [frame.signal for frame in stack.frames]
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(stack)

    def test_a_signal_frame_that_leads_to_itself_is_a_cycle(self) -> None:
        """The walk ends; it does not fill the memory."""
        program, _, _, handler, trampoline = self.program()
        words = [trampoline, handler, 0x77, 0]
        words[3] = sp_of(program.thread(handler, words))
        stack = unwind_user(program.thread(handler, words))
        assert (Stop.CYCLE, Stop.CYCLE) == (stack.stop, stack.judgement.reason)
        assert 2 == len(stack.frames)

    def test_a_longer_cycle_is_found_too(self) -> None:
        """Two handlers that interrupt each other for ever."""
        program, _, _, handler, trampoline = self.program()
        second = program.function(NOP + RET)
        words = [trampoline, second, 0, 0, trampoline, handler, 0, 0]
        probe = program.thread(handler, words)
        words[3], words[7] = sp_of(probe, 4), sp_of(probe, 0)
        stack = unwind_user(program.thread(handler, words))
        assert Stop.CYCLE is stack.stop
        assert len(stack.frames) < 20


class TestSuspects:
    """R9a, R9b, R10, R1, R8, R11."""

    def test_a_return_address_in_another_place_is_suspect(self) -> None:
        """R9a: longjmp's CFI."""
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        jumper = program.function(NOP * 4, def_cfa_offset(16), in_register(RA, 2))
        stack = unwind_user(program.thread(jumper, [1, 2], {2: start + 5}))
        assert (Stop.END_PROCESS_ENTRY, Stop.RA_RULE_NONSTANDARD, 0) == verdict(stack)

    def test_a_uretprobes_trampoline_ends_the_walk(self) -> None:
        """R10: where the source does not know what was replaced."""
        chain = Chain()
        words = chain.words
        words[2] = UPROBES
        stack = unwind_user(chain.program.thread(chain.leaf + 4, words))
        assert ([chain.leaf + 4], (Stop.RA_REWRITTEN, Stop.RA_REWRITTEN, 0)) == (ips(stack), verdict(stack))

    def test_the_original_return_addresses_replace_the_trampolines(self) -> None:
        """R10: innermost first."""
        chain = Chain()
        words = chain.words
        words[2] = words[5] = UPROBES
        thread = chain.program.thread(chain.leaf + 4, words)
        stack = unwind_user(replace(thread, original_returns=(chain.main + 9, chain.start + 5)))
        assert [chain.leaf + 4, chain.main + 9, chain.start + 5] == ips(stack)
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(stack)
        assert Stop.RA_REWRITTEN is unwind_user(replace(thread, original_returns=(chain.main + 9,))).stop

    def test_registers_and_memory_of_different_times_are_unreliable(self) -> None:
        """R1."""
        stack = unwind_user(Chain().thread(snapshot=False))
        assert (Stop.END_PROCESS_ENTRY, Stop.THREAD_RUNNING, 0) == verdict(stack)

    def test_the_shadow_stack_must_hold_every_return_address(self) -> None:
        """R11: one after the other; one between them is a frame that is missing here."""
        chain = Chain()
        good = (chain.main + 9, chain.start + 5, 0x3)
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(unwind_user(chain.thread(shadow_stack=good)))
        stack = unwind_user(chain.thread(shadow_stack=(chain.main + 9,)))
        assert (Stop.END_PROCESS_ENTRY, Stop.SHADOW_STACK_MISMATCH, 2) == verdict(stack)
        stack = unwind_user(chain.thread(shadow_stack=(chain.main + 9, 0x2, chain.start + 5)))
        assert (Stop.END_PROCESS_ENTRY, Stop.SHADOW_STACK_MISMATCH, 2) == verdict(stack)

    def test_a_guess_by_frame_pointer_is_marked_and_unreliable(self) -> None:
        """R8: generated code that keeps frame pointers."""
        chain = Chain()
        words = [7, 0, chain.main + 9, 21, 22, chain.start + 5]
        pc = ANON + 16
        fp = sp_of(chain.program.thread(pc, words), 1)
        thread = chain.program.thread(pc, words, {RBP: fp})
        stack = Unwinder(Policy(methods=frozenset(Method))).unwind(thread)
        assert [pc, chain.main + 9, chain.start + 5] == ips(stack)
        assert [Trust.REGISTERS, Trust.FRAME_POINTER, Trust.CFI] == [frame.trust for frame in stack.frames]
        assert (Stop.END_PROCESS_ENTRY, Stop.ANON_CODE, 0) == verdict(stack)
        assert Stop.ANON_CODE is unwind_user(thread).stop

    def test_a_scan_takes_the_first_word_behind_a_call(self) -> None:
        """R8: the last resort."""
        chain = Chain()
        words = [7, chain.leaf + 2, 3, chain.main + 9, 21, 22, chain.start + 5]
        stack = Unwinder(Policy(methods=frozenset(Method))).unwind(chain.program.thread(ANON + 16, words))
        assert [ANON + 16, chain.main + 9, chain.start + 5] == ips(stack)
        assert Trust.SCAN is stack.frames[1].trust
        assert Verdict.UNRELIABLE is stack.judgement.verdict


def test_the_detail_names_the_frame_the_file_and_the_reason() -> None:
    chain = Chain()
    detail = unwind_user(chain.program.thread(TEXT + 0x2000, chain.words)).judgement.detail
    assert "Frame 0 at 0x403000 (program+0x3000): The file has no unwind data for this code." == detail


def test_memory_that_ends_within_the_stack_is_a_reason() -> None:
    chain = Chain()
    thread = chain.thread()
    assert isinstance(thread.memory, Layered)
    image, stack, *rest = thread.memory.layers
    cut = replace(stack, data=stack.data[: thread.registers.sp - STACK + 24])  # type: ignore[type-var, attr-defined]
    found = unwind_user(replace(thread, memory=Layered((image, cut, *rest))))
    assert (Stop.MEM_FAULT, Stop.MEM_FAULT, 1) == verdict(found)
    assert STACK_END > STACK
