"""The walk in the kernel, scored at stepped states: the stepper enters a system call with their registers, and the sampler walks there."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict, deque
from types import TracebackType
from typing import Self

from oracle.judge import Answer
from oracle.truth import Flag, Run, State

from unspool.capture.kernel import Sampler
from unspool.capture.records import RawSample, samples
from unspool.capture.request import Request
from unspool.capture.triggers import Trigger
from unspool.errors import UnspoolError
from unspool.model.verdict import Verdict

SYSCALL = 183
"""afs_syscall: no program makes it (NO_SUCH_SYSCALL of stepper.c)."""


class KernelWalk:
    """The sampler, listening for the stepper's system call while it is open; its samples come in the order of the states."""

    def __init__(self) -> None:
        """Load the sampler; UnspoolError where that cannot be."""
        self._sampler = Sampler(Request(trigger=Trigger("syscalls", (SYSCALL,), "syscalls"), kernel_frames=False))
        self._taken: list[RawSample] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._drain, daemon=True)

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._sampler.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take the last samples and unload."""
        self._over.set()
        self._thread.join()
        self._sampler.stop()
        self._sampler.flush()
        while data := self._sampler.drain():
            self._taken.extend(samples(data))
        self._sampler.close()

    def answers(self, run: Run) -> dict[int, Answer]:
        """Its answer for every state at which it was triggered, by step: the samples of a thread are in the order of its states."""
        waiting: defaultdict[int, deque[RawSample]] = defaultdict(deque)
        for sample in sorted(self._taken, key=lambda sample: sample.time_ns):
            waiting[sample.tid].append(sample)
        found = {}
        for state in run.states():
            if Flag.ENTERED in state.flags and waiting[state.tid] and _is_of(waiting[state.tid][0], state):
                found[state.step] = _answer(waiting[state.tid].popleft())
        return found

    def _drain(self) -> None:
        while not self._over.wait(0.05):
            while data := self._sampler.drain():
                self._taken.extend(samples(data))


def kernel_walk() -> KernelWalk | None:
    """The walk in the kernel, None where the sampler cannot be loaded."""
    try:
        return KernelWalk()
    except UnspoolError as error:
        print(f"in-kernel: not scored, {str(error).splitlines()[0]}", file=sys.stderr)
        return None


def _is_of(sample: RawSample, state: State) -> bool:
    return bool(sample.user) and sample.user[0].address == state.registers.pc


def _answer(sample: RawSample) -> Answer:
    judgement = sample.judgement
    return Answer(
        tuple(frame.address for frame in sample.user),
        tuple(frame.exact for frame in sample.user),
        judgement.verdict == Verdict.RELIABLE,
        judgement.reason.label if judgement.verdict == Verdict.UNRELIABLE else sample.stop.label,
    )
