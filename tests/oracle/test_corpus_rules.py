"""What each rule of the verdict is for: with it switched off, some stack of the corpus is called reliable and lacks a function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from oracle import corpus, unwinders
from oracle.judge import Judge
from oracle.test_corpus import X86_64_CORPUS
from oracle.truth import Entry, Kind, Run, State

from unspool.model.arch import X86_64
from unspool.model.memory import Bytes, Layered
from unspool.model.thread import Thread
from unspool.unwind.api import Unwinder
from unspool.unwind.policy import Check, Method, Policy

NOT_SEEN_ALONE = {Check.R8}
"""R8 never decides alone: where a guess is made there is no unwind row, so that R2 refuses too."""


@dataclass(frozen=True, slots=True)
class Case:
    """A thread, and the true state that it is a (perhaps spoilt) picture of."""

    thread: Thread
    state: State


def as_they_were(run: Run) -> Iterator[Case]:
    """The states."""
    for state in run.states():
        yield Case(run.thread(state), state)


def torn(run: Run) -> Iterator[Case]:
    """Registers of one instant with the stack of a later one: what a copy of a running thread is."""
    states = list(run.states())
    for state, later in zip(states, states[3:], strict=False):
        thread = run.thread(state)
        if state.space is later.space and state.tid == later.tid:
            memory = Layered((*later.stack, *state.stack, run.thread(state).memory))
            yield Case(replace(thread, memory=memory, snapshot=False), state)


def partial_registers(run: Run) -> Iterator[Case]:
    """Only the pc, the stack pointer and the frame pointer are known."""
    for state in run.states():
        thread = run.thread(state)
        kept = {number: value for number, value in state.registers.values.items() if number in {6, 7}}
        yield Case(replace(thread, registers=replace(thread.registers, values=kept)), state)


def swapped_returns(run: Run) -> Iterator[Case]:
    """Two return addresses on the stack have changed places, and a shadow stack remembers the right ones."""
    for state in run.states():
        calls = [run.entries[number] for number in state.entries if run.entries[number].kind == Kind.CALL]
        if len(calls) < 4 or calls[1].ra == calls[2].ra:
            continue
        thread = run.thread(state)
        spoilt = tuple(_with_words(part, {calls[1].slot: calls[2].ra, calls[2].slot: calls[1].ra}) for part in state.stack)
        memory = Layered((*spoilt, thread.memory))
        yield Case(replace(thread, memory=memory, shadow_stack=tuple(entry.ra for entry in _returns(run, state))), state)


def _returns(run: Run, state: State) -> list[Entry]:
    return [run.entries[number] for number in state.entries if run.entries[number].kind == Kind.CALL]


def _with_words(part: Bytes, words: dict[int, int]) -> Bytes:
    data = bytearray(part.data)
    for address, word in words.items():
        if 0 <= address - part.start <= len(data) - 8:
            data[address - part.start : address - part.start + 8] = word.to_bytes(8, "little")
    return Bytes(part.start, bytes(data))


SPOILERS = {Check.R1: torn, Check.R7: partial_registers, Check.R11: swapped_returns}


def lies(policy: Policy, cases_of: object) -> int:
    """How many stacks are called reliable under that policy and lack a function."""
    found = 0
    for program in corpus.load(X86_64_CORPUS):
        judge, unwinder = Judge(program.run), Unwinder(policy)
        for case in cases_of(program.run):  # type: ignore[operator]
            answer = unwinders.answer_of(unwinder.unwind(case.thread))
            found += judge.find(case.state, answer).false_reliable(answer)
    return found


@pytest.mark.parametrize("check", [check for check in Check if check not in NOT_SEEN_ALONE], ids=lambda check: check.name)
def test_each_rule_prevents_lies(check: Check) -> None:
    """All rules: none. All but one: some."""
    cases_of = SPOILERS.get(check, as_they_were)
    assert lies(Policy().without(check), cases_of) > 0
    if check in SPOILERS:
        assert 0 == lies(Policy(), cases_of)


def test_a_guess_alone_makes_a_stack_unreliable() -> None:
    """R8, beside R2: frames that were guessed are never part of a reliable stack, though nothing else spoke against them."""
    guessing = Policy(methods=frozenset(Method)).without(Check.R2)
    assert lies(guessing.without(Check.R8), as_they_were) > lies(guessing, as_they_were)


def test_machine_is_x86_64() -> None:
    """The spoilers above write x86-64 words."""
    assert all(program.run.arch is X86_64 for program in corpus.load(X86_64_CORPUS))
