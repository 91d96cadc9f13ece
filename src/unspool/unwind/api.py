"""The public face of the unwinder, named after the kernel's unwind_user: start, next, iterate, or take the whole stack."""

from __future__ import annotations

from collections.abc import Iterator

from unspool.model.stack import Frame, Stack
from unspool.model.thread import Thread
from unspool.model.verdict import Judgement, Stop, Verdict
from unspool.unwind.image import UnwindDataProvider
from unspool.unwind.judge import judge
from unspool.unwind.policy import Policy
from unspool.unwind.sframe_registry import Dropped, SFrameRegistry
from unspool.unwind.sites import Sites
from unspool.unwind.walk import UnwindState

MAX_ENTRIES = 1 << 16
"""Frames of one stack at most, where nothing else is asked for."""

DEFAULT_POLICY = Policy()


class Unwinder:
    """Unwinds thread after thread and remembers what it learned of their code.

    One address space is remembered at a time: `thread.space` says which (the same object: the same generation of mappings).
    `unwind_data` gives unwind data that is not mapped, out of files. `sframe` has sections that no file tells of: those of generated code.
    """

    def __init__(
        self,
        policy: Policy = DEFAULT_POLICY,
        *,
        unwind_data: UnwindDataProvider | None = None,
        sframe: SFrameRegistry | None = None,
    ) -> None:
        """Nothing is known yet."""
        self.policy = policy
        self._sframe = sframe
        self._unwind_data = unwind_data
        self._sites: Sites | None = None

    @property
    def dropped_sframe(self) -> tuple[Dropped, ...]:
        """The SFrame sections that could not be used: file, place and the rule they break."""
        return () if self._sites is None or self._sites.sframe is None else tuple(self._sites.sframe.dropped)

    def start(self, thread: Thread) -> UnwindState:
        """A walk at the thread's innermost frame."""
        sites = self._sites
        if sites is None or not sites.serves(thread):
            sites = self._sites = Sites(thread, self.policy, self._unwind_data, self._sframe)
        return UnwindState(thread, sites)

    def unwind(self, thread: Thread, max_entries: int = MAX_ENTRIES) -> Stack:
        """The thread's stack of at most `max_entries` frames, with its verdict; only max_entries < 1 raises (ValueError)."""
        if max_entries < 1:
            message = f"max_entries is {max_entries}, and a stack has at least one frame"
            raise ValueError(message)
        state = self.start(thread)
        if thread.kernel_thread:
            return Stack((), Stop.NO_USER_STACK, Judgement(Verdict.NONE, Stop.NO_USER_STACK))
        frames: list[Frame] = []
        while True:
            state.stride(frames, max_entries - 1)
            frames.append(state.frame())
            state.next()
            if state.done:
                break
            if len(frames) == max_entries:
                state.end(Stop.FRAME_LIMIT, f"{max_entries} frames were asked for")
                break
        return Stack(tuple(frames), state.stop, judge(frames, state.stop, state.notes, thread, state.detail), state.detail)


def unwind_user_start(thread: Thread, *, unwinder: Unwinder | None = None) -> UnwindState:
    """The state of a walk that stands at the thread's user registers; `done` at once for a kernel thread."""
    return (unwinder or Unwinder()).start(thread)


def unwind_user_next(state: UnwindState) -> bool:
    """Move the state to the caller; False when it ended instead: `state.stop` says why."""
    state.next()
    return not state.done


def for_each_user_frame(thread: Thread, *, unwinder: Unwinder | None = None) -> Iterator[Frame]:
    """The thread's user frames, innermost first, as long as there are any; none for a kernel thread."""
    state = unwind_user_start(thread, unwinder=unwinder)
    while not state.done:
        yield state.frame()
        state.next()


def unwind_user(thread: Thread, max_entries: int = MAX_ENTRIES, *, unwinder: Unwinder | None = None) -> Stack:
    """The thread's whole user stack with its verdict; a kernel thread has no frames. ValueError when max_entries < 1."""
    return (unwinder or Unwinder()).unwind(thread, max_entries)
