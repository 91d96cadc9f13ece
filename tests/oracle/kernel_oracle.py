"""A guest of one vCPU that is stepped through its kernel, with the walk asked for the stack before each instruction."""

from __future__ import annotations

import contextlib
import math
import os
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from guest_machines import GuestMachine
from oracle.kernel_score import Function, Tally, Told
from oracle.kernel_stepper import Stepper, Stub
from oracle.kernel_truth import PT_REGS, Region, Tracker, regions

from unspool.model.arch import X86_64
from unspool.targets.guest.gdbstub import parse_registers
from unspool.targets.guest.kernel import GuestKernel, discover
from unspool.targets.guest.layout import Extent
from unspool.targets.guest.ram import Ram
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.structs import TaskStructs
from unspool.targets.guest.tasks import Tasks
from unspool.unwind.call_site import is_call_site
from unspool.unwind.kernel_walk import TASK_STACK, KernelStack, KernelUnwinder

UNIFORM_EVERY = 101
_FURTHER = 4
_IRET = struct.Struct("<5Q")
_PT_REGS_IP = 128


@dataclass(slots=True)
class Oracle:
    """The guest, which stands still, with its kernel made out. Each instruction is asked about `per_pc` times at most."""

    stub: Stub
    kernel: GuestKernel
    tasks: Tasks
    unwinder: KernelUnwinder
    per_pc: int = 2
    seen: Counter[int] = field(default_factory=Counter)
    _names: dict[int, Function | None] = field(default_factory=dict)

    def trace(self, stepper: Stepper, steps: int, until: float = math.inf) -> tuple[Tally, Tracker]:
        """Follow so many instructions and more until the stack's outer end is known, and judge what the walk said before each.

        `until`: the moment of the monotonic clock to end at the latest.
        """
        if self.kernel.refresh():
            # As the product does it when modules or BPF programs have come or gone.
            self.unwinder = KernelUnwinder(self.kernel)
            self._names.clear()
        tracker = Tracker(_Fresh(self.kernel), self._regions(stepper.vcpu()), self._may_return_to, saved=PT_REGS + self._padding())
        told: list[Told] = []
        while not stepper.lost and time.monotonic() < until:
            if tracker.steps >= (steps if tracker.chain.base.closed else _FURTHER * steps):
                break
            before, code = stepper.instant, stepper.code()
            if not before.user:
                told += self._asked(stepper, tracker)
            unseen = stepper.unseen
            tracker.follow(before, stepper.step(code), code)
            if stepper.unseen != unseen:
                tracker.forget_tasks()
        tally = Tally(steps=tracker.steps)
        for one in told:
            tally.add(one, self.function, decided=one.state.decided(tracker.steps))
        for one in self._sleepers(tracker):
            tally.add_sleeper(one, self.function)
        return tally, tracker

    def function(self, pc: int) -> Function | None:
        """The function that holds the pc."""
        if pc not in self._names:
            symbol = self.kernel.symbol(pc)
            self._names[pc] = None if symbol is None else (symbol.module, symbol.name.partition(".cold")[0])
        return self._names[pc]

    def place(self, ip: int) -> str:
        """The address as name and offset."""
        symbol = self.kernel.symbol(ip) or self.kernel.symbol(ip - 1)
        return hex(ip) if symbol is None else f"{symbol.name}+{ip - symbol.address:#x}"

    def _asked(self, stepper: Stepper, tracker: Tracker) -> Iterator[Told]:
        """The answer for this moment, if it is one to ask about."""
        pc = stepper.instant.pc
        uniform, per_pc = tracker.steps % UNIFORM_EVERY == 0, self.seen[pc] < self.per_pc
        if uniform or per_pc:
            self.seen[pc] += per_pc
            self.kernel.forget()
            state = stepper.vcpu()
            answer = self.unwinder.unwind(self.tasks.running(state, self.tasks.on_vcpu(state, 0), 0))
            yield Told.of(tracker.state(pc), answer, self._user(answer), uniform=uniform, per_pc=per_pc)

    def _sleepers(self, tracker: Tracker) -> Iterator[Told]:
        """The answers for the tasks that the trace has left asleep."""
        states = dict(tracker.asleep())
        self.kernel.forget()
        for task in self.tasks.all() if states else ():
            thread = self.tasks.sleeping(task, snapshot=True)
            state = states.get(task.sp)
            if thread is not None and state is not None:
                answer = self.unwinder.unwind(thread, exact=False)
                yield Told.of(state, answer, self._user(answer), uniform=False, per_pc=False)

    def _user(self, answer: KernelStack) -> tuple[int, int] | None:
        """The user's pc and stack pointer that the walk leads to."""
        if answer.user_registers is None:
            return None
        data = self.kernel.memory.read(answer.user_registers + (0 if answer.partial else _PT_REGS_IP), _IRET.size)
        if data is None:
            return None
        ip, _, _, sp, _ = _IRET.unpack(data)
        return ip, sp

    def _regions(self, state: VcpuState) -> Callable[[int], Region | None]:
        space = self.tasks.running(state, None, 0).space
        stacks = [mapping for mapping in space.mappings if mapping.path.endswith("stack]") and mapping.path != TASK_STACK]
        return regions([Region(mapping.start, mapping.end, task=False) for mapping in stacks], self.tasks.structs.thread_size)

    def _padding(self) -> int:
        """Two words above the saved registers, where the kernel can be entered by FRED (arch/x86/include/asm/thread_info.h)."""
        return 16 if self.kernel.address("asm_fred_entrypoint_user") is not None else 0

    def _may_return_to(self, address: int) -> bool:
        symbol = self.kernel.symbol(address)
        forked = symbol is not None and symbol.address == address and symbol.name.startswith("ret_from_fork")
        return forked or is_call_site(self.kernel.memory, address, X86_64)


@contextlib.contextmanager
def attached(machine: GuestMachine, size: int = 256 << 20) -> Iterator[Oracle]:
    """The guest, stopped, with its kernel made out."""
    folder = Path(f"/proc/{machine.pid}/fd")
    shared = next(entry for entry in folder.iterdir() if "memfd:" in str(entry.readlink()))
    ram = Ram.of_file(os.open(shared, os.O_RDONLY), [Extent(0, size, 0)], "memfd")
    with contextlib.closing(ram), Stub(machine.gdb) as stub:
        kernel = discover(ram, parse_registers(stub.registers()))
        assert isinstance(kernel, GuestKernel), kernel
        assert kernel.btf is not None
        yield Oracle(stub, kernel, Tasks(kernel, TaskStructs.of(kernel.btf)), KernelUnwinder(kernel))


class _Fresh:
    """The kernel's memory as it is at this very step."""

    def __init__(self, kernel: GuestKernel) -> None:
        self.kernel = kernel

    def read(self, address: int, size: int) -> bytes | None:
        self.kernel.forget()
        return self.kernel.memory.read(address, size)
