"""The unwinders that are scored, each as a function from a state to an answer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from oracle.judge import Answer
from oracle.truth import Run, State

from unspool.formats.elf.file import Elf
from unspool.model.module import Mapping
from unspool.model.stack import Stack
from unspool.model.verdict import Verdict
from unspool.unwind.api import Unwinder
from unspool.unwind.image import UnwindData
from unspool.unwind.policy import Check, Policy

Unwind = Callable[[Run, State], Answer | None]
"""None where the unwinder was not asked about the state."""
MAX_FRAMES = 20000


def _unwind_data(mapping: Mapping) -> tuple[UnwindData, ...]:
    if mapping.kind != "file":
        return ()
    elf = Elf(Path(mapping.path).read_bytes(), file=mapping.path)
    section, stated = elf.section(".eh_frame"), elf.svma(mapping.offset)
    if section is None or stated is None:
        return ()
    return (UnwindData("eh_frame", elf.data(section), section.address, mapping.start - stated),)


_FILES_UNWINDER = Unwinder(unwind_data=_unwind_data)


def answer_of(stack: Stack) -> Answer:
    """Our own stacks: complete means the verdict `reliable`."""
    judgement = stack.judgement
    return Answer(
        tuple(frame.ip for frame in stack.frames),
        tuple(frame.exact for frame in stack.frames),
        judgement.verdict == Verdict.RELIABLE,
        judgement.reason.label if judgement.verdict == Verdict.UNRELIABLE else stack.stop.label,
    )


def frame_pointer(run: Run, state: State) -> Answer:
    """A walk along saved frame pointers as profilers do it: the pc, then [fp + 8] until fp is 0; complete when it got there."""
    thread = run.thread(state)
    arch = state.registers.arch
    ips, fp, last = [state.registers.pc], state.registers.values[arch.fp], 0
    while fp and len(ips) < MAX_FRAMES:
        pair = thread.memory.read(fp, 16)
        if pair is None or fp <= last:
            return Answer(tuple(ips), (True, *([False] * (len(ips) - 1))), complete=False, reason="broken chain")
        last = fp
        fp, ra = struct.unpack("<QQ", pair)  # little-endian: x86-64 and AArch64
        ips.append(ra)
    return Answer(tuple(ips), (True, *([False] * (len(ips) - 1))), complete=True, reason="end")


def reference(*without: Check) -> Unwind:
    """The Python reference, with some of its rules switched off."""
    unwinder = Unwinder(Policy().without(*without))

    def unwind(run: Run, state: State) -> Answer:
        return answer_of(unwinder.unwind(run.thread(state), MAX_FRAMES))

    return unwind


def with_files(run: Run, state: State) -> Answer:
    """The Python reference with the unwind data that the files hold and no segment points to (static programs)."""
    return answer_of(_FILES_UNWINDER.unwind(run.thread(state), MAX_FRAMES))


def native(run: Run, state: State) -> Answer:
    """The C walk in user space."""
    from unspool.native import walk

    return answer_of(walk(run.thread(state), max_frames=MAX_FRAMES))


def native_is_built() -> bool:
    """Whether the C walk can be scored."""
    import unspool.native

    return hasattr(unspool.native, "walk")


def recorded(answers: dict[int, Answer], run: Run, state: State) -> Answer | None:
    """An unwinder that ran as a program over the whole file before: its answers by the state's step and thread."""
    del run
    return answers.get(state.step)


def from_answers(answers: dict[int, Answer]) -> Unwind:
    """The unwinder of such answers."""
    return partial(recorded, answers)
