"""Where the child of posix_spawn began: read from the system call in which its parent waits until it has called execve or ended."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator

from unspool.model.arch import X86_64
from unspool.model.memory import Memory
from unspool.model.registers import Registers
from unspool.model.thread import Birth
from unspool.targets import procfs

# arch/x86/entry/syscalls/syscall_64.tbl
_CLONE, _CLONE3, _KCMP = 56, 435, 312
# include/uapi/linux/kcmp.h
_KCMP_VM = 1
# include/uapi/linux/sched.h: the flags, and struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size.
_CLONE_VM, _CLONE_VFORK = 0x100, 0x4000
_CLONE_ARGS = struct.Struct("<7Q")
_ARGUMENTS = 6
_TAKEN = 16


def birth_of(pid: int, memory: Memory, registers: Registers) -> Birth | None:
    """Where a process's first thread began, None when it has memory of its own, or what its parent does is not ours to see.

    The thread is stopped. Of the stacks that threads of its parent wait for, it is the one that the thread's stack pointer lies below.
    """
    parent = procfs.status_number(pid, "PPid") if registers.arch is X86_64 else None
    if not parent or not _same_memory(pid, parent):
        return None
    top = registers.values[X86_64.sp] - _TAKEN
    return min((birth for birth in _births(parent, memory) if birth.sp >= top), key=lambda birth: birth.sp, default=None)


def _same_memory(pid: int, other: int) -> bool:
    """False when kcmp(2) says so. Where it is not to be had the stack pointer decides: in memory of its own it lies below no such stack."""
    return bool(ctypes.CDLL(None).syscall(_KCMP, pid, other, _KCMP_VM, 0, 0) <= 0)


def _births(parent: int, memory: Memory) -> Iterator[Birth]:
    for tid in procfs.thread_ids(parent):
        try:
            words = procfs.thread_file(parent, tid, "syscall").split()
            number, *arguments = int(words[0]), *(int(word, 16) for word in words[1:])
        except (OSError, ValueError, IndexError):
            continue
        # A thread that runs has no words, one that waits outside of a system call has two.
        if number in {_CLONE, _CLONE3} and len(arguments) == _ARGUMENTS + 2:
            *given, creator_sp, ip = arguments
            if sp := _given_sp(number, given, memory):
                yield Birth(ip, sp, creator_sp)


def _given_sp(number: int, arguments: list[int], memory: Memory) -> int | None:
    """The first stack pointer that the system call gives its child; None when the child goes on on its creator's stack, or nobody waits."""
    flags, stack, size = arguments[0], arguments[1], 0
    if number == _CLONE3:
        data = memory.read(arguments[0], _CLONE_ARGS.size)
        if data is None:
            return None
        flags, _, _, _, _, stack, size = _CLONE_ARGS.unpack(data)
    if flags & (_CLONE_VM | _CLONE_VFORK) != _CLONE_VM | _CLONE_VFORK or not stack:
        return None
    return stack + size
