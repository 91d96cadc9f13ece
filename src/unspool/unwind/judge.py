"""The verdict: what was noted on the way, and what it makes of the stack."""

from __future__ import annotations

from collections.abc import Sequence

from unspool.model.explain import explain
from unspool.model.shadow_stack import first_not_shadowed
from unspool.model.stack import Frame
from unspool.model.thread import Thread
from unspool.model.verdict import Judgement, Stop, Verdict
from unspool.unwind.policy import Policy
from unspool.unwind.sites import describe


class Notes:
    """The first bad frame so far and its reason: the lowest index wins, for one index what was noted first."""

    __slots__ = ("frame", "policy", "reason")

    def __init__(self, policy: Policy) -> None:
        """Nothing is noted."""
        self.policy = policy
        self.frame: int | None = None
        self.reason = Stop.NONE

    def note(self, frame: int, reason: Stop) -> None:
        """Remember the reason against believing the frame, unless the policy does not count it."""
        if (self.frame is None or frame < self.frame) and self.policy.counts(reason):
            self.frame = frame
            self.reason = reason


def judge(frames: Sequence[Frame], stop: Stop, notes: Notes, thread: Thread, detail: str = "") -> Judgement:
    """The verdict on a stack; `detail` is on its stop."""
    scope = "coroutine" if stop is Stop.END_COROUTINE else "thread"
    if not stop.is_end:
        notes.note(len(frames) - 1, stop)
    if not thread.snapshot:
        notes.note(0, Stop.THREAD_RUNNING)
    if thread.shadow_stack is not None:
        hidden = first_not_shadowed(frames, thread.shadow_stack)
        if hidden is not None:
            notes.note(hidden, Stop.SHADOW_STACK_MISMATCH)
    if notes.frame is None:
        return Judgement(Verdict.RELIABLE, scope=scope)  # type: ignore[arg-type]
    frame = frames[notes.frame]
    place = describe(thread.space.find(frame.lookup_pc), frame.ip)
    sentence = f"Frame {notes.frame} at {place}: {explain(notes.reason).meaning}"
    if notes.reason is stop and detail:
        sentence += f" ({detail})"
    return Judgement(Verdict.UNRELIABLE, notes.reason, notes.frame, sentence, scope)  # type: ignore[arg-type]
