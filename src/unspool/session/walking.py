"""Which walk is used for a thread: the C library's, and the readable reference where the library does not reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unspool.model.stack import Stack
from unspool.model.thread import Thread
from unspool.model.verdict import Stop

if TYPE_CHECKING:
    from unspool.unwind.image import UnwindDataProvider

Method = Literal["native", "python"]
Guess = Literal["none", "frame-pointer", "scan"]
"""What may be done where code has no unwind data: nothing, follow frame pointers, or take what looks like a return address."""
Walk = Callable[[Thread], Stack]

MAX_FRAMES = 200_000
"""Frames of one thread unless the user asks for more or fewer: more than an 8 MB stack of ordinary recursion holds."""


@dataclass(frozen=True, slots=True)
class Walking:
    """How stacks are to be walked: by the C library or the Python reference, how deep at most, and what may be guessed."""

    method: Method = "native"
    max_frames: int = MAX_FRAMES
    guess: Guess = "none"


DEFAULT = Walking()


def walker(unwind_data: Callable[[], UnwindDataProvider], how: Walking = DEFAULT) -> Walk:
    """The walk for threads of one process; `unwind_data` makes what gives unwind data out of files, when it is needed.

    The C library knows memory only, and never guesses. Where it ends for want of unwind data, and files have it or a guess is allowed, the
    reference walks instead.
    """
    reference = _Reference(unwind_data, how)
    if how.method == "python":
        return reference.walk
    from unspool.native import walk

    def native(thread: Thread) -> Stack:
        stack = walk(thread, max_frames=how.max_frames)
        return reference.walk(thread) if reference.knows_more(thread, stack) else stack

    return native


class _Reference:
    """The Python reference, imported when it is needed: that takes longer than most walks."""

    def __init__(self, unwind_data: Callable[[], UnwindDataProvider], how: Walking) -> None:
        self._unwind_data = unwind_data
        self._how = how
        self._walk: Callable[[Thread, int], Stack] | None = None

    def knows_more(self, thread: Thread, stack: Stack) -> bool:
        """Whether it can go on where the C library's walk ended."""
        if stack.stop is Stop.ANON_CODE or not stack.frames:
            return stack.stop is Stop.ANON_CODE and self._how.guess != "none"
        if stack.stop is not Stop.NO_UNWIND_INFO:
            return False
        mapping = thread.space.find(stack.frames[-1].lookup_pc)
        return self._how.guess != "none" or (mapping is not None and bool(self._unwind_data()(mapping)))

    def walk(self, thread: Thread) -> Stack:
        if self._walk is None:
            from unspool.unwind.api import Unwinder
            from unspool.unwind.policy import Method as Means
            from unspool.unwind.policy import Policy

            guesses = {"none": set(), "frame-pointer": {Means.FRAME_POINTER}, "scan": {Means.FRAME_POINTER, Means.SCAN}}[self._how.guess]
            self._walk = Unwinder(Policy(frozenset({Means.CFI, *guesses})), unwind_data=self._unwind_data()).unwind
        return self._walk(thread, self._how.max_frames)
