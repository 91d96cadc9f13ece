"""The stacks of a real guest's tasks, against what its own kernel says of them."""

from __future__ import annotations

import re

import pytest
from guest.live_guest import looked_at
from guest_machines import GuestMachine

from unspool.model.verdict import Stop, Verdict
from unspool.targets.guest.kernel import GuestKernel
from unspool.targets.guest.tasks import Task
from unspool.unwind.kernel_walk import KernelStack

pytestmark = pytest.mark.live


def names(kernel: GuestKernel, stack: KernelStack) -> list[str]:
    """The frames as /proc/PID/stack shows them: without the scheduler's own."""
    start, end = kernel.address("__sched_text_start"), kernel.address("__sched_text_end")
    assert start is not None
    assert end is not None
    lines = []
    for frame in stack.stack.frames:
        if not start <= frame.ip < end:
            symbol = kernel.symbol(frame.ip)
            assert symbol is not None
            lines.append(f"{symbol.name}+{frame.ip - symbol.address:#x}")
    return lines


def stacks_of_the_guest(machine: GuestMachine) -> dict[int, list[str]]:
    """What /proc/PID/stack says, by pid."""
    said = machine.shell('for t in /proc/[0-9]*; do echo "== ${t#/proc/}"; cat $t/stack 2>/dev/null; done')
    parts = [part.partition("\n") for part in said.split("== ")[1:]]
    return {int(pid): re.findall(r"^\[<0>\] (\S+?)/", lines, re.MULTILINE) for pid, _, lines in parts}


def test_every_sleeping_tasks_stack_is_what_its_kernel_says(guest_machine: GuestMachine) -> None:
    """Name and offset of every frame, reliable, for every task that slept through both looks: but for the shell that was asked, all do."""
    with looked_at(guest_machine) as guest:
        tasks = guest.tasks
        before = {task.pid: tasks.stamp(task) for task in tasks.all()}
        truth = stacks_of_the_guest(guest_machine)
        seen: list[tuple[Task, KernelStack]] = []
        with guest.stopped():
            for task in tasks.all():
                thread = tasks.sleeping(task, snapshot=True)
                if thread is not None and before.get(task.pid) == tasks.stamp(task):
                    seen.append((task, guest.unwinder.unwind(thread, exact=False)))
        assert len(seen) > 20
        for task, stack in seen:
            assert truth[task.pid] == names(guest.kernel, stack), task
            assert (Stop.END_KERNEL_ENTRY, Verdict.RELIABLE) == (stack.stack.stop, stack.stack.judgement.verdict), task


def test_stopped_vcpus_are_unwound_to_an_entry(guest_machine: GuestMachine) -> None:
    """At any instruction of a busy kernel. Where ORC itself is wrong, within a switch between tasks, the stack is called unreliable."""
    stops: dict[tuple[int, int], tuple[Stop, Verdict]] = {}
    with looked_at(guest_machine) as guest, guest_machine.workload("kernel"):
        for _ in range(100):
            for vcpu in guest.stub.vcpus:
                sample = guest.sample(vcpu)
                if sample is not None and sample.kernel is not None:
                    # A guest that got no time in between is found where it was.
                    registers, stack = sample.state.registers, sample.kernel.stack
                    stops[registers.pc, registers.sp] = stack.stop, stack.judgement.verdict
    doubtful = [stop for stop, verdict in stops.values() if verdict is not Verdict.RELIABLE]
    assert (Stop.END_KERNEL_ENTRY, Verdict.RELIABLE) in stops.values()
    assert len(doubtful) <= 2 + 0.1 * len(stops), doubtful
    assert all(stop.is_end or verdict is Verdict.UNRELIABLE for stop, verdict in stops.values())


def test_stacks_that_cross_modules_are_as_whole_as_others(guest_machine: GuestMachine) -> None:
    """A program that writes to a virtio disk: the modules' unwind tables lie in memory of their own."""
    crossing = []
    with looked_at(guest_machine) as guest, guest_machine.workload("disk"):
        for _ in range(100):
            for vcpu in guest.stub.vcpus:
                sample = guest.sample(vcpu)
                frames = () if sample is None or sample.kernel is None else sample.kernel.stack.frames
                if sample is not None and sample.kernel is not None and any(guest.kernel.module(frame.lookup_pc) for frame in frames):
                    crossing.append(sample.kernel.stack)
    for stack in crossing:
        assert (Stop.END_KERNEL_ENTRY, Verdict.RELIABLE) == (stack.stop, stack.judgement.verdict), stack
