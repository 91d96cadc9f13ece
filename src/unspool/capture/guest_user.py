"""User stacks of a guest's threads: their registers wherever they are at that moment, and the walk with the unwind data of their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from unspool.errors import BadInput
from unspool.formats.elf import Elf
from unspool.model.explain import explain
from unspool.model.module import Mapping
from unspool.model.stack import Stack
from unspool.model.thread import Thread
from unspool.model.verdict import Judgement, Stop, Verdict
from unspool.targets.guest.kernel import GuestKernel
from unspool.targets.guest.page_cache import FileMemory, GuestFile
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.structs import MemoryStructs, TaskStructs
from unspool.targets.guest.tasks import Task
from unspool.targets.guest.user import Process, Users
from unspool.unwind.api import Unwinder
from unspool.unwind.file_sections import sections_of
from unspool.unwind.image import UnwindData, UnwindDataProvider
from unspool.unwind.kernel_walk import KernelStack

MAX_FRAMES = 4096
"""Frames of one user stack at most."""
_MAX_UNWINDERS = 64


@dataclass(frozen=True, slots=True)
class UserStack:
    """A user stack, and the process whose mappings its frames lie in."""

    stack: Stack
    process: Process


class GuestUsers:
    """Makes user stacks of one guest, and remembers what it learned of its programs."""

    def __init__(self, kernel: GuestKernel, structs: TaskStructs) -> None:
        """BadInput when the kernel's types do not say where processes keep their mappings (before Linux 6.1)."""
        if kernel.btf is None:
            raise BadInput("no type information", file="BTF")
        self.users = Users(kernel, MemoryStructs.of(kernel.btf), thread_size=structs.thread_size)
        self._unwinders: dict[int, tuple[Process, Unwinder]] = {}
        self._sections: dict[tuple[GuestFile, int, int], Sequence[UnwindData]] = {}

    def forget(self) -> None:
        """Drop the memory that was read, because the guest has run since."""
        self.users.forget()

    def on_vcpu(self, task: Task, state: VcpuState, kernel: KernelStack | None) -> UserStack | Stop:
        """The user stack of what the vCPU executes; `kernel` is its kernel stack when it is in the kernel. A Stop: there is none."""
        if kernel is None:
            return self._walked(task, lambda: self.users.on_vcpu(task, state))
        if kernel.in_entry:
            alone = len(kernel.stack.frames) == 1
            return self._walked(task, lambda: self.users.entering(task, state)) if alone else Stop.REG_UNAVAILABLE
        if kernel.stack.stop is not Stop.END_KERNEL_ENTRY:
            # It may be cut in the very code that saves the registers.
            return Stop.REG_UNAVAILABLE
        return self._walked(task, lambda: self._entered(task, kernel, fs_base=state.fs_base, snapshot=state.snapshot))

    def sleeping(self, task: Task, kernel: KernelStack, *, snapshot: bool) -> UserStack | Stop:
        """The user stack of a task that sleeps in the kernel."""
        return self._walked(task, lambda: self._entered(task, kernel, fs_base=task.fs_base, snapshot=snapshot))

    def _entered(self, task: Task, kernel: KernelStack, *, fs_base: int, snapshot: bool) -> Thread | Stop:
        """The thread that has entered the kernel, by the registers that the kernel's stack leads to, or those at its base."""
        if task.kernel_thread:
            return Stop.NO_USER_STACK
        place = kernel.user_registers
        if place is not None and kernel.partial:
            return self.users.interrupted(task, place, kernel.values, fs_base=fs_base, snapshot=snapshot)
        if place is None:
            place = self.users.at_base(task)
        return Stop.NO_USER_STACK if place is None else self.users.entered(task, place, fs_base=fs_base, snapshot=snapshot)

    def _walked(self, task: Task, find: Callable[[], Thread | Stop]) -> UserStack | Stop:
        """Walk the thread; once more when its mappings turn out to be others than those that were remembered."""
        found = self._walked_once(task, find)
        if isinstance(found, Stop) or self._holds(found):
            return found
        found = self._walked_once(task, find)
        if isinstance(found, Stop) or self._holds(found):
            return found
        return replace(found, stack=replace(found.stack, judgement=Judgement(Verdict.UNRELIABLE, Stop.MAPS_STALE, 0)))

    def _walked_once(self, task: Task, find: Callable[[], Thread | Stop]) -> UserStack | Stop:
        thread = find()
        if isinstance(thread, Stop):
            return thread
        process = self.users.process(task.mm)
        if process is None:
            return Stop.GUEST_PT
        stack = self._unwinder(process).unwind(thread, MAX_FRAMES)
        return UserStack(stack if thread.snapshot else _of_moving_guest(stack), process)

    def _holds(self, found: UserStack) -> bool:
        return self.users.holds(found.process, (frame.lookup_pc for frame in found.stack.frames))

    def _unwinder(self, process: Process) -> Unwinder:
        known = self._unwinders.get(process.mm)
        if known is not None and known[0] is process:
            return known[1]
        if len(self._unwinders) >= _MAX_UNWINDERS:
            self._unwinders.clear()
        unwinder = Unwinder(unwind_data=self._provider(process))
        self._unwinders[process.mm] = (process, unwinder)
        return unwinder

    def _provider(self, process: Process) -> UnwindDataProvider:
        """Unwind data out of the page cache, where the process's memory does not lead to it."""

        def provide(mapping: Mapping) -> Sequence[UnwindData]:
            file = process.file(mapping)
            if file is None:
                return ()
            key = (file, mapping.start, mapping.offset)
            if key not in self._sections:
                if len(self._sections) >= _MAX_UNWINDERS:
                    self._sections.clear()
                try:
                    found = list(sections_of(Elf(FileMemory(self.users.cache, file), file=file.path), mapping))
                except BadInput:
                    # Perhaps not all of it is in memory yet.
                    return ()
                # The same objects for every process: what they say is worked out once (`unwind.image`).
                self._sections[key] = found
            return self._sections[key]

        return provide


def _of_moving_guest(stack: Stack) -> Stack:
    """The stack with the one reason that counts where registers and memory are of two moments, as its kernel part has it."""
    sentence = explain(Stop.GUEST_RUNNING).meaning
    return replace(stack, judgement=Judgement(Verdict.UNRELIABLE, Stop.GUEST_RUNNING, 0, sentence))
