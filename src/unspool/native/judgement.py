"""The verdict on a stack that the C library walked: its own checks, and those that only the source of the thread can make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from unspool.model.explain import explain
from unspool.model.shadow_stack import first_not_shadowed
from unspool.model.stack import Frame
from unspool.model.thread import Thread
from unspool.model.verdict import Judgement, Stop, Verdict


def judge(frames: Sequence[Frame], stop: Stop, noted: tuple[int, Stop] | None, thread: Thread) -> Judgement:
    """The verdict; `noted` is the walk's first bad frame and reason. The lowest frame wins, for one frame the walk's reason."""
    scope: Literal["thread", "coroutine"] = "coroutine" if stop is Stop.END_COROUTINE else "thread"
    reasons = [noted] if noted is not None else []
    if not thread.snapshot:
        reasons.append((0, Stop.THREAD_RUNNING))
    if thread.shadow_stack is not None:
        hidden = first_not_shadowed(frames, thread.shadow_stack)
        if hidden is not None:
            reasons.append((hidden, Stop.SHADOW_STACK_MISMATCH))
    if not reasons:
        return Judgement(Verdict.RELIABLE, scope=scope)
    frame, reason = min(reasons, key=lambda pair: pair[0])
    return Judgement(Verdict.UNRELIABLE, reason, frame, _sentence(frames, frame, reason, thread), scope)


def _sentence(frames: Sequence[Frame], index: int, reason: Stop, thread: Thread) -> str:
    if index >= len(frames):
        return explain(reason).meaning
    frame = frames[index]
    mapping = thread.space.find(frame.lookup_pc)
    place = f"{frame.ip:#x}"
    if mapping is not None:
        name = mapping.path.rsplit("/", 1)[-1] or "anonymous memory"
        place += f" ({name}+{mapping.file_offset(frame.ip):#x})"
    return f"Frame {index} at {place}: {explain(reason).meaning}"
