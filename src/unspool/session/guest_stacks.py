"""The stacks of a guest's tasks now: those that sleep without stopping the guest, those that run while their vCPU is held."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from unspool.capture.guest_decoder import preparation
from unspool.capture.guest_files import FileQueue
from unspool.capture.guest_idle import any_state
from unspool.capture.guest_opening import open_registers
from unspool.capture.guest_process import Decoder, DecoderDied
from unspool.capture.guest_wire import (
    MAX_NAMES,
    BadAnswer,
    Failed,
    GuestFrame,
    GuestModule,
    GuestStack,
    GuestTask,
    KernelFound,
    checked_kernel,
    checked_names,
    checked_stack,
    checked_tasks,
    state_to_wire,
)
from unspool.errors import BadRequest, NoSuchTarget, Unsupported
from unspool.model.module import AddressSpace
from unspool.model.stack import Frame, Stack
from unspool.model.symbol import Named, Symbol, Unnamed
from unspool.model.verdict import Judgement, Stop, Verdict
from unspool.session.guest_sources import source_of
from unspool.session.guests import GuestPlan
from unspool.session.naming import Place
from unspool.session.stacks import NamedFrame, ProcessStacks, ThreadStack
from unspool.symbols.symbolizer import Symbolizer
from unspool.targets.guest.machines import Machine
from unspool.targets.guest.opening import open_ram
from unspool.targets.guest.registers import VcpuSource, VcpuState

ASK_SECONDS = 60.0
KERNEL_SECONDS = 10.0
"""How long a guest may take until a kernel is found in it."""
_NO_KERNEL = "Try again when its kernel runs; one without names in memory needs --guest-symbols FILE."
LOOKS = 5
"""How often a task is looked at that moves between sleeping and running."""


@dataclass(frozen=True, slots=True)
class GuestProcesses:
    """The stacks of a guest: its processes in the order of their numbers."""

    guest: str
    kernel: KernelFound
    processes: tuple[ProcessStacks, ...]


def stacks_of_guest(plan: GuestPlan, pid: int | None = None, *, lines: bool = True) -> GuestProcesses:
    """Every task's stack, or those of one process; an UnspoolError when the guest cannot be read, or has no such process."""
    machines = plan.machines()
    if len(machines) != 1:
        raise BadRequest(f"{plan.wanted!r} names {len(machines)} machines", hint="Name one: `unspool guest list` shows them.")
    with contextlib.ExitStack() as held:
        # The symbolizer's worker loads while the stacks are taken.
        symbolizer = held.enter_context(Symbolizer(lines=lines))
        look = _Look(plan, machines[0], held)
        try:
            return look.all(pid, symbolizer)
        except (DecoderDied, BadAnswer) as error:
            raise Unsupported(
                f"the guest's memory could not be decoded: {error}", hint="Ask again; the guest may have been rebooting."
            ) from error


@dataclass(slots=True)
class _Module:
    described: GuestModule
    descriptor: int | None = None
    whole: bool = False


@dataclass(slots=True)
class _Names:
    """What is known of addresses: kernel functions by address, user functions by module and byte of the file."""

    kernel: dict[int, tuple[str, int]] = field(default_factory=dict)
    user: dict[tuple[int, int], Named] = field(default_factory=dict)


class _Look:
    """One look at one guest."""

    def __init__(self, plan: GuestPlan, machine: Machine, held: contextlib.ExitStack) -> None:
        self.plan = plan
        self.machine = machine
        ram = open_ram(machine, plan.memory)
        held.callback(ram.close)
        self.source: VcpuSource = open_registers(machine, plan.registers)
        held.callback(self.source.close)
        how = plan.how(1)
        self.decoder = Decoder(preparation(ram.extents(), how.symbols, how.method), ram, [] if ram.fd is None else [ram.fd])
        held.callback(self.decoder.close)
        self.modules: dict[int, _Module] = {}

    def all(self, pid: int | None, symbolizer: Symbolizer) -> GuestProcesses:
        kernel = self._kernel()
        stacks = self._stacks(pid)
        if not stacks:
            raise NoSuchTarget(f"there is no process {pid} in guest {self.machine.name!r}" if pid else "the guest shows no tasks")
        names = self._names(stacks, symbolizer)
        groups: dict[int, list[GuestStack]] = {}
        for stack in stacks:
            groups.setdefault(stack.task.tgid, []).append(stack)
        processes = (
            ProcessStacks(tgid, group[0].task.name, tuple(self._thread(stack, names) for stack in group), AddressSpace.of(()))
            for tgid, group in sorted(groups.items())
        )
        return GuestProcesses(self.machine.name, kernel, tuple(processes))

    def _kernel(self) -> KernelFound:
        deadline = time.monotonic() + KERNEL_SECONDS
        reason = "no vCPU could be read"
        while time.monotonic() < deadline:
            state = any_state(self.source)
            if isinstance(state, str):
                raise NoSuchTarget(f"guest {self.machine.name!r}: {state}")
            if isinstance(state, VcpuState):
                found = checked_kernel(self._ask({"op": "discover", "state": state_to_wire(state)}))
                if isinstance(found, KernelFound):
                    return found
                reason = found.reason
            time.sleep(0.1)
        raise Unsupported(f"guest {self.machine.name!r}: {reason}", hint=_NO_KERNEL)

    def _stacks(self, pid: int | None) -> list[GuestStack]:
        """A stack for every task, in the order of their numbers."""
        found: dict[int, GuestStack] = {}
        tasks: dict[int, GuestTask] = {}
        for _ in range(LOOKS):
            listed = checked_tasks(self._ask({"op": "tasks"}))
            if isinstance(listed, Failed):
                raise Unsupported(f"guest {self.machine.name!r}: {listed.reason}", hint="")
            tasks = {task.pid: task for task in listed if pid is None or task.tgid == pid}
            missing = [number for number in tasks if number not in found]
            for number in missing:
                self._take(number, self._ask({"op": "task", "pid": number, "stopped": False}), found)
            if all(number in found for number in tasks):
                break
            for stack in self._running():
                if stack.task.pid in tasks:
                    found[stack.task.pid] = stack
        return [found.get(number) or _restless(task) for number, task in sorted(tasks.items())]

    def _take(self, number: int, answer: object, found: dict[int, GuestStack]) -> None:
        stack = self._checked(answer)
        if stack is not None and (stack.judgement.reason is not Stop.GUEST_RUNNING or not self.source.snapshot):
            found[number] = stack

    def _running(self) -> Iterator[GuestStack]:
        """The stacks of what the vCPUs execute at the moment."""
        for vcpu in self.source.vcpus:
            with self.source.hold(vcpu) as state:
                answer = self._ask({"op": "sample", "state": state_to_wire(state), "vcpu": vcpu}) if isinstance(state, VcpuState) else None
            stack = None if answer is None else self._checked(answer)
            if stack is not None:
                yield stack

    def _checked(self, answer: object) -> GuestStack | None:
        stack = checked_stack(answer)
        if isinstance(stack, Failed):
            return None
        for number, described in stack.modules.items():
            self.modules[number] = _Module(described)
        if any(frame.module is not None and frame.module not in self.modules for frame in stack.frames):
            raise BadAnswer("a frame in a module that was never told")
        return stack

    def _ask(self, request: dict[str, object]) -> object:
        return self.decoder.ask(request, ASK_SECONDS)

    def _names(self, stacks: list[GuestStack], symbolizer: Symbolizer) -> _Names:
        names = _Names()
        kernel = sorted({frame.ip - frame.back for stack in stacks for frame in stack.frames[: stack.kernel_frames]})
        for start in range(0, len(kernel), MAX_NAMES):
            some = kernel[start : start + MAX_NAMES]
            answers = checked_names(self._ask({"op": "names", "addresses": some}), len(some))
            names.kernel |= {address: name for address, name in zip(some, answers, strict=True) if name is not None}
        self._fetch_files()
        wanted: dict[int, set[int]] = {}
        for stack in stacks:
            for frame in stack.frames[stack.kernel_frames :]:
                if frame.module is not None and frame.offset is not None:
                    wanted.setdefault(frame.module, set()).add(frame.offset - frame.back)
        for number, offsets in wanted.items():
            module = self.modules[number]
            kept, module.descriptor = module.descriptor, None
            symbolizer.add(number, source_of(module.described, kept, self.plan.sysroot, whole=module.whole))
            ordered = sorted(offsets)
            found = symbolizer.names(number, ordered)
            names.user |= {(number, offset): named for offset, named in zip(ordered, found, strict=True)}
        self._close_files()
        return names

    def _fetch_files(self) -> None:
        queue = FileQueue()
        try:
            for number, module in self.modules.items():
                queue.want(number, module.described)
            while (request := queue.request()) is not None:
                answer = self._ask(request)
                if not (answer is None or isinstance(answer, bytes)):
                    raise BadAnswer("a file's bytes that are none")
                done = queue.take(answer)
                if done is not None:
                    number, descriptor, whole = done
                    self.modules[number].descriptor, self.modules[number].whole = descriptor, whole
        finally:
            queue.close()

    def _close_files(self) -> None:
        for module in self.modules.values():
            if module.descriptor is not None:
                os.close(module.descriptor)
                module.descriptor = None

    def _thread(self, stack: GuestStack, names: _Names) -> ThreadStack:
        frames = tuple(self._frame(frame, names, in_kernel=index < stack.kernel_frames) for index, frame in enumerate(stack.frames))
        plain = Stack(tuple(frame.frame for frame in frames), stack.stop, stack.judgement, stack.detail)
        return ThreadStack(stack.task.pid, stack.task.comm, plain, frames)

    def _frame(self, frame: GuestFrame, names: _Names, *, in_kernel: bool) -> NamedFrame:
        module = None if frame.module is None else self.modules[frame.module].described
        place = Place("" if module is None else module.path, None if frame.offset is None else frame.offset - frame.back)
        named: Named
        if in_kernel:
            known = names.kernel.get(frame.ip - frame.back)
            named = Unnamed("the guest's kernel has no symbol there") if known is None else (Symbol(*known),)
        elif frame.module is None or frame.offset is None:
            named = Unnamed("nothing is mapped there" if module is None else "memory that no file backs")
        else:
            named = names.user[frame.module, frame.offset - frame.back]
        return NamedFrame(Frame(frame.ip, 0, frame.trust, frame.exact), place, named)


def _restless(task: GuestTask) -> GuestStack:
    """The empty stack of a task that ran whenever it was looked at, and never on a vCPU that was held."""
    detail = "the task ran whenever it was looked at"
    if task.state in {"Z", "X"}:
        return GuestStack(task, (), 0, Stop.EXITED, Judgement(Verdict.NONE), "the task has ended", {})
    return GuestStack(task, (), 0, Stop.GUEST_RUNNING, Judgement(Verdict.UNRELIABLE, Stop.GUEST_RUNNING, 0, detail), detail, {})
