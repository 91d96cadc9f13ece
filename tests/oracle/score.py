"""One program stepped and scored: what every unwinder said of every state, as counts."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from oracle.judge import Answer, Judge
from oracle.truth import Flag, Run, State
from oracle.unwinders import Unwind

_ANSWER = struct.Struct("<QII")


@dataclass(slots=True)
class Tally:
    """One unwinder on one program. `uniform` are states taken every n-th step: their share is a share of time."""

    states: int = 0
    exact: int = 0
    complete: int = 0
    false_reliable: int = 0
    false_unreliable: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    uniform: int = 0
    uniform_complete: int = 0
    lies: list[State] = field(default_factory=list)

    def add(self, state: State, answer: Answer, judge: Judge) -> None:
        """Count one state."""
        if Flag.UNIFORM in state.flags:
            self.uniform += 1
            self.uniform_complete += answer.complete
        if Flag.PER_PC not in state.flags:
            return
        finding = judge.find(state, answer)
        self.states += 1
        self.exact += finding.exact
        self.complete += answer.complete
        if not answer.complete:
            self.reasons[answer.reason] += 1
        if finding.false_reliable(answer):
            self.false_reliable += 1
            self.lies.append(state)
        if finding.false_unreliable(answer):
            self.false_unreliable[answer.reason] += 1


def score(run: Run, unwinders: dict[str, Unwind]) -> dict[str, Tally]:
    """The tally of every unwinder over all states of the run."""
    judge = Judge(run)
    tallies = {name: Tally() for name in unwinders}
    for state in run.states():
        for name, unwind in unwinders.items():
            answer = unwind(run, state)
            if answer is not None:
                tallies[name].add(state, answer, judge)
    return tallies


def read_answers(path: Path) -> dict[int, Answer]:
    """The answers that libdw.c or libunwind.c wrote, by step."""
    answers = {}
    with path.open("rb") as file:
        while len(head := file.read(_ANSWER.size)) == _ANSWER.size:
            step, complete, frames = _ANSWER.unpack(head)
            ips = struct.unpack(f"<{frames}Q", file.read(8 * frames))
            exact = tuple(bool(byte) for byte in file.read(frames))
            answers[step] = Answer(ips, exact, bool(complete), "stopped")
    return answers
