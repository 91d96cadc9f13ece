"""The kernel walk held against the truth of a stepped guest: what it said at every state, as counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from oracle.kernel_truth import Pending, State

from unspool.model.verdict import Stop, Verdict
from unspool.unwind.kernel_walk import KernelStack

Function = tuple[str, str]
"""A function: its module and its name. A `.cold` part counts as its function."""
MOST_NOTED = 200


@dataclass(frozen=True, slots=True)
class Told:
    """What the walk said of a state. `user`: the pc and the stack pointer of user mode that it leads to.

    `uniform`: the state is one of every so many steps; `per_pc`: it is one of the first of its instruction.
    """

    state: State
    ips: tuple[int, ...]
    exact: tuple[bool, ...]
    reliable: bool
    reason: Stop
    user: tuple[int, int] | None
    uniform: bool
    per_pc: bool

    @classmethod
    def of(cls, state: State, answer: KernelStack, user: tuple[int, int] | None, *, uniform: bool, per_pc: bool) -> Told:
        """The answer without what is not judged."""
        stack, judgement = answer.stack, answer.stack.judgement
        ips, exact = tuple(frame.ip for frame in stack.frames), tuple(frame.exact for frame in stack.frames)
        reliable = judgement.verdict is Verdict.RELIABLE
        return cls(state, ips, exact, reliable, stack.stop if reliable else judgement.reason, user, uniform, per_pc)


@dataclass(slots=True)
class Tally:
    """Counts of the states of one workload.

    `open`: the stack's outer end was not reached within the trace, so only its inner part is judged. `undecided` states are not judged:
    their trace ended before it was known which calls are real. `user_differs`: reliable, and leads to other user registers than those
    that user mode was left with (an exec or a signal has changed them, or they were not the right ones). `asleep`: tasks that were
    switched away from, looked at when a trace ends.
    """

    steps: int = 0
    states: int = 0
    exact: int = 0
    reliable: int = 0
    open: int = 0
    undecided: int = 0
    false_reliable: int = 0
    reliable_inexact: int = 0
    user_same: int = 0
    user_differs: int = 0
    asleep: int = 0
    asleep_exact: int = 0
    uniform: int = 0
    uniform_reliable: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    false_unreliable: Counter[str] = field(default_factory=Counter)
    noted: dict[str, list[Told]] = field(default_factory=dict)

    def add(self, told: Told, function: Callable[[int], Function | None], *, decided: bool = True) -> None:
        """Count one state."""
        if not decided:
            self.undecided += 1
            return
        if told.uniform:
            self.uniform += 1
            self.uniform_reliable += told.reliable
        if told.reliable and not is_sound(told, function):
            self.false_reliable += 1
            self.note("FALSE RELIABLE", told)
        if told.per_pc:
            self._count(told, exact=is_exact(told))

    def add_sleeper(self, told: Told, function: Callable[[int], Function | None]) -> None:
        """Count the stack of a task that was switched away from."""
        self.asleep += 1
        self.asleep_exact += is_exact(told)
        if told.reliable and not is_sound(told, function):
            self.false_reliable += 1
            self.note("FALSE RELIABLE", told)
        elif not told.reliable:
            self.note("asleep, not reliable", told)

    def note(self, what: str, told: Told) -> None:
        """Keep a state to be shown."""
        kept = self.noted.setdefault(what, [])
        if len(kept) < MOST_NOTED:
            kept.append(told)

    def plus(self, other: Tally) -> None:
        """Add the counts of another tally."""
        for one in fields(self):
            ours, theirs = getattr(self, one.name), getattr(other, one.name)
            if not isinstance(ours, dict) or isinstance(ours, Counter):
                setattr(self, one.name, ours + theirs)
        for what, states in other.noted.items():
            for told in states:
                self.note(what, told)

    def _count(self, told: Told, *, exact: bool) -> None:
        self.states += 1
        self.exact += exact
        self.reliable += told.reliable
        self.open += not told.state.base.closed
        if not told.reliable:
            self.reasons[told.reason.name] += 1
            self.false_unreliable[told.reason.name] += exact
            self.note(told.reason.name, told)
            return
        if not exact:
            self.reliable_inexact += 1
            self.note("reliable, not exact", told)
        left = told.state.base.user
        if left is not None and told.user is not None:
            same = left[0] in {None, told.user[0]} and left[1] == told.user[1]
            self.user_same += same
            self.user_differs += not same
            if not same:
                self.note("other user registers", told)


def is_exact(told: Told) -> bool:
    """Whether the reported addresses are the true list, as far as it is known."""
    truth = told.state.truth()
    callers = told.ips[1:] if told.state.base.closed else told.ips[1 : len(truth) + 1]
    right = told.ips[0] == told.state.pc and len(callers) == len(truth)
    return right and all(not entry.known or ip in {entry.ra, entry.landing} for ip, entry in zip(callers, truth, strict=True))


def is_sound(told: Told, function: Callable[[int], Function | None]) -> bool:
    """Whether every function that will be returned to is reported, in order. An interrupt that is not `known` needs some frame."""
    if told.ips[0] != told.state.pc:
        return False
    reported = [function(ip if exact else ip - 1) for ip, exact in zip(told.ips, told.exact, strict=True)]
    index = 1
    for entry in told.state.truth():
        needed = _functions(entry, function)
        while entry.known and index < len(reported) and reported[index] not in needed:
            index += 1
        if index >= len(reported):
            return False
        index += 1
    return True


def _functions(entry: Pending, function: Callable[[int], Function | None]) -> set[Function | None]:
    """The functions that stand for an entry: where a fault was mended, also the one that ran on."""
    if not entry.interrupt:
        found = {function(entry.ra - 1)}
        # A new task is made to return to the first instruction of ret_from_fork.
        return found if function(entry.ra) in found else found | {function(entry.ra)}
    return {function(ip) for ip in (entry.ra, entry.landing) if ip is not None}
