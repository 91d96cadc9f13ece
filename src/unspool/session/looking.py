"""The threads of a live process looked at: each stopped and walked, then (with the process running on) the frames named.

`stacks.py` loads this when the names' worker is forked: what both need the time for is done at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unspool.errors import UnspoolError
from unspool.model.module import AddressSpace
from unspool.model.symbol import Named
from unspool.model.verdict import Judgement, Stop, Verdict
from unspool.session.naming import Place, Places, names_of
from unspool.session.stacks import NamedFrame, ThreadStack, refused
from unspool.session.walking import Walk
from unspool.targets.process import Process
from unspool.targets.stopping import Refused, Visited

if TYPE_CHECKING:
    from unspool.symbols.symbolizer import Symbolizer

_UNKNOWN_PLACES = {Stop.NO_MAPPING, Stop.NOT_EXECUTABLE, Stop.RA_NOT_EXECUTABLE, Stop.OUTSIDE_STACK, Stop.ANON_CODE}


@dataclass(frozen=True, slots=True)
class Look:
    """A thread's stack, and the mappings that it was walked with; `generation` grows when they are found changed."""

    thread: ThreadStack
    space: AddressSpace
    generation: int


class Walked:
    """Walks threads of one process, and says which walks saw mappings that changed."""

    def __init__(self, process: Process, walk: Walk) -> None:
        """Walk with this."""
        self.process = process
        self.walk = walk

    def look(self, visited: Visited) -> Look:
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
        return Look(ThreadStack(visited.tid, visited.name, stack), space, self.process.generation)

    def _mappings_changed(self, tid: int) -> bool:
        """Read the mappings of a stopped thread again, where that is too slow to be done for each (stopping.REFRESH_BUDGET)."""
        before = self.process.generation
        try:
            self.process.refresh(tid)
        except (OSError, UnspoolError):
            return False
        return self.process.generation != before

    def checked(self, looks: list[Look]) -> list[Look]:
        """The same, but a stack with code whose mapping changed since is not reliable any more.

        The mappings of a huge process are read for its first thread only; so they are compared after the last.
        """
        living = [look.thread.tid for look in looks if look.thread.frames or look.thread.stack.frames]
        if not any(self._mappings_changed(tid) for tid in living[-1:]):
            return looks
        return [_stale(look, self.process.space) if look.generation != self.process.generation else look for look in looks]


def _stale(look: Look, now: AddressSpace) -> Look:
    stack = look.thread.stack
    for index, frame in enumerate(stack.frames):
        if look.space.find(frame.lookup_pc) != now.find(frame.lookup_pc):
            if stack.judgement.first_bad_frame is not None and stack.judgement.first_bad_frame <= index:
                return look
            judgement = Judgement(Verdict.UNRELIABLE, Stop.MAPS_STALE, index, "the mapping of its code changed during the look")
            return replace(look, thread=replace(look.thread, stack=replace(stack, judgement=judgement)))
    return look


def named_threads(process: Process, looks: list[Look], symbolizer: Symbolizer) -> Iterator[ThreadStack]:
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
