"""How right the ways to unwind a guest's kernel are: ORC, the scan of the stack, frame pointers, at the same stopped moments.

    .venv/bin/python bench/guest_methods.py PID GDB-SOCKET [MOMENTS]

PID is QEMU's, whose guest has its RAM in a memfd (memory-backend-memfd, share=on) and does something in its kernel. Only distinct moments
count. Callers only: every method has frame 0 from the registers. Truth is the ORC stack, where it is reliable.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from unspool.model.thread import Thread
from unspool.model.verdict import Trust, Verdict
from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.gdbstub import GdbStub
from unspool.targets.guest.kernel import GuestKernel, discover
from unspool.targets.guest.layout import Extent
from unspool.targets.guest.ram import Ram
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.structs import TaskStructs
from unspool.targets.guest.tasks import Tasks
from unspool.unwind.kernel_walk import KernelUnwinder

METHODS = {"ORC": {Trust.ORC}, "scan": {Trust.SCAN}, "frame pointers": {Trust.FRAME_POINTER}}


@dataclass(slots=True)
class Score:
    """One method's callers, how many of them are true, and seconds a stack."""

    shown: int = 0
    true: int = 0
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Print the table."""
    pid, socket, *rest = sys.argv[1:]
    wanted = int(rest[0]) if rest else 1000
    shared = next(entry for entry in Path(f"/proc/{pid}/fd").iterdir() if "memfd:" in str(entry.readlink()))
    fd = os.open(shared, os.O_RDONLY)
    ram = Ram.of_file(fd, [Extent(0, os.fstat(fd).st_size, 0)], "memfd")
    stub = GdbStub.open(Endpoint(path=socket))
    try:
        report(*compare(ram, stub, wanted))
    finally:
        stub.close()
        ram.close()


def compare(ram: Ram, stub: GdbStub, wanted: int) -> tuple[dict[str, Score], int, int, Counter[str]]:
    """Scores by method, the callers there are, the moments, and ORC's verdicts."""
    with stub.hold(stub.vcpus[0]) as state:
        kernel = discover(ram, state) if isinstance(state, VcpuState) else None
    if not isinstance(kernel, GuestKernel) or kernel.btf is None:
        sys.exit(f"no kernel: {kernel}")
    tasks = Tasks(kernel, TaskStructs.of(kernel.btf))
    unwinders = {name: KernelUnwinder(kernel, methods) for name, methods in METHODS.items()}
    scores, verdicts = {name: Score() for name in METHODS}, Counter[str]()
    seen: set[tuple[int, int]] = set()
    callers = 0
    while sum(verdicts.values()) < wanted:
        for vcpu in stub.vcpus:
            with stub.hold(vcpu) as state:
                moment = (state.registers.pc, state.registers.sp) if isinstance(state, VcpuState) else (0, 0)
                if not isinstance(state, VcpuState) or not state.in_kernel or moment in seen:
                    continue
                seen.add(moment)
                kernel.forget()
                thread = tasks.running(state, tasks.on_vcpu(state, vcpu), vcpu)
                callers += score(thread, unwinders, scores, verdicts)
    return scores, callers, sum(verdicts.values()), verdicts


def score(thread: Thread, unwinders: dict[str, KernelUnwinder], scores: dict[str, Score], verdicts: Counter[str]) -> int:
    """Unwind one moment by every method; the number of its callers, 0 when ORC does not vouch for them."""
    found, seconds = {}, {}
    for name, unwinder in unwinders.items():
        began = time.perf_counter()
        found[name] = unwinder.unwind(thread).stack
        seconds[name] = time.perf_counter() - began
    verdict = found["ORC"].judgement.verdict
    verdicts[f"{found['ORC'].stop.label}, {verdict.label}"] += 1
    if verdict is not Verdict.RELIABLE:
        return 0
    truth = Counter(frame.ip for frame in found["ORC"].frames[1:])
    for name, stack in found.items():
        shown = Counter(frame.ip for frame in stack.frames[1:])
        scores[name].shown += shown.total()
        scores[name].true += (shown & truth).total()
        scores[name].seconds.append(seconds[name])
    return truth.total()


def report(scores: dict[str, Score], callers: int, moments: int, verdicts: Counter[str]) -> None:
    """The table as text."""
    print(f"{moments} moments, {callers / max(moments, 1):.1f} callers each; ORC: {dict(verdicts)}")
    for name, one in scores.items():
        precision, recall = one.true / max(one.shown, 1), one.true / max(callers, 1)
        per_stack = one.shown / max(len(one.seconds), 1)
        cost = median(one.seconds or [0.0]) * 1e3
        print(f"{name:15} precision {precision:.2f}  recall {recall:.2f}  callers {per_stack:.1f}  median {cost:.3f} ms")


if __name__ == "__main__":
    main()
