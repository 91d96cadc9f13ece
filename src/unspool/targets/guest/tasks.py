"""The tasks of a guest's kernel: which one a vCPU runs, all that there are, and the kernel stacks of both as threads to unwind.

Everything is read out of the guest, which may be damaged or hostile: lists end at a bound or where they come back to themselves, and what
cannot be read is None.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from unspool.formats.btf import Btf
from unspool.formats.kallsyms import KernelSymbol
from unspool.model.arch import X86_64
from unspool.model.module import AddressSpace, Mapping
from unspool.model.registers import Registers
from unspool.model.thread import EntryPoints, Thread
from unspool.targets.guest.kernel_memory import KernelMemory
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.structs import TaskStructs

MAX_TASKS = 1 << 16
"""Tasks that one look at the list gives at most."""
MAX_SEARCHED = 4096
"""Tasks that are looked at for the one whose stack a vCPU is on, while that vCPU may be held."""
KERNEL_FILE = "[guest.kernel]"
"""The path of the kernel's mapping; a module's is `[guest.NAME]`."""
TASK_STACK, IRQ_STACK, EXCEPTION_STACK, ENTRY_STACK = "[task stack]", "[irq stack]", "[exception stack]", "[entry stack]"
PT_REGS_SIZE = 168

_COMM_SIZE = 16
_PF_KTHREAD = 0x0020_0000
_KERNEL_HALF = 1 << 63
_IRQ_STACK_SIZE = 16 << 10
# arch/x86/include/asm/pgtable_areas.h: the read-only IDT, then an area for each CPU.
_ENTRY_AREAS = 0xFFFF_FE00_0000_1000
# struct inactive_task_frame (arch/x86/include/asm/switch_to.h): r15 r14 r13 r12 bx bp, return address.
_INACTIVE = struct.Struct("<7Q")
_INACTIVE_REGISTERS = (15, 14, 13, 12, 3, 6)
# linux/sched.h: TASK_* and EXIT_* bits, and the letters that ps shows.
_STATES = ((0x402, "I"), (0x1, "S"), (0x2, "D"), (0x4, "T"), (0x8, "t"), (0x40, "P"))
_EXIT_ZOMBIE, _EXIT_DEAD = 0x20, 0x10
_TASK_BITS = 0x7F


class Kernel(Protocol):
    """What is needed of a guest's kernel; `unspool.targets.guest.kernel.GuestKernel` is one."""

    memory: KernelMemory

    @property
    def btf(self) -> Btf | None:
        """The kernel's types."""

    @property
    def base(self) -> int:
        """Where its image begins."""

    @property
    def end(self) -> int:
        """Where its image ends."""

    def address(self, name: str) -> int | None:
        """The address of a symbol."""

    def per_cpu(self, cpu: int) -> int | None:
        """What is added to a per-CPU symbol's address."""

    def symbol(self, pc: int) -> KernelSymbol | None:
        """The function that holds the pc."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task, as the guest says.

    `address` is its task_struct; `pid` is the thread's number and `tgid` the process's; `comm` as the guest wrote it, decoded
    but not escaped; `mm` is 0 for kernel threads.

    `state` is the letter that ps shows. `stack` is where its kernel stack begins, `sp` where it was left when the task last slept.
    """

    address: int
    pid: int
    tgid: int
    comm: str
    mm: int
    kernel_thread: bool
    state: str
    stack: int
    sp: int
    on_cpu: bool
    fs_base: int

    @property
    def sleeps(self) -> bool:
        """Whether it waits off the CPU with its registers saved on its stack."""
        return not self.on_cpu and bool(self.stack) and self.state not in {"Z", "X"}


class Tasks:
    """The tasks of one kernel. Its memory keeps what it has read: call `kernel.forget()` before a new look."""

    def __init__(self, kernel: Kernel, structs: TaskStructs) -> None:
        """Nothing is read yet; `TaskStructs.of(kernel.btf)` gives the structs."""
        self.kernel = kernel
        self.structs = structs
        # Neither changes from boot to reboot, and a name is looked for in hundreds of kilobytes.
        self._addresses: dict[str, int | None] = {}
        self._offsets: dict[int, int] = {}
        self._stacks: dict[int, tuple[Mapping, ...]] = {}

    def current(self, cpu: int) -> Task | None:
        """The task that the CPU runs: by the kernel's per-CPU variable, and never by a GS base, which may be the user's."""
        name, offset = self.structs.current
        address = self._per_cpu(cpu, name, "const_current_task")
        pointer = None if address is None else self.kernel.memory.word(address + offset)
        return None if pointer is None else self.task(pointer)

    def on_vcpu(self, state: VcpuState, cpu: int) -> Task | None:
        """The task whose stack the vCPU is on: the current one but for some instructions of a switch from one task to the next."""
        task, sp = self.current(cpu), state.registers.values.get(X86_64.sp, 0)
        if not state.in_kernel or sp < _KERNEL_HALF:
            return task
        known = (*self._cpu_stacks(cpu), *(() if task is None else self._task_stack(task)))
        if any(sp in stack or sp - 1 in stack for stack in known):
            return task
        others = islice(self._everybody(cpu), MAX_SEARCHED)
        return next((other for other in others if 0 < sp - other.stack <= self.structs.thread_size), task)

    def task(self, address: int) -> Task | None:
        """The task at the address of its task_struct; None when there is none."""
        if address < _KERNEL_HALF or address % 8:
            return None
        at, read = self.structs, self.kernel.memory
        words = [read.word(address + offset) for offset in (at.stack, at.sp, at.fs_base, at.mm)]
        halves = [read.half(address + offset) for offset in (at.pid, at.tgid, at.flags, at.state, at.exit_state)]
        comm = read.read(address + at.comm, _COMM_SIZE)
        on_cpu = self._on_cpu(address)
        if comm is None or on_cpu is None or None in words or None in halves:
            return None
        stack, sp, fs_base, mm = (word or 0 for word in words)
        pid, tgid, flags, state, exit_state = (half or 0 for half in halves)
        name = comm.partition(b"\0")[0].decode("utf-8", "backslashreplace")
        letter = _letter(state, exit_state)
        return Task(address, pid, tgid, name, mm, bool(flags & _PF_KTHREAD), letter, stack, sp, bool(on_cpu), fs_base)

    def all(self) -> Iterator[Task]:
        """Every task, each process followed by its other threads, in the order of the kernel's list; the idle tasks are not on it."""
        head = self._address("init_task")
        if head is None:
            return
        seen: set[int] = {head}
        for leader in self._list(head + self.structs.tasks, self.structs.tasks, seen):
            yield leader
            signal = self.kernel.memory.word(leader.address + self.structs.signal)
            if signal is not None and signal >= _KERNEL_HALF:
                yield from self._list(signal + self.structs.thread_head, self.structs.thread_node, seen)

    def stamp(self, task: Task) -> tuple[int | None, ...]:
        """What changes whenever the task runs. Equal before and after a look (with `kernel.forget()` between): it slept all the while."""
        read, at = self.kernel.memory, self.structs
        switches = (read.word(task.address + offset) for offset in at.switches or ())
        return (read.word(task.address + at.sp), read.word(task.address + at.stack), self._on_cpu(task.address), *switches)

    def running(self, state: VcpuState, task: Task | None, cpu: int) -> Thread:
        """The kernel stack of a vCPU that executes kernel code, for the task that `on_vcpu` gives (None: only the CPU's stacks count)."""
        mappings = (*self._cpu_stacks(cpu), *(() if task is None else self._task_stack(task)))
        return Thread(state.registers, self.kernel.memory, self._space(mappings), EntryPoints(), snapshot=state.snapshot)

    def sleeping(self, task: Task, *, snapshot: bool) -> Thread | None:
        """The kernel stack of a task that is on no CPU; its pc is a return address. None when it has no saved registers.

        `snapshot`: the task cannot have run meanwhile (all vCPUs stand still, or its `stamp` stays the same).
        """
        now = self.task(task.address)
        if now is None or now.pid != task.pid:
            return None
        # It may have run since it was listed, and then what was read of it does not fit its stack any more.
        task = now
        inside = task.stack <= task.sp <= task.stack + self.structs.thread_size - _INACTIVE.size
        data = self.kernel.memory.read(task.sp, _INACTIVE.size) if task.sleeps and inside else None
        if data is None:
            return None
        *saved, ip = _INACTIVE.unpack(data)
        values = dict(zip(_INACTIVE_REGISTERS, saved, strict=True)) | {X86_64.sp: task.sp + _INACTIVE.size}
        return Thread(
            Registers(X86_64, ip, values), self.kernel.memory, self._space(self._task_stack(task)), EntryPoints(), snapshot=snapshot
        )

    def _on_cpu(self, address: int) -> int | None:
        """Not 0 while the task is on a CPU; the member is an int up to Linux 6.x, and a byte since."""
        if self.structs.on_cpu is None:
            return 0
        offset, size = self.structs.on_cpu
        data = self.kernel.memory.read(address + offset, size)
        return None if data is None else int.from_bytes(data, "little")

    def _list(self, head: int, node: int, seen: set[int]) -> Iterator[Task]:
        """The tasks on a list_head whose node lies at that offset, those in `seen` left out; it ends where it breaks."""
        at = self.kernel.memory.word(head)
        steps = 0
        while at and at != head and steps < MAX_TASKS and len(seen) < MAX_TASKS:
            steps += 1
            address = at - node
            task = self.task(address)
            if task is None:
                return
            if address not in seen:
                seen.add(address)
                yield task
            elif node == self.structs.tasks:
                # A process that comes again: the list goes in circles.
                return
            at = self.kernel.memory.word(at)

    def _everybody(self, cpu: int) -> Iterator[Task]:
        """Every task, the CPU's idle task first."""
        idle = self._word_per_cpu(cpu, "idle_threads", 0)
        task = None if idle is None else self.task(idle)
        yield from () if task is None else (task,)
        yield from self.all()

    def _per_cpu(self, cpu: int, *names: str) -> int | None:
        """The address of the CPU's own copy of the first of these variables that there is."""
        address = next((found for name in names if (found := self._address(name)) is not None), None)
        if cpu not in self._offsets:
            offset = self.kernel.per_cpu(cpu)
            if offset is None:
                return None
            self._offsets[cpu] = offset
        return None if address is None else (address + self._offsets[cpu]) & ((1 << 64) - 1)

    def _address(self, name: str) -> int | None:
        if name not in self._addresses:
            self._addresses[name] = self.kernel.address(name)
        return self._addresses[name]

    def _space(self, stacks: tuple[Mapping, ...]) -> AddressSpace:
        kernel = _mapping(self.kernel.base, self.kernel.end, KERNEL_FILE, executable=True)
        return AddressSpace.of((kernel, *stacks))

    def _task_stack(self, task: Task) -> tuple[Mapping, ...]:
        end = task.stack + self.structs.thread_size
        return (_mapping(task.stack, end, TASK_STACK),) if task.stack >= _KERNEL_HALF and end < 1 << 64 else ()

    def _cpu_stacks(self, cpu: int) -> tuple[Mapping, ...]:
        """The stacks of interrupts, exceptions and entries; they stay where they are while the CPU is up."""
        known = self._stacks.get(cpu)
        if known is None:
            known = self._read_stacks(cpu)
            if any(stack.path == IRQ_STACK for stack in known):
                self._stacks[cpu] = known
        return known

    def _read_stacks(self, cpu: int) -> tuple[Mapping, ...]:
        """Where the kernel looks for them (arch/x86/kernel/dumpstack_64.c)."""
        found = []
        name, offset = self.structs.irq_stack
        pointer = self._word_per_cpu(cpu, name, offset)
        if pointer is not None:
            # It points at the topmost word.
            found.append((pointer + 8 - _IRQ_STACK_SIZE, _IRQ_STACK_SIZE, IRQ_STACK))
        area = self._word_per_cpu(cpu, "cea_exception_stacks", 0)
        if area is not None:
            found += [(area + offset, size, EXCEPTION_STACK) for offset, size in self.structs.exception_stacks]
        if self.structs.entry_stack is not None:
            offset, size = self.structs.entry_stack
            found.append((_ENTRY_AREAS + self._entry_area(cpu) * self.structs.entry_area + offset, size, ENTRY_STACK))
        return tuple(_mapping(start, start + size, name) for start, size, name in found if start >= _KERNEL_HALF and start + size < 1 << 64)

    def _entry_area(self, cpu: int) -> int:
        """The number of the CPU's entry area: its own, or drawn at random since Linux 6.2."""
        address = self._per_cpu(cpu, "_cea_offset")
        drawn = None if address is None else self.kernel.memory.half(address)
        return cpu if drawn is None else drawn

    def _word_per_cpu(self, cpu: int, name: str, offset: int) -> int | None:
        address = self._per_cpu(cpu, name)
        return None if address is None else self.kernel.memory.word(address + offset)


def _mapping(start: int, end: int, path: str, *, executable: bool = False) -> Mapping:
    return Mapping(start, end, readable=True, writable=not executable, executable=executable, offset=0, path=path)


def _letter(state: int, exit_state: int) -> str:
    """The letter of a task's state."""
    if exit_state & (_EXIT_ZOMBIE | _EXIT_DEAD):
        return "Z" if exit_state & _EXIT_ZOMBIE else "X"
    if not state & _TASK_BITS:
        return "R"
    return next((letter for bits, letter in _STATES if state & bits == bits), "?")
