"""The stacks of a live process now: threads stopped and walked, then (with the process running on) their frames named."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unspool.errors import UnspoolError
from unspool.model.module import AddressSpace
from unspool.model.stack import Frame, Stack
from unspool.model.symbol import Named, Symbol, Unnamed
from unspool.model.verdict import Judgement, Stop, Verdict
from unspool.session.naming import Place, Places, names_of
from unspool.session.walking import DEFAULT, Walk, Walking, walker
from unspool.targets.process import Process
from unspool.targets.stopping import Refused, Visited, visit, visit_together

if TYPE_CHECKING:
    from unspool.symbols.symbolizer import Symbolizer
    from unspool.unwind.image import UnwindDataProvider

_UNKNOWN_PLACES = {Stop.NO_MAPPING, Stop.NOT_EXECUTABLE, Stop.RA_NOT_EXECUTABLE, Stop.OUTSIDE_STACK, Stop.ANON_CODE}


@dataclass(frozen=True, slots=True)
class NamedFrame:
    """A frame, where its address lies, and its names: more than one when calls were inlined."""

    frame: Frame
    place: Place
    named: Named

    def calls(self) -> Iterator[Symbol | None]:
        """One entry for each call at the frame, innermost inlined one first; None for a frame without a name."""
        if isinstance(self.named, Unnamed) or not self.named:
            yield None
            return
        yield from self.named


@dataclass(frozen=True, slots=True)
class ThreadStack:
    """One thread's stack with its names; `frames` is empty and the stop says why for a thread that could not be looked at."""

    tid: int
    name: str
    stack: Stack
    frames: tuple[NamedFrame, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessStacks:
    """The stacks of all threads, in the order of their numbers; `space` are the mappings they were walked with."""

    pid: int
    name: str
    threads: tuple[ThreadStack, ...]
    space: AddressSpace


def stacks_of(
    pid: int,
    how: Walking = DEFAULT,
    *,
    tids: Collection[int] | None = None,
    together: bool = False,
    named: bool = True,
    lines: bool = True,
) -> ProcessStacks:
    """Every thread's stack; NoSuchTarget when there is no such process.

    `together` stops all threads at once, so that the stacks are of one instant; else each is stopped only while it is walked. Not `named`:
    addresses only; no `lines`: functions without source lines and inlined calls, which is quicker where debug information is large.
    """
    # The symbolizer's worker loads while the stacks are walked.
    with _symbolizer(lines=lines) if named else nullcontext() as symbolizer:
        process = Process(pid)
        walked = _Walked(process, walker_of(process.pid, how))
        looks = visit_together(process, walked.look) if together else walked.checked(visit(process, walked.look, tids=tids))
        if symbolizer is None:
            return ProcessStacks(process.pid, process.name, tuple(look.thread for look in looks), process.space)
        return ProcessStacks(process.pid, process.name, tuple(_named(process, looks, symbolizer)), process.space)


def _symbolizer(*, lines: bool) -> Symbolizer:
    from unspool.symbols.symbolizer import Symbolizer

    return Symbolizer(lines=lines)


def walker_of(pid: int, how: Walking = DEFAULT) -> Walk:
    """The walk for threads of that process."""

    def unwind_data() -> UnwindDataProvider:
        from unspool.session.unwind_data import provider_for

        return provider_for(pid)

    return walker(unwind_data, how)


@dataclass(frozen=True, slots=True)
class _Look:
    thread: ThreadStack
    space: AddressSpace
    generation: int


class _Walked:
    """Walks threads of one process, and says which walks saw mappings that changed."""

    def __init__(self, process: Process, walk: Walk) -> None:
        self.process = process
        self.walk = walk

    def look(self, visited: Visited) -> _Look:
        """The stack of a thread that is stopped now."""
        thread = visited.thread
        if isinstance(thread, Refused):
            stack = refused(thread)
            space = self.process.space
        else:
            stack = self.walk(thread)
            if stack.stop in _UNKNOWN_PLACES and self._mappings_changed(visited.tid):
                thread = replace(thread, space=self.process.space, ends=self.process.ends)
                stack = self.walk(thread)
            space = thread.space
        return _Look(ThreadStack(visited.tid, visited.name, stack), space, self.process.generation)

    def _mappings_changed(self, tid: int) -> bool:
        """Read the mappings of a stopped thread again, where that is too slow to be done for each (stopping.REFRESH_BUDGET)."""
        before = self.process.generation
        try:
            self.process.refresh(tid)
        except (OSError, UnspoolError):
            return False
        return self.process.generation != before

    def checked(self, looks: list[_Look]) -> list[_Look]:
        """The same, but a stack with code whose mapping changed since is not reliable any more.

        The mappings of a huge process are read for its first thread only; so they are compared after the last.
        """
        living = [look.thread.tid for look in looks if look.thread.frames or look.thread.stack.frames]
        if not any(self._mappings_changed(tid) for tid in living[-1:]):
            return looks
        return [_stale(look, self.process.space) if look.generation != self.process.generation else look for look in looks]


def _stale(look: _Look, now: AddressSpace) -> _Look:
    stack = look.thread.stack
    for index, frame in enumerate(stack.frames):
        if look.space.find(frame.lookup_pc) != now.find(frame.lookup_pc):
            if stack.judgement.first_bad_frame is not None and stack.judgement.first_bad_frame <= index:
                return look
            judgement = Judgement(Verdict.UNRELIABLE, Stop.MAPS_STALE, index, "the mapping of its code changed during the look")
            return replace(look, thread=replace(look.thread, stack=replace(stack, judgement=judgement)))
    return look


def refused(refusal: Refused) -> Stack:
    """The empty stack of a thread that could not be looked at."""
    verdict = Verdict.NONE if refusal.stop in {Stop.NO_USER_STACK, Stop.EXITED} else Verdict.UNRELIABLE
    reason = Stop.NONE if verdict is Verdict.NONE else refusal.stop
    return Stack((), refusal.stop, Judgement(verdict, reason, None if verdict is Verdict.NONE else 0, refusal.detail), refusal.detail)


def _named(process: Process, looks: list[_Look], symbolizer: Symbolizer) -> Iterator[ThreadStack]:
    """The threads with their frames named; every address is looked up once, however many frames have it."""
    places = Places(process.pid)
    wanted = {(look.generation, frame.lookup_pc): look.space for look in looks for frame in look.thread.stack.frames}
    for (_, address), space in wanted.items():
        places.add(space, address)
    names = names_of(places, symbolizer)
    found: dict[tuple[int, int], tuple[Place, Named]] = {}
    for (generation, address), space in wanted.items():
        place = places.place(space, address)
        found[generation, address] = place, names[place]
    for look in looks:
        frames = look.thread.stack.frames
        yield replace(look.thread, frames=tuple(NamedFrame(frame, *found[look.generation, frame.lookup_pc]) for frame in frames))
