"""The stacks of a real guest's tasks, against what its own kernel says of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_machines import GuestMachine

from unspool.model.verdict import Stop, Verdict
from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.gdbstub import GdbStub
from unspool.targets.guest.kernel import GuestKernel, discover
from unspool.targets.guest.layout import Extent
from unspool.targets.guest.ram import Ram
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.structs import TaskStructs
from unspool.targets.guest.tasks import Task, Tasks
from unspool.unwind.kernel_walk import KernelStack, KernelUnwinder

pytestmark = pytest.mark.live
RAM_SIZE = 256 << 20


@pytest.fixture
def ram(guest_machine: GuestMachine) -> Iterator[Ram]:
    """The guest's memory, which QEMU shares."""
    folder = Path(f"/proc/{guest_machine.pid}/fd")
    shared = next(entry for entry in folder.iterdir() if "memfd:" in str(entry.readlink()))
    ram = Ram.of_file(os.open(shared, os.O_RDONLY), [Extent(0, RAM_SIZE, 0)], "memfd")
    try:
        yield ram
    finally:
        ram.close()


@pytest.fixture
def stub(guest_machine: GuestMachine) -> Iterator[GdbStub]:
    """Its registers."""
    stub = GdbStub.open(Endpoint(path=str(guest_machine.gdb)))
    try:
        yield stub
    finally:
        stub.close()


def found(ram: Ram, stub: GdbStub) -> GuestKernel:
    """The kernel that the guest runs."""
    with stub.hold(0) as state:
        assert isinstance(state, VcpuState)
        kernel = discover(ram, state)
    assert isinstance(kernel, GuestKernel)
    return kernel


def structs(kernel: GuestKernel) -> TaskStructs:
    assert kernel.btf is not None
    return TaskStructs.of(kernel.btf)


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


def test_every_sleeping_tasks_stack_is_what_its_kernel_says(guest_machine: GuestMachine, ram: Ram, stub: GdbStub) -> None:
    """Name and offset of every frame, reliable, for every task that slept through both looks: but for the shell that was asked, all do."""
    kernel = found(ram, stub)
    tasks, unwinder = Tasks(kernel, structs(kernel)), KernelUnwinder(kernel)
    kernel.forget()
    before = {task.pid: tasks.stamp(task) for task in tasks.all()}
    truth = stacks_of_the_guest(guest_machine)
    with stub.hold(0):
        kernel.forget()
        seen: list[tuple[Task, KernelStack]] = []
        for task in tasks.all():
            thread = tasks.sleeping(task, snapshot=True)
            if thread is not None and before.get(task.pid) == tasks.stamp(task):
                seen.append((task, unwinder.unwind(thread, exact=False)))
    assert len(seen) > 20
    for task, stack in seen:
        assert truth[task.pid] == names(kernel, stack), task
        assert (Stop.END_KERNEL_ENTRY, Verdict.RELIABLE) == (stack.stack.stop, stack.stack.judgement.verdict), task


def test_stopped_vcpus_are_unwound_to_an_entry(guest_machine: GuestMachine, ram: Ram, stub: GdbStub) -> None:
    """At any instruction of a busy kernel. Where ORC itself is wrong, within a switch between tasks, the stack is called unreliable."""
    kernel = found(ram, stub)
    tasks, unwinder = Tasks(kernel, structs(kernel)), KernelUnwinder(kernel)
    stops: dict[tuple[int, int], tuple[Stop, Verdict]] = {}
    with guest_machine.workload("kernel"):
        for _ in range(100):
            for vcpu in stub.vcpus:
                with stub.hold(vcpu) as state:
                    kernel.forget()
                    if isinstance(state, VcpuState) and state.in_kernel:
                        thread = tasks.running(state, tasks.on_vcpu(state, vcpu), vcpu)
                        stack = unwinder.unwind(thread).stack
                        # A guest that got no time in between is found where it was.
                        stops[state.registers.pc, state.registers.sp] = stack.stop, stack.judgement.verdict
    doubtful = [stop for stop, verdict in stops.values() if verdict is not Verdict.RELIABLE]
    assert (Stop.END_KERNEL_ENTRY, Verdict.RELIABLE) in stops.values()
    assert len(doubtful) <= 2 + 0.1 * len(stops), doubtful
    assert all(stop.is_end or verdict is Verdict.UNRELIABLE for stop, verdict in stops.values())
