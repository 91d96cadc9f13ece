"""User threads of a guest, to be unwound like any other thread: registers, the process's memory, its mappings, and where stacks may end.

Memory is read through the process's own page tables; pages of files that are not mapped at the moment come out of the page cache.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from unspool.errors import BadInput
from unspool.formats.auxv import AuxType, parse_auxv
from unspool.formats.elf import Elf
from unspool.formats.kallsyms import KernelSymbol
from unspool.formats.paging import PAGE, PageTables
from unspool.model.arch import X86_64
from unspool.model.module import AddressSpace
from unspool.model.module import Mapping as Mapped
from unspool.model.registers import Registers
from unspool.model.thread import EntryPoints, Thread
from unspool.model.verdict import Stop
from unspool.targets.guest.kernel_memory import KernelMemory
from unspool.targets.guest.maps import Maps
from unspool.targets.guest.page_cache import GuestFile, PageCache
from unspool.targets.guest.pages import PagedMemory
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.structs import MemoryStructs
from unspool.targets.guest.tasks import PT_REGS_SIZE, Task

MAX_PROCESSES = 1024
"""Processes whose mappings are remembered."""
_KERNEL_HALF = 1 << 63
_PT_REGS = struct.Struct("<21Q")
# r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di, by DWARF number (arch/x86/include/asm/ptrace.h).
_PT_REGS_ORDER = (15, 14, 13, 12, 6, 3, 11, 10, 9, 8, 0, 2, 1, 4, 5)
_IP, _CS, _FLAGS, _SP, _SS = range(16, 21)
_IRET = struct.Struct("<5Q")
# With FRED the processor pushes two words more below the top of the stack (arch/x86/include/asm/thread_info.h).
_PADDINGS = (0, 16)
_RCX = 2
_IRET_RETURNS = ("swapgs_restore_regs_and_return_to_usermode", "common_interrupt_return")
_SYSCALL_ENTRIES = ("entry_SYSCALL_64", "entry_SYSRETQ")
_USER_CS, _USER_RPL, _COMPAT_CS = 0x33, 3, 0x23
_VMEMMAP = {4: 0xFFFF_EA00_0000_0000, 5: 0xFFD4_0000_0000_0000}
_MAX_VDSO = 1 << 16


class Kernel(Protocol):
    """What is needed of a guest's kernel; `unspool.targets.guest.kernel.GuestKernel` is one."""

    memory: KernelMemory

    def address(self, name: str) -> int | None:
        """The address of a symbol."""

    def symbol(self, pc: int) -> KernelSymbol | None:
        """The function that holds the pc."""

    def space(self, root: int) -> PageTables:
        """The address space under a top table."""


@dataclass(slots=True)
class Process:
    """One process of a guest: what its threads share. `files` are the files by the start of their mapping.

    `space` stays the same object as long as the mappings are the same: what an unwinder learned of the code stays good so long.
    """

    mm: int
    fingerprint: tuple[int | None, ...]
    space: AddressSpace
    files: dict[int, GuestFile]
    memory: UserMemory
    ends: EntryPoints

    def file(self, mapping: Mapped) -> GuestFile | None:
        """The file behind a mapping of this process."""
        return self.files.get(mapping.start)


class Users:
    """The user threads of one guest. Memory that was read is kept: call `forget` before a new look."""

    def __init__(self, kernel: Kernel, structs: MemoryStructs, *, thread_size: int) -> None:
        """`MemoryStructs.of(kernel.btf)` and `TaskStructs.thread_size`."""
        self.kernel = kernel
        self.structs = structs
        self.maps = Maps(kernel.memory, structs)
        self.cache = PageCache(kernel.memory, structs, _page_structs(kernel))
        self._thread_size = thread_size
        self._processes: dict[int, Process] = {}

    def forget(self) -> None:
        """Drop the memory that was read of the processes, because the guest has run since (the kernel's own: `kernel.forget`)."""
        for process in self._processes.values():
            process.memory.forget()

    def on_vcpu(self, task: Task, state: VcpuState) -> Thread | Stop:
        """The user thread that a vCPU executes at this moment, or why there is none to unwind."""
        if state.cpl != _USER_RPL:
            return Stop.NO_USER_STACK
        if state.cs & ~_USER_RPL == _COMPAT_CS & ~_USER_RPL:
            return Stop.UNSUPPORTED_RULE
        return self._thread(task, state.registers, snapshot=state.snapshot)

    def entered(self, task: Task, saved: int, *, fs_base: int, snapshot: bool) -> Thread | Stop:
        """The user thread that has entered the kernel: its registers lie in the `struct pt_regs` at `saved`."""
        data = self.kernel.memory.read(saved, _PT_REGS.size)
        if data is None:
            return Stop.MEM_FAULT
        words = _PT_REGS.unpack(data)
        if not _is_user(words[_CS], words[_SS]):
            return Stop.NO_USER_STACK
        if words[_CS] & 0xFFFF == _COMPAT_CS:
            return Stop.UNSUPPORTED_RULE
        values = dict(zip(_PT_REGS_ORDER, words, strict=False)) | {X86_64.sp: words[_SP]}
        return self._thread(task, Registers(X86_64, words[_IP], values, fs_base), snapshot=snapshot)

    def interrupted(self, task: Task, saved: int, values: Mapping[int, int], *, fs_base: int, snapshot: bool) -> Thread | Stop:
        """The user thread of whose registers only the processor's five words are saved yet; `values` are the others, still in place."""
        data = self.kernel.memory.read(saved, _IRET.size)
        if data is None:
            return Stop.MEM_FAULT
        ip, cs, _, sp, ss = _IRET.unpack(data)
        if not _is_user(cs, ss):
            return Stop.NO_USER_STACK
        if cs & 0xFFFF == _COMPAT_CS:
            return Stop.UNSUPPORTED_RULE
        return self._thread(task, Registers(X86_64, ip, dict(values) | {X86_64.sp: sp}, fs_base), snapshot=snapshot)

    def entering(self, task: Task, state: VcpuState) -> Thread | Stop:
        """The user thread of a vCPU that is in the kernel's entry code, where registers are not saved yet, or not any more.

        Between SYSCALL and the switch of stacks, and again before SYSRET, rsp is the user's and rcx holds the user's rip. The code that
        returns by IRET still has at the base of the kernel's stack what it returns to. Elsewhere what lies there may be of the entry before
        this one: REG_UNAVAILABLE.
        """
        registers = state.registers
        symbol = self.kernel.symbol(registers.pc)
        if symbol is not None and symbol.name.startswith(_IRET_RETURNS) and (place := self.at_base(task)) is not None:
            return self.entered(task, place, fs_base=state.fs_base, snapshot=state.snapshot)
        sp, ip = registers.values.get(X86_64.sp, _KERNEL_HALF), registers.values.get(_RCX, _KERNEL_HALF)
        if symbol is None or not symbol.name.startswith(_SYSCALL_ENTRIES) or max(sp, ip) >= _KERNEL_HALF:
            return Stop.REG_UNAVAILABLE
        return self._thread(task, replace(registers, pc=ip), snapshot=state.snapshot)

    def at_base(self, task: Task) -> int | None:
        """Where the registers of user mode lie at the base of the task's kernel stack; None when there are none that look like it."""
        for padding in _PADDINGS:
            place = task.stack + self._thread_size - padding - PT_REGS_SIZE
            data = self.kernel.memory.read(place, _PT_REGS.size) if task.stack >= _KERNEL_HALF else None
            if data is not None and _is_user((words := _PT_REGS.unpack(data))[_CS], words[_SS]):
                return place
        return None

    def process(self, mm: int) -> Process | None:
        """The process with that `struct mm_struct`, None when there is none."""
        if mm < _KERNEL_HALF or mm % 8:
            return None
        fingerprint = self._fingerprint(mm)
        known = self._processes.get(mm)
        if known is not None and known.fingerprint == fingerprint:
            return known
        if len(self._processes) >= MAX_PROCESSES:
            self._processes.clear()
        process = self._read(mm, fingerprint)
        if process is None:
            self._processes.pop(mm, None)
        else:
            self._processes[mm] = process
        return process

    def holds(self, process: Process, addresses: Iterable[int]) -> bool:
        """Whether the mappings at these addresses are still those that `process.space` has; if not, it is forgotten.

        The fingerprint does not show every change: a file may be mapped in the place of one of the same size.
        """
        seen: set[int] = set()
        for address in addresses:
            mapping = process.space.find(address)
            if mapping is None or mapping.start in seen:
                continue
            seen.add(mapping.start)
            now = self.maps.find(process.mm, address)
            same = now is not None and (now.start, now.end) == (mapping.start, mapping.end)
            pages = None if now is None or not now.file else self.maps.pages_of(now.file)
            known = process.files.get(mapping.start)
            if not same or pages != (None if known is None else known.pages):
                self._processes.pop(process.mm, None)
                return False
        return True

    def elf_bytes(self, file: GuestFile) -> bytes | None:
        """The whole file, when the guest has all of it in memory."""
        return self.cache.whole(file)

    def _thread(self, task: Task, registers: Registers, *, snapshot: bool) -> Thread | Stop:
        if task.kernel_thread or not task.mm:
            return Stop.NO_USER_STACK
        process = self.process(task.mm)
        if process is None:
            return Stop.GUEST_PT
        return Thread(registers, process.memory, process.space, process.ends, snapshot=snapshot)

    def _fingerprint(self, mm: int) -> tuple[int | None, ...]:
        """What almost every change of the mappings changes."""
        at, read = self.structs, self.kernel.memory
        words = (read.word(mm + place) for place in (at.pgd, at.tree + at.tree_root, at.start_stack, at.brk, at.start_brk))
        counters = (read.read(mm + place, size) for place, size in at.counters)
        return (*words, *(None if data is None else int.from_bytes(data, "little") for data in counters))

    def _read(self, mm: int, fingerprint: tuple[int | None, ...]) -> Process | None:
        pgd = self.kernel.memory.word(mm + self.structs.pgd)
        root = None if pgd is None else self.kernel.memory.tables.translate(pgd)
        if root is None:
            return None
        space, files = self.maps.space(mm)
        if not space.mappings:
            return None
        memory = UserMemory(self.kernel.space(root.pa), space, files, self.cache, self._vdso(mm))
        return Process(mm, fingerprint, space, files, memory, self._ends(mm, memory))

    def _ends(self, mm: int, memory: UserMemory) -> EntryPoints:
        offset, size = self.structs.saved_auxv
        auxv = self.kernel.memory.read(mm + offset, size)
        values = {} if auxv is None else parse_auxv(auxv)
        base, interpreter = values.get(AuxType.BASE), None
        if base:
            try:
                interpreter = (base + Elf(memory, base=base, image=True).entry) % (1 << 64)
            except BadInput:
                interpreter = None
        initial = self.kernel.memory.word(mm + self.structs.start_stack)
        return EntryPoints(values.get(AuxType.ENTRY) or None, interpreter, initial or None)

    def _vdso(self, mm: int) -> tuple[int, bytes] | None:
        """Where the vDSO is mapped, and its image as the kernel holds it (arch/x86/include/asm/vdso.h: data, size)."""
        at, read = self.structs, self.kernel.memory
        place, image = read.word(mm + at.vdso), read.word(mm + at.vdso_image)
        if not place or not image:
            return None
        data, size = read.word(image), read.word(image + 8)
        text = read.read(data, size) if data and size and size <= _MAX_VDSO else None
        return None if text is None else (place, text)


class UserMemory(PagedMemory):
    """A process's memory as a `model.Memory`: what is mapped at the moment, or in the page cache. Kept until `forget`."""

    def __init__(
        self, tables: PageTables, space: AddressSpace, files: dict[int, GuestFile], cache: PageCache, vdso: tuple[int, bytes] | None
    ) -> None:
        """`tables` are the process's own; `vdso` is where the vDSO lies, and its bytes."""
        super().__init__()
        self._tables = tables
        self._space = space
        self._files = files
        self._cache = cache
        self._vdso = vdso

    def forget(self) -> None:
        """Drop every page and table that was read."""
        super().forget()
        self._tables.forget()

    def _read_page(self, address: int) -> bytes | None:
        mapping = self._space.find(address)
        if mapping is None or not 0 <= address < _KERNEL_HALF:
            return None
        where = self._tables.translate(address)
        if where is not None:
            return self._cache.memory.physical.read(where.pa, PAGE) if where.user else None
        file = self._files.get(mapping.start)
        if file is not None and self._tables.is_empty(address):
            # Of a private mapping too: a page that the process has changed is in the tables, or its entry says where it was swapped to.
            return self._cache.page(file, mapping.file_offset(address) // PAGE)
        if self._vdso is not None and mapping.path == "[vdso]":
            offset = address - self._vdso[0]
            page = self._vdso[1][offset : offset + PAGE] if offset >= 0 else b""
            return page if len(page) == PAGE else None
        return None


def _page_structs(kernel: Kernel) -> int:
    """Where the array of `struct page` begins: a variable where memory is laid out at random, else a constant."""
    address = kernel.address("vmemmap_base")
    value = None if address is None else kernel.memory.word(address)
    return _VMEMMAP[kernel.memory.tables.levels] if value is None else value


def _is_user(cs: int, ss: int) -> bool:
    return cs & _USER_RPL == _USER_RPL and ss & _USER_RPL == _USER_RPL and cs & 0xFFFF in {_USER_CS, _COMPAT_CS}
