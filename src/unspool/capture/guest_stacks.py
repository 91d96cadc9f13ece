"""Stacks of one guest's tasks: the kernel's frames and then the user's, each put into its module, with one verdict for both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from unspool.capture.guest_user import GuestUsers, UserStack
from unspool.capture.guest_wire import MAX_FILE, MAX_MODULES, GuestFrame, GuestModule, GuestStack, GuestTask
from unspool.errors import BadInput
from unspool.formats.paging import PAGE
from unspool.model.module import Mapping
from unspool.model.stack import Frame
from unspool.model.verdict import Judgement, Stop, Trust, Verdict
from unspool.targets.guest.kernel import GuestKernel
from unspool.targets.guest.kernel_modules import GuestModule as KernelModule
from unspool.targets.guest.page_cache import GuestFile
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.structs import TaskStructs
from unspool.targets.guest.tasks import KERNEL_FILE, Task, Tasks
from unspool.targets.guest.user import Process
from unspool.unwind.kernel_walk import KernelStack, KernelUnwinder

_NOBODY = GuestTask(0, 0, "?", 0, "?")
_NO_TASKS = "the kernel's types are not known, so that its tasks cannot be told"


class GuestStacks:
    """Makes stacks of one kernel; modules get numbers, and each is described with the first stack that has it."""

    def __init__(self, kernel: GuestKernel, method: Trust = Trust.ORC) -> None:
        """The tasks of that kernel, whose own frames are found by `method`."""
        self.kernel = kernel
        self._methods = frozenset({method})
        self.tasks = _tasks_of(kernel)
        self.users = _users_of(kernel, self.tasks)
        self._leader = _member(kernel, "task_struct", "group_leader")
        self._start = _member(kernel, "task_struct", "start_boottime", "real_start_time")
        self._unwinder = KernelUnwinder(kernel, self._methods)
        self._numbers: dict[object, int] = {}
        self._new: dict[int, GuestModule] = {}
        self._files: dict[int, GuestFile] = {}

    def forget(self) -> None:
        """Drop the memory that was read, because the guest has run since."""
        self.kernel.forget()
        if self.users is not None:
            self.users.forget()

    def forget_modules(self) -> None:
        """Describe every module anew with the next stack that has it."""
        self._numbers.clear()
        self._new.clear()
        self._files.clear()

    def code_changed(self) -> None:
        """Forget what was learned of the kernel's code: a module was loaded or taken out."""
        self._unwinder = KernelUnwinder(self.kernel, self._methods)

    def of_vcpu(self, state: VcpuState, vcpu: int) -> GuestStack:
        """The stack of what the vCPU executes now."""
        if self.tasks is None:
            return GuestStack(_NOBODY, (), 0, Stop.GUEST_NO_SYMS, _unreliable(Stop.GUEST_NO_SYMS), _NO_TASKS, {}, state.in_kernel)
        found = self.kernel.cpu_of(state)
        cpu = vcpu if found is None else found
        task = self.tasks.on_vcpu(state, cpu)
        kernel = self._unwinder.unwind(self.tasks.running(state, task, cpu)) if state.in_kernel else None
        user = Stop.GUEST_NO_SYMS if self.users is None or task is None else self.users.on_vcpu(task, state, kernel)
        return self._joined(task, kernel, user)

    def of_task(self, task: Task, *, stopped: bool) -> GuestStack | None:
        """The stack of a task that sleeps, None when it does not. Unless the guest is `stopped`, it must have slept all the while."""
        if self.tasks is None:
            return None
        now = self.tasks.task(task.address)
        if now is None or now.pid != task.pid:
            return None
        # It may have run another program since it was listed.
        task = now
        before = self.tasks.stamp(task)
        thread = self.tasks.sleeping(task, snapshot=True)
        if thread is None:
            return None
        kernel = self._unwinder.unwind(thread, exact=False)
        user = Stop.GUEST_NO_SYMS if self.users is None else self.users.sleeping(task, kernel, snapshot=True)
        stack = self._joined(task, kernel, user)
        if stopped:
            return stack
        self.forget()
        if self.tasks.stamp(task) == before:
            return stack
        return replace(stack, judgement=_unreliable(Stop.GUEST_RUNNING), detail="the task ran while it was looked at")

    def all_tasks(self, most: int) -> dict[int, Task]:
        """Every task by its number."""
        tasks: dict[int, Task] = {}
        for task in self.tasks.all() if self.tasks else ():
            tasks[task.pid] = task
            if len(tasks) >= most:
                break
        return tasks

    def described(self, task: Task | None) -> GuestTask:
        """The task in the words of a recording."""
        if task is None:
            return _NOBODY
        memory = self.kernel.memory
        address = None if self._leader is None or task.pid == task.tgid else memory.word(task.address + self._leader)
        leader = self.tasks.task(address) if address and self.tasks else None
        start = None if self._start is None else memory.word(task.address + self._start)
        name = task.comm if leader is None else leader.comm
        return GuestTask(_id(task.pid), _id(task.tgid), task.comm, (start or 0) & ((1 << 63) - 1), name, task.state)

    def file_bytes(self, module: int, offset: int, size: int) -> bytes | None:
        """A piece of a module's file: a byte for each page of it (1: it is there), then the bytes. None when nothing of it is there."""
        file = self._files.get(module)
        if file is None or self.users is None:
            return None
        pages = list(self.users.users.cache.piece(file, offset // PAGE, -(-size // PAGE)))
        if not any(pages):
            return None
        return bytes(page is not None for page in pages) + b"".join(page or bytes(PAGE) for page in pages)[:size]

    def _joined(self, task: Task | None, kernel: KernelStack | None, user: UserStack | Stop) -> GuestStack:
        """Kernel and user part as one stack: the first that is not to be believed decides."""
        frames: list[GuestFrame] = []
        stop, detail, judgement = Stop.NONE, "", Judgement(Verdict.NONE)
        if kernel is not None:
            frames += self._kernel_frames(kernel.stack.frames)
            stop, detail, judgement = kernel.stack.stop, kernel.stack.detail, kernel.stack.judgement
        count = len(frames)
        whole = kernel is not None and kernel.stack.stop is Stop.END_KERNEL_ENTRY
        if kernel is None or whole:
            if isinstance(user, UserStack):
                frames += self._user_frames(user.stack.frames, user.process)
                stop, detail = user.stack.stop, user.stack.detail
                if judgement.verdict is not Verdict.UNRELIABLE:
                    judgement = _shifted(user.stack.judgement, count)
            elif kernel is None or user is not Stop.NO_USER_STACK:
                stop = user
                judgement = judgement if judgement.verdict is Verdict.UNRELIABLE else _unreliable(user, count)
        modules, self._new = self._new, {}
        return GuestStack(self.described(task), tuple(frames), count, stop, judgement, detail, modules, kernel is not None, whole)

    def _kernel_frames(self, frames: Iterable[Frame]) -> Iterator[GuestFrame]:
        for frame in frames:
            if not (self.kernel.is_text(frame.lookup_pc) or self.kernel.is_init_text(frame.lookup_pc)):
                yield GuestFrame(frame.ip, frame.trust, frame.exact, None, None)
                continue
            module = self.kernel.module(frame.lookup_pc)
            key, start = ("kernel", self.kernel.base) if module is None else (module.place, module.start)
            number = self._numbers.get(key)
            if number is None:
                number = self._number(key, self._kernel_module(module))
            yield GuestFrame(frame.ip, frame.trust, frame.exact, number, max(0, frame.ip - start))

    def _kernel_module(self, module: KernelModule | None) -> GuestModule:
        if module is None:
            return GuestModule(KERNEL_FILE, self.kernel.build_id, "kernel")
        return GuestModule(f"[guest.{printable_name(module.name)}]", "", "kernel")

    def _user_frames(self, frames: Iterable[Frame], process: Process) -> Iterator[GuestFrame]:
        for frame in frames:
            mapping = process.space.find(frame.lookup_pc)
            number = None if mapping is None else self._user_module(mapping, process)
            offset = None if mapping is None or mapping.kind == "anon" else max(0, mapping.file_offset(frame.ip))
            yield GuestFrame(frame.ip, frame.trust, frame.exact, number, offset)

    def _user_module(self, mapping: Mapping, process: Process) -> int | None:
        file = process.file(mapping)
        if file is None or self.users is None:
            return self._number((mapping.path, mapping.kind), GuestModule(mapping.path[:1024], "", mapping.kind))
        number = self._numbers.get(file)
        if number is None:
            size = file.size if file.size <= MAX_FILE else 0
            path = file.path[:1024]
            number = self._number(file, GuestModule(path, self.users.users.cache.build_id(file), "file", size))
            if number is not None:
                self._files[number] = file
        return number

    def _number(self, key: object, module: GuestModule) -> int | None:
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) >= MAX_MODULES:
                return None
            number = self._numbers[key] = len(self._numbers)
            self._new[number] = module
        return number


def printable_name(name: str) -> str:
    """A kernel module's name without what a terminal would obey, and of a bounded length."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:64])


def _tasks_of(kernel: GuestKernel) -> Tasks | None:
    try:
        return None if kernel.btf is None else Tasks(kernel, TaskStructs.of(kernel.btf))
    except BadInput:
        return None


def _users_of(kernel: GuestKernel, tasks: Tasks | None) -> GuestUsers | None:
    try:
        return None if tasks is None else GuestUsers(kernel, tasks.structs)
    except BadInput:
        return None


def _member(kernel: GuestKernel, struct: str, *names: str) -> int | None:
    """The offset of the first of these members that there is."""
    if kernel.btf is None or not kernel.btf.has(struct):
        return None
    found = (kernel.btf.struct(struct).find(name) for name in names)
    return next((member.offset for member in found if member is not None), None)


def _unreliable(reason: Stop, frame: int = 0) -> Judgement:
    return Judgement(Verdict.UNRELIABLE, reason, frame)


def _shifted(judgement: Judgement, count: int) -> Judgement:
    bad = judgement.first_bad_frame
    return Judgement(judgement.verdict, judgement.reason, None if bad is None else bad + count, judgement.detail, judgement.scope)


def _id(number: int) -> int:
    """A task's number; a guest may claim anything, but a recording holds only what is one."""
    return number if 0 <= number < 1 << 31 else 0
