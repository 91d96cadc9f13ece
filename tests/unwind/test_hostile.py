"""Bytes that mean harm, or were hit: a walk ends with a reason, soon, and never raises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from formats.dwarf.cfi_builder import RA, RBP, RSP, advance, def_cfa_expression, def_cfa_offset, offset, skip, undefined, val_expression
from hypothesis import given
from hypothesis import strategies as st
from unwind.process_builder import BASE, CALL, FRAMES, HDR, NOP, RET, Program

from unspool.model.memory import Bytes, Layered
from unspool.model.thread import Thread
from unspool.model.verdict import Stop, Verdict
from unspool.unwind.api import Unwinder, unwind_user
from unspool.unwind.policy import Method, Policy


def chain() -> Thread:
    """Three functions, of which the middle one keeps rbp."""
    program = Program()
    start = program.function(CALL + NOP * 3, undefined(RA))
    main = program.function(NOP * 4 + CALL + RET, advance(4), def_cfa_offset(24), offset(RBP, 2))
    leaf = program.function(NOP * 8, advance(4), def_cfa_offset(24))
    return program.thread(leaf + 4, [11, 12, main + 9, 21, 22, start + 5], {RBP: 5})


def with_image(thread: Thread, change: dict[int, int]) -> Thread:
    """The thread with other bytes at these addresses."""
    assert isinstance(thread.memory, Layered)
    first, *rest = thread.memory.layers
    assert isinstance(first, Bytes)
    image = bytearray(first.data)
    for address, byte in change.items():
        image[address - BASE] = byte
    return replace(thread, memory=Layered((Bytes(BASE, bytes(image)), *rest)))


ADDRESSES = st.one_of(st.integers(BASE, BASE + 0xB0), st.integers(FRAMES, FRAMES + 0xC0), st.integers(HDR, HDR + 0x30))


@given(st.dictionaries(ADDRESSES, st.integers(0, 255), min_size=1, max_size=16))
def test_a_damaged_image_gives_a_stack_with_a_reason(change: dict[int, int]) -> None:
    stack = unwind_user(with_image(chain(), change))
    assert stack.frames
    assert (Verdict.RELIABLE is stack.judgement.verdict) is (stack.judgement.reason is Stop.NONE)
    if stack.judgement.verdict is Verdict.RELIABLE:
        assert stack.stop.is_end


@given(st.dictionaries(st.integers(0, 16), st.integers(0, (1 << 64) - 1), max_size=16), st.integers(0, (1 << 64) - 1))
def test_any_registers_give_a_stack(values: dict[int, int], pc: int) -> None:
    thread = chain()
    registers = replace(thread.registers, values=values, pc=pc)
    stack = Unwinder(Policy(methods=frozenset(Method))).unwind(replace(thread, registers=registers))
    assert stack.frames


@given(st.binary(max_size=64), st.integers(0, 60))
def test_any_cfi_program_gives_a_stack(instructions: bytes, start: int) -> None:
    program = Program()
    entry = program.function(CALL + NOP * 3, undefined(RA))
    leaf = program.function(NOP * 64, instructions)
    stack = unwind_user(program.thread(leaf + start, [entry + 5] * 16))
    assert stack.frames


@pytest.mark.parametrize(
    ("instructions", "stop"),
    [
        # Three bytes that hang libunwind and gdb.
        (def_cfa_expression(skip(-3)), Stop.EXPR_LIMIT),
        # RA = pc, CFA = sp: the same frame for ever.
        (b"\x0c\x07\x00" + b"\x16\x10\x02\x80\x00", Stop.CFA_NOT_ABOVE_SP),
        # A loop that counts to 2^63: lit0; plus_uconst 1; dup; bra.
        (def_cfa_expression(b"\x30\x23\x01\x12\x28\xfa\xff"), Stop.EXPR_LIMIT),
        # A shift by more than there is, a stack that only grows.
        (def_cfa_expression(b"\x30\x12\x2f\xfc\xff"), Stop.EXPR_LIMIT),
        (b"\x0e" + b"\xff" * 12 + b"\x01", Stop.BAD_CFI),
    ],
)
def test_hostile_cfi_ends_with_its_reason(instructions: bytes, stop: Stop) -> None:
    program = Program()
    entry = program.function(CALL + NOP * 3, undefined(RA))
    leaf = program.function(NOP * 16, instructions)
    stack = unwind_user(program.thread(leaf + 1, [entry + 5] * 8))
    assert stop is stack.stop
    assert Verdict.UNRELIABLE is stack.judgement.verdict


def test_a_deep_recursion_ends_at_the_limit_or_the_end() -> None:
    program = Program()
    entry = program.function(CALL + NOP * 3, undefined(RA))
    recursive = program.function(CALL + NOP * 3, def_cfa_offset(8))
    words = [recursive + 5] * 1800 + [entry + 5]
    thread = program.thread(recursive, words)
    assert 1802 == len(unwind_user(thread).frames)
    assert (Stop.FRAME_LIMIT, 1000) == ((stack := unwind_user(thread, 1000)).stop, len(stack.frames))
    assert RSP in thread.registers.values


def test_expressions_of_one_walk_share_a_budget() -> None:
    """Each register's expression stays below its own limit, but there are thousands of them, in every frame."""
    # const2u 2400, then 4 operations a turn: minus 1, dup, branch back while it is not 0.
    slow = b"\x0a\x60\x09" + b"\x31\x1c\x12\x28\xfa\xff"
    program = Program()
    entry = program.function(CALL + NOP * 3, undefined(RA))
    leaf = program.function(CALL + NOP * 3, b"".join(val_expression(100 + number, slow) for number in range(250)))
    stack = unwind_user(program.thread(leaf, [leaf + 5] * 50 + [entry + 5]))
    assert (Stop.EXPR_LIMIT, Verdict.UNRELIABLE) == (stack.stop, stack.judgement.verdict)


def test_new_code_of_one_walk_has_a_budget_and_a_second_walk_goes_on() -> None:
    program = Program()
    entry = program.function(CALL + NOP * 3, undefined(RA))
    leaf = program.function(CALL + NOP * 3)
    thread = program.thread(leaf, [leaf + 5] * 4 + [entry + 5])
    unwinder = Unwinder()
    state = unwinder.start(thread)
    state.sites.budget.left = 100
    while not state.done:
        state.next()
    assert Stop.PARSE_BUDGET is state.stop
    assert unwinder.unwind(thread).stop.is_end
