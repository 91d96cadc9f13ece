"""Each rule of the verdict prevents something: a stack that is refused with it would be called reliable without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from formats.dwarf.cfi_builder import RA, RBP, RSP, def_cfa, def_cfa_offset, in_register, undefined
from unwind.process_builder import ANON, CALL, NOP, RET, STACK, TEXT, UPROBES, Program, sp_of
from unwind.test_exception_commit import CALLS, thrower

from unspool.model.thread import EntryPoints, Thread
from unspool.model.verdict import Verdict
from unspool.unwind.api import Unwinder
from unspool.unwind.policy import CHECK_OF, Check, Method, Policy


def two_functions() -> tuple[Program, int, int]:
    """An entry point and a leaf."""
    program = Program()
    start = program.function(CALL + NOP * 3, undefined(RA))
    return program, start, program.function(NOP * 4 + RET)


def not_of_one_instant() -> Thread:
    program, start, leaf = two_functions()
    return program.thread(leaf, [start + 5], snapshot=False)


def code_without_unwind_data() -> Thread:
    program, _, _ = two_functions()
    return program.thread(TEXT + 0x2000, [0])


def a_call_that_ends_its_function() -> Thread:
    """The next function's row would find a return address one word further up: it belongs to nobody."""
    program = Program()
    start = program.function(CALL + NOP * 3, undefined(RA))
    caller = program.function(NOP * 11 + CALL, def_cfa_offset(24))
    program.function(CALL + NOP * 11, def_cfa_offset(16))
    leaf = program.function(NOP + RET)
    # Looked up in its own function, the caller's frame leads to a return address behind no call.
    return program.thread(leaf, [caller + 16, 1, start + 5, start + 6])


def a_return_address_behind_no_call() -> Thread:
    program, start, leaf = two_functions()
    return program.thread(leaf, [start + 6])


def a_frame_that_leads_to_itself() -> Thread:
    """CFA = sp: with the guards off the walk still goes on, to the entry point that an older call had left on the stack."""
    program = Program()
    start = program.function(CALL + NOP * 3, undefined(RA))
    leaf = program.function(NOP * 4, def_cfa(RBP, 8))
    words = [start + 5, 0, 0, 0]
    return program.thread(leaf, words, {RBP: sp_of(program.thread(leaf, words)), RSP: STACK + 0x3F00 - 8})


def no_caller_in_the_middle() -> Thread:
    program, start, leaf = two_functions()
    return program.thread(leaf, [start + 5], ends=EntryPoints(process=0x1234))


def a_register_that_nobody_kept() -> Thread:
    program = Program()
    program.function(CALL + NOP * 3, undefined(RA))
    return program.thread(program.function(NOP * 4, def_cfa(10, 8)), [0])


def a_guess() -> Thread:
    program, start, _ = two_functions()
    thread = program.thread(ANON + 16, [0, 0, start + 5])
    return program.thread(ANON + 16, [0, 0, start + 5], {RBP: sp_of(thread, 1)})


def a_return_address_in_a_register() -> Thread:
    program = Program()
    start = program.function(CALL + NOP * 3, undefined(RA))
    return program.thread(program.function(NOP * 4, in_register(RA, 2)), [0], {2: start + 5})


def an_exception_that_is_committed() -> Thread:
    program, start, at = thrower(def_cfa(2, 8))
    leaf = program.function(NOP + RET)
    rbp = program.thread(leaf, [0] * 9).registers.sp + 6 * 8
    return program.thread(leaf, [at + CALLS[2], 0, 0, 0, 0, 0, 0x1111, start + 5, 0], {RBP: rbp})


def a_return_probe() -> Thread:
    program, _, leaf = two_functions()
    return program.thread(leaf, [UPROBES])


def another_shadow_stack() -> Thread:
    program, start, leaf = two_functions()
    return program.thread(leaf, [start + 5], shadow_stack=(0x1234,))


CASES: dict[Check, Callable[[], Thread]] = {
    Check.R1: not_of_one_instant,
    Check.R2: code_without_unwind_data,
    Check.R3: a_call_that_ends_its_function,
    Check.R4: a_return_address_behind_no_call,
    Check.R5: a_frame_that_leads_to_itself,
    Check.R6: no_caller_in_the_middle,
    Check.R7: a_register_that_nobody_kept,
    Check.R8: a_guess,
    Check.R9A: a_return_address_in_a_register,
    Check.R9B: an_exception_that_is_committed,
    Check.R10: a_return_probe,
    Check.R11: another_shadow_stack,
}


def policy_for(check: Check) -> Policy:
    """Guesses are allowed where they are the point; without R8 nothing else is held against them."""
    return Policy(methods=frozenset(Method), checks=frozenset(Check) - {Check.R2}) if check is Check.R8 else Policy()


@pytest.mark.parametrize("check", Check, ids=lambda check: check.name)
def test_a_stack_is_refused_by_this_rule_alone(check: Check) -> None:
    thread = CASES[check]()
    policy = policy_for(check)
    refused = Unwinder(policy).unwind(thread).judgement
    assert Verdict.UNRELIABLE is refused.verdict
    # R3 is a way to look and not a test that fails: what it finds is refused by another rule.
    assert (Check.R4 if check is Check.R3 else check) is CHECK_OF[refused.reason]
    assert Verdict.RELIABLE is Unwinder(policy.without(check)).unwind(thread).judgement.verdict
