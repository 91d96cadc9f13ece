"""A real guest as the tests of stacks look at it: its memory, its registers, its kernel, and a stack at any moment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from guest_machines import GuestMachine

from unspool.capture.guest_user import GuestUsers, UserStack
from unspool.model.verdict import Stop
from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.gdbstub import GdbStub
from unspool.targets.guest.kernel import GuestKernel, discover
from unspool.targets.guest.layout import Extent
from unspool.targets.guest.ram import Ram
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.structs import TaskStructs
from unspool.targets.guest.tasks import Task, Tasks
from unspool.unwind.kernel_walk import KernelStack, KernelUnwinder

RAM_SIZE = 256 << 20


@dataclass(slots=True)
class Sample:
    """What one look at a vCPU gave; `kernel` is None when it executed user code."""

    state: VcpuState
    task: Task | None
    kernel: KernelStack | None
    user: UserStack | Stop


@dataclass(slots=True)
class LiveGuest:
    """A guest with its kernel made out."""

    machine: GuestMachine
    stub: GdbStub
    kernel: GuestKernel
    tasks: Tasks
    unwinder: KernelUnwinder
    users: GuestUsers

    def forget(self) -> None:
        """Drop what was read of its memory."""
        self.kernel.forget()
        self.users.forget()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The whole machine stands still."""
        with self.stub.hold(self.stub.vcpus[0]) as state:
            assert isinstance(state, VcpuState), state
            self.forget()
            yield

    def sample(self, vcpu: int) -> Sample | None:
        """One look; None when the vCPU could not be had this time."""
        with self.stub.hold(vcpu) as state:
            if not isinstance(state, VcpuState):
                return None
            self.forget()
            task = self.tasks.on_vcpu(state, vcpu)
            kernel = self.unwinder.unwind(self.tasks.running(state, task, vcpu)) if state.in_kernel else None
            user = Stop.NO_USER_STACK if task is None else self.users.on_vcpu(task, state, kernel)
            return Sample(state, task, kernel, user)


@contextlib.contextmanager
def looked_at(machine: GuestMachine) -> Iterator[LiveGuest]:
    """The guest through the memory that QEMU shares, and its gdbstub."""
    folder = Path(f"/proc/{machine.pid}/fd")
    shared = next(entry for entry in folder.iterdir() if "memfd:" in str(entry.readlink()))
    with contextlib.ExitStack() as held:
        ram = Ram.of_file(os.open(shared, os.O_RDONLY), [Extent(0, RAM_SIZE, 0)], "memfd")
        held.callback(ram.close)
        stub = GdbStub.open(Endpoint(path=str(machine.gdb)))
        held.callback(stub.close)
        with stub.hold(0) as state:
            assert isinstance(state, VcpuState), state
            kernel = discover(ram, state)
        assert isinstance(kernel, GuestKernel), kernel
        assert kernel.btf is not None
        structs = TaskStructs.of(kernel.btf)
        yield LiveGuest(machine, stub, kernel, Tasks(kernel, structs), KernelUnwinder(kernel), GuestUsers(kernel, structs))
