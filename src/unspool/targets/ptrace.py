"""ptrace for one purpose: stop a thread for a moment, read its registers, let it run on as it was (ptrace(2), PTRACE_SEIZE).

All calls about a thread must come from the operating system thread that seized it. When that thread ends, even by SIGKILL, the kernel
lets every seized thread go on, and a signal that was on its way is delivered.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import platform
import time
from functools import cache
from typing import Self

from unspool.model.arch import AARCH64, S390X, X86_64, Arch
from unspool.model.registers import Registers
from unspool.targets.prstatus import registers_of

_SEIZE, _INTERRUPT, _DETACH, _GETREGSET = 0x4206, 0x4207, 17, 0x4204
_NT_PRSTATUS, _NT_ARM_TLS, _NT_ARM_PAC_MASK = 1, 0x401, 0x406
_WALL = 0x40000000  # __WALL: threads of any kind, also those that were made without SIGCHLD
_EVENT_STOP = 128  # PTRACE_EVENT_STOP
_REGSET_ROOM = 1024
_SPINS = 30
_LONGEST_NAP = 0.001
_KILLED_PATIENCE = 1.0  # seconds that a thread which was killed under our hands may take to end


class State(enum.Enum):
    """What became of a thread that was asked to stop."""

    STOPPED = enum.auto()
    RUNNING = enum.auto()
    GONE = enum.auto()


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.restype = ctypes.c_long
    library.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    return library


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _libc().ptrace(request, tid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@cache
def machine() -> Arch | None:
    """The machine we run on, None when its stacks are not understood."""
    return {"x86_64": X86_64, "aarch64": AARCH64, "s390x": S390X}.get(platform.machine())


class Seized:
    """A thread that this operating system thread traces: `interrupt`, `wait`, read, `release`."""

    def __init__(self, tid: int) -> None:
        """A thread that is ours already; `seize` makes one ours."""
        self.tid = tid
        self.state = State.RUNNING
        self._signal = 0

    @classmethod
    def seize(cls, tid: int) -> Self:
        """The thread, which runs on; OSError (ProcessLookupError, PermissionError) when the kernel refuses."""
        _ptrace(_SEIZE, tid)
        return cls(tid)

    def interrupt(self) -> None:
        """Ask the thread to stop; it does so at once unless it waits uninterruptibly."""
        try:
            _ptrace(_INTERRUPT, self.tid)
        except ProcessLookupError:
            self._reap()

    def wait(self, seconds: float) -> State:
        """Wait until the thread has stopped or is gone, at most so long."""
        deadline = time.monotonic() + seconds
        spins, nap = 0, 20e-6
        while self.state is State.RUNNING and not self._reap():
            spins += 1
            if spins < _SPINS:
                os.sched_yield()
                continue
            if time.monotonic() > deadline:
                break
            time.sleep(nap)
            nap = min(nap * 2, _LONGEST_NAP)
        return self.state

    def _reap(self) -> bool:
        """Take what the kernel has to say of the thread; whether it said something."""
        try:
            tid, status = os.waitpid(self.tid, os.WNOHANG | _WALL)
        except ChildProcessError:
            # Another thread of its process called execve, which ends all the others and gives the caller the leader's number.
            self.state = State.GONE
            return True
        if tid == 0:
            return False
        if not os.WIFSTOPPED(status):
            self.state = State.GONE
            return True
        self.state = State.STOPPED
        # A stop without an event is a signal on its way to the thread: it must be given on. A stop with one is our interruption, or the
        # program's own job control, which the kernel puts back when we let go.
        self._signal = 0 if status >> 16 == _EVENT_STOP else os.WSTOPSIG(status)
        return True

    def registers(self) -> Registers | None:
        """The stopped thread's registers, None for 32-bit code; OSError when it was killed meanwhile."""
        arch = machine()
        if arch is None:
            return None
        registers = registers_of(arch, self._regset(_NT_PRSTATUS))
        if registers is None or arch is not AARCH64:
            return registers
        pointer = int.from_bytes(self._regset(_NT_ARM_TLS)[:8], "little")
        return Registers(arch, registers.pc, registers.values, pointer)

    def pac_mask(self) -> int:
        """The bits of a code pointer that hold a pointer authentication code (struct user_pac_mask, insn_mask); 0 without that feature."""
        if machine() is not AARCH64:
            return 0
        try:
            return int.from_bytes(self._regset(_NT_ARM_PAC_MASK)[8:16], "little")
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENODEV}:
                return 0
            raise

    def _regset(self, kind: int) -> bytes:
        room = ctypes.create_string_buffer(_REGSET_ROOM)
        vector = _IoVec(ctypes.addressof(room), _REGSET_ROOM)
        _ptrace(_GETREGSET, self.tid, kind, ctypes.addressof(vector))
        return room.raw[: vector.length]

    def release(self, seconds: float = 0.0) -> bool:
        """Let the thread run on as it was; False when it has not stopped in that time, so that it cannot be let go yet."""
        if self.state is State.RUNNING:
            self.wait(seconds)
        if self.state is State.RUNNING:
            return False
        if self.state is State.STOPPED:
            try:
                _ptrace(_DETACH, self.tid, 0, self._signal)
            except ProcessLookupError:
                # Killed while it was stopped: what is left of it must be reaped, or its process would wait for us.
                self.state = State.RUNNING
                self.wait(max(seconds, _KILLED_PATIENCE))
        self.state = State.GONE
        return True
