"""Whether a reported stack is the true one: exact, sound, or short of a function that will be returned to."""

from __future__ import annotations

from dataclasses import dataclass

from oracle.image import Functions
from oracle.truth import Entry, Fate, Kind, Run, State


@dataclass(frozen=True, slots=True)
class Answer:
    """What an unwinder said: addresses with how to look them up, innermost first, and whether it claims that the list is complete.

    `reason` is its own word for why it ended.
    """

    ips: tuple[int, ...]
    exact: tuple[bool, ...]
    complete: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer held against the truth."""

    exact: bool
    sound: bool

    def false_reliable(self, answer: Answer) -> bool:
        """Whether the answer claims to be complete and misses a function."""
        return answer.complete and not self.sound

    def false_unreliable(self, answer: Answer) -> bool:
        """Whether the answer is the true list, and refuses to say so."""
        return self.exact and not answer.complete


class Judge:
    """Holds answers against the truth of one run."""

    def __init__(self, run: Run) -> None:
        """Judge states of that run."""
        self.run = run
        self.functions = Functions(run.vdso, run.files)

    def find(self, state: State, answer: Answer) -> Finding:
        """How the answer compares with the state's truth."""
        return Finding(self._is_exact(state, answer), self._is_sound(state, answer))

    def truth(self, state: State) -> list[int]:
        """The addresses an exact answer has: the pc and every pending return point, without signal trampolines."""
        entries = (self.run.entries[number] for number in state.entries)
        return [state.registers.pc, *(entry.ra for entry in entries if entry.is_address)]

    def _is_exact(self, state: State, answer: Answer) -> bool:
        restorers = {self.run.entries[n].ra for n in state.entries if self.run.entries[n].kind == Kind.RESTORER}
        reported = [ip for index, ip in enumerate(answer.ips) if not index or ip not in restorers]
        return reported == self.truth(state)

    def _is_sound(self, state: State, answer: Answer) -> bool:
        at = self.functions.at
        lookups = zip(answer.ips, answer.exact, strict=True)
        reported = [at(state.space, ip if exact else ip - 1) for ip, exact in lookups]
        index = 1
        for number in state.entries:
            entry = self.run.entries[number]
            needed = self._needed(state, entry, number)
            if needed is None:
                continue
            function, landing = needed
            if landing and index - 1 < len(reported) and reported[index - 1] == function:
                continue
            while index < len(reported) and reported[index] != function:
                index += 1
            if index >= len(reported):
                return False
            index += 1
        return True

    def _needed(self, state: State, entry: Entry, number: int) -> tuple[tuple[str, int], bool] | None:
        """The function that must be reported for an entry, and whether a jump will land in it; None when nothing need be.

        A jump to a function's first instruction (setcontext to a new coroutine) calls it, as a tail call does: nothing returns to it.
        """
        if not entry.is_address:
            return None
        function = self.functions.at(state.space, entry.ra if entry.exact else entry.ra - 1)
        if entry.kind == Kind.LANDING and self._starts_at(state, entry.ra):
            return None
        fate: Fate | None = self.run.fates.get(number)
        if fate is None or fate.returned:
            return function, entry.kind == Kind.LANDING
        if fate.outermost and fate.landing and self.functions.at(state.space, fate.landing) == function:
            return function, True
        return None

    def _starts_at(self, state: State, address: int) -> bool:
        return self.functions.at(state.space, address) != self.functions.at(state.space, address - 1)
