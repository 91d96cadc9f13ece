"""The stacks of a live process now: threads stopped and walked, then (with the process running on) their frames named."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.model.stack import Frame, Stack
from unspool.model.symbol import Named, Symbol, Unnamed
from unspool.model.verdict import Judgement, Stop, Verdict
from unspool.session.walking import DEFAULT, Walk, Walking, walker

if TYPE_CHECKING:
    from unspool.model.module import AddressSpace
    from unspool.session.naming import Place
    from unspool.symbols.symbolizer import Symbolizer
    from unspool.targets.stopping import Refused
    from unspool.unwind.image import UnwindDataProvider


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
    # The symbolizer's worker loads its parser while we load what stops and walks, and use it.
    with _symbolizer(lines=lines) if named else nullcontext() as symbolizer:
        from unspool.session.looking import Walked, named_threads
        from unspool.targets.process import Process
        from unspool.targets.stopping import visit, visit_together

        process = Process(pid)
        walked = Walked(process, walker_of(process.pid, how))
        looks = visit_together(process, walked.look) if together else walked.checked(visit(process, walked.look, tids=tids))
        if symbolizer is None:
            return ProcessStacks(process.pid, process.name, tuple(look.thread for look in looks), process.space)
        return ProcessStacks(process.pid, process.name, tuple(named_threads(process, looks, symbolizer)), process.space)


def _symbolizer(*, lines: bool) -> Symbolizer:
    from unspool.symbols.symbolizer import Symbolizer

    return Symbolizer(lines=lines)


def walker_of(pid: int, how: Walking = DEFAULT) -> Walk:
    """The walk for threads of that process."""

    def unwind_data() -> UnwindDataProvider:
        from unspool.session.unwind_data import provider_for

        return provider_for(pid)

    return walker(unwind_data, how)


def refused(refusal: Refused) -> Stack:
    """The empty stack of a thread that could not be looked at."""
    verdict = Verdict.NONE if refusal.stop in {Stop.NO_USER_STACK, Stop.EXITED} else Verdict.UNRELIABLE
    reason = Stop.NONE if verdict is Verdict.NONE else refusal.stop
    return Stack((), refusal.stop, Judgement(verdict, reason, None if verdict is Verdict.NONE else 0, refusal.detail), refusal.detail)
