"""Everything an unwinder may ask of one stopped (or sampled) thread, whatever it comes from: a process, a core, a recording, a guest."""

from __future__ import annotations

from dataclasses import dataclass

from unspool.model.memory import Memory
from unspool.model.module import AddressSpace
from unspool.model.registers import Registers


@dataclass(frozen=True, slots=True)
class EntryPoints:
    """The addresses (Avma) at which a stack may end: AT_ENTRY, the interpreter's e_entry (AT_BASE + e_entry), the initial stack pointer.

    `initial_sp` is mm->start_stack (field 28 of /proc/PID/stat), which holds argc. None: the source does not know it, so that no stack
    can end by it.
    """

    process: int | None = None
    interpreter: int | None = None
    initial_sp: int | None = None


@dataclass(frozen=True, slots=True)
class Birth:
    """Where a thread on a stack of its own began, as the system call says in which its creator still waits (CLONE_VFORK: posix_spawn).

    `ip` is the address behind that system call, `sp` the first stack pointer that it gave the thread, `creator_sp` the creator's own.
    """

    ip: int
    sp: int
    creator_sp: int


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread's registers, memory and mappings.

    `snapshot`: registers and memory are of one instant (ptrace stop, core, in-kernel sample, paused vCPU: rule R1 of the reliable verdict).
    `original_returns`: the return addresses that uprobes replaced by their trampoline, innermost first; None when the source cannot
    know them.
    `shadow_stack`: the return addresses of the hardware's shadow stack, innermost first; None when there is none.
    `birth`: where the thread began, None when nobody waits for it, or the source cannot know.
    `pac_mask`: the bits of a code pointer that hold an AArch64 pointer authentication code (NT_ARM_PAC_MASK, insn mask).
    """

    registers: Registers
    memory: Memory
    space: AddressSpace
    ends: EntryPoints
    snapshot: bool = True
    original_returns: tuple[int, ...] | None = None
    shadow_stack: tuple[int, ...] | None = None
    pac_mask: int = 0
    kernel_thread: bool = False
    birth: Birth | None = None
