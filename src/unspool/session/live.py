"""The livepatch question: whether a function is on any thread's stack now, and whether that can be known."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unspool.model.explain import explain
from unspool.model.symbol import Symbol, Unnamed
from unspool.model.verdict import Stop, Verdict
from unspool.session.finding import Definition, Finder, Unsearched
from unspool.session.stacks import NamedFrame, ProcessStacks, ThreadStack, stacks_of
from unspool.session.walking import Method, Walking
from unspool.session.wanted import Wanted

NO_SUCH_FUNCTION, INLINING_UNKNOWN = "no-such-function", "inlining-unknown"
"""Reasons of doubt beside those of model.verdict.Stop."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25


class Outcome(enum.IntEnum):
    """The answer; its number is the exit status of `unspool live`."""

    SAFE = 0
    LIVE = 1
    UNKNOWN = 2

    @property
    def label(self) -> str:
        """The name in JSON."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Sighting:
    """A frame that is the function, or holds an inlined copy of it (`index` counts frames from the innermost, 0)."""

    tid: int
    name: str
    index: int
    ip: int
    function: str
    inlined: bool


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that keeps the answer from being known: a stop's label or a word of its own, and the sentence.

    `tid` is None where it is not about one thread.
    """

    reason: str
    sentence: str
    tid: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a function in a process at one instant."""

    outcome: Outcome
    pid: int
    function: str
    threads: int
    definitions: tuple[Definition, ...]
    sightings: tuple[Sighting, ...]
    doubts: tuple[Doubt, ...]
    looks: int = 1


@dataclass(frozen=True, slots=True)
class Question:
    """Which function, in which module (a path or its last part; None: any); `inlined` False: the caller knows that nobody inlined it."""

    function: str
    module: str | None = None
    inlined: bool = True


def is_live(pid: int, question: Question, *, method: Method = "native", wait: float = 0.0) -> Answer:
    """The answer for the process; NoSuchTarget when there is none.

    All threads are stopped at once. With `wait` it is asked again until the function is on no stack, at most so many seconds.
    """
    deadline = time.monotonic() + wait
    pause = _SHORTEST_PAUSE
    looks = 0
    finder = Finder(question.function, question.module)
    while True:
        stacks = stacks_of(pid, Walking(method), together=True)
        looks += 1
        answer = judge(stacks, question, finder.find(stacks.pid, stacks.space), looks=looks)
        left = deadline - time.monotonic()
        if answer.outcome is Outcome.SAFE or left <= 0 or _hopeless(answer):
            return answer
        time.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE)


def _hopeless(answer: Answer) -> bool:
    """Whether waiting cannot change the answer: there is no such function, or nothing may be looked at."""
    return answer.outcome is Outcome.UNKNOWN and any(doubt.reason in {NO_SUCH_FUNCTION, Stop.PERMISSION.label} for doubt in answer.doubts)


def judge(stacks: ProcessStacks, question: Question, found: Sequence[Definition | Unsearched], *, looks: int = 1) -> Answer:
    """The answer that the stacks give, with what was found of the function in the process's modules."""
    definitions = tuple(one for one in found if isinstance(one, Definition))
    doubts = [] if definitions else [_not_found(question)]
    doubts += _unsearched(stacks, [one for one in found if isinstance(one, Unsearched)])
    sightings: list[Sighting] = []
    for thread in stacks.threads:
        certain, uncertain = _split(thread, _seen(thread, question, definitions))
        sightings += certain
        doubts += _doubts_of(thread, uncertain)
    if question.inlined:
        doubts += _blind_spots(stacks, definitions)
    outcome = Outcome.LIVE if sightings else Outcome.UNKNOWN if doubts else Outcome.SAFE
    return Answer(outcome, stacks.pid, question.function, len(stacks.threads), definitions, tuple(sightings), tuple(doubts), looks)


def _not_found(question: Question) -> Doubt:
    place = f"module {question.module}" if question.module else "any module of the process"
    return Doubt(NO_SUCH_FUNCTION, f"No function {question.function} was found in {place}.")


def _unsearched(stacks: ProcessStacks, modules: Sequence[Unsearched]) -> Iterator[Doubt]:
    """A module on a stack that might hold the function, but could not be read."""
    for module in modules:
        if _stacks_with(stacks, module.module):
            yield Doubt(Stop.FILE_UNREACHABLE.label, f"{module.module} could not be searched for the function ({module.reason}).")


def _seen(thread: ThreadStack, question: Question, definitions: Sequence[Definition]) -> Iterator[Sighting]:
    wanted = Wanted(question.function)
    finder = Finder(question.function, question.module)
    for index, frame in enumerate(thread.frames):
        calls = _calls(frame) if finder.asks_for(frame.place.module) else ()
        call = next((call for call in calls if wanted.matches(call.function)), None)
        # An alias of the function has another name, but not another address.
        if call is not None or any(definition.holds(frame.place) for definition in definitions):
            name = call.function if call else question.function
            yield Sighting(thread.tid, thread.name, index, frame.frame.ip, name, bool(call and call.inlined))


def _calls(frame: NamedFrame) -> tuple[Symbol, ...]:
    return () if isinstance(frame.named, Unnamed) else frame.named


def _split(thread: ThreadStack, sightings: Iterator[Sighting]) -> tuple[list[Sighting], list[Sighting]]:
    """The sightings in frames that can be believed, and the others."""
    bad = thread.stack.judgement.first_bad_frame
    limit = len(thread.frames) if bad is None else bad
    seen = list(sightings)
    return [one for one in seen if one.index < limit], [one for one in seen if one.index >= limit]


def _doubts_of(thread: ThreadStack, uncertain: Sequence[Sighting]) -> Iterator[Doubt]:
    judgement = thread.stack.judgement
    if judgement.verdict is Verdict.UNRELIABLE:
        seen = " The function is on its stack, but in a part that cannot be believed." if uncertain else ""
        yield Doubt(judgement.reason.label, f"{judgement.detail or explain(judgement.reason).meaning}{seen}", thread.tid)
    if judgement.scope == "coroutine":
        yield Doubt(Stop.END_COROUTINE.label, "It runs coroutines, and suspended ones are on no thread's stack.", thread.tid)


def _blind_spots(stacks: ProcessStacks, definitions: Sequence[Definition]) -> Iterator[Doubt]:
    """Frames in a file that has the function, but whose source line is not known: a copy of it may have been inlined there unseen.

    Where a thread begins nothing was inlined: that is a few instructions of assembly.
    """
    for definition in definitions:
        blind = [thread.tid for thread in stacks.threads if any(_is_blind(frame, definition) for frame in _inner(thread))]
        if blind:
            what = "has no debug information" if not definition.shows_inlined else "has no debug information for some of its code"
            sentence = f"{definition.module} {what}, so inlined copies of the function cannot be seen on {len(blind)} of the stacks."
            yield Doubt(INLINING_UNKNOWN, sentence)


def _inner(thread: ThreadStack) -> Sequence[NamedFrame]:
    return thread.frames[:-1] if thread.stack.stop.is_end else thread.frames


def _is_blind(frame: NamedFrame, definition: Definition) -> bool:
    return frame.place.key == definition.key and not any(call.file for call in _calls(frame))


def _stacks_with(stacks: ProcessStacks, module: str) -> int:
    return sum(any(frame.place.module == module for frame in thread.frames) for thread in stacks.threads)
