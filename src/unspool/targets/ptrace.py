"""ptrace for one purpose: stop a thread for a moment, read its registers, let it run on as it was (ptrace(2), PTRACE_SEIZE).

All calls about a thread must come from the operating system thread that seized it. When that thread ends, even by SIGKILL, the kernel
lets every seized thread go on, and a signal that was on its way is delivered.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
import platform
import threading
import time
from functools import cache
from typing import Self

from unspool.model.arch import AARCH64, S390X, X86_64, Arch
from unspool.model.registers import Registers
from unspool.targets import procfs
from unspool.targets.prstatus import registers_of

_SEIZE, _INTERRUPT, _DETACH, _GETREGSET = 0x4206, 0x4207, 17, 0x4204
_NT_PRSTATUS, _NT_ARM_TLS, _NT_ARM_PAC_MASK = 1, 0x401, 0x406
_WALL = 0x40000000  # __WALL: threads of any kind, also those that were made without SIGCHLD
_EVENT_STOP = 128  # PTRACE_EVENT_STOP
_PEEK = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL
_ENDED = {os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED}
_REGSET_ROOM = 1024
_SPINS = 30
_LONGEST_NAP = 0.001
_SLICE = 0.005
_WATCH_EVERY = 0.02


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
        self._tracer = threading.get_native_id()
        self._lock = threading.Lock()

    @classmethod
    def seize(cls, tid: int) -> Self:
        """The thread, which runs on; OSError (ProcessLookupError, PermissionError) when the kernel refuses."""
        _ptrace(_SEIZE, tid)
        return cls(tid)

    def interrupt(self) -> None:
        """Ask the thread to stop; it does so at once unless it waits uninterruptibly."""
        # It may be gone already: waiting tells.
        with contextlib.suppress(OSError):
            _ptrace(_INTERRUPT, self.tid)

    def wait(self, seconds: float) -> State:
        """Wait until the thread has stopped or is gone, at most so long."""
        deadline = time.monotonic() + seconds
        spins, nap = 0, 20e-6
        while self.state is State.RUNNING and not self.reap():
            spins += 1
            if spins < _SPINS:
                os.sched_yield()
                continue
            if time.monotonic() > deadline:
                break
            time.sleep(nap)
            nap = min(nap * 2, _LONGEST_NAP)
        return self.state

    @property
    def is_ours(self) -> bool:
        """Whether the thread is still traced by us: execve may have given its number to a thread that is not."""
        return procfs.status_number(self.tid, "TracerPid") == self._tracer

    def reap(self) -> bool:
        """Take what the kernel has to say of the thread; whether it said something. Any thread of ours may ask."""
        with self._lock:
            try:
                news = os.waitid(os.P_PID, self.tid, _PEEK)
                if news is None:
                    return False
                if news.si_code in _ENDED:
                    self.state = State.GONE
                    if not self._is_our_child:
                        os.waitpid(self.tid, os.WNOHANG | _WALL)
                    return True
                _, status = os.waitpid(self.tid, os.WNOHANG | _WALL)
            except ChildProcessError:
                # Another thread of its process called execve, which ends all the others and gives the caller the leader's number.
                self.state = State.GONE
                return True
            self.state = State.STOPPED
            # A stop without an event is a signal on its way to the thread: it must be given on. A stop with one is our interruption, or
            # the program's own job control, which the kernel puts back when we let go.
            self._signal = 0 if status >> 16 == _EVENT_STOP else os.WSTOPSIG(status)
            return True

    @property
    def _is_our_child(self) -> bool:
        """Whether the thread is a process that we started: how it ended is for the one to hear who started it."""
        return procfs.status_number(self.tid, "PPid") == os.getpid() and procfs.status_number(self.tid, "Tgid") == self.tid

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

    def release(self, seconds: float = 1.0) -> bool:
        """Let the thread run on as it was; False when it did not stop in that time, so that it cannot be let go yet."""
        deadline = time.monotonic() + seconds
        while True:
            self.wait(_SLICE)
            if self.state is State.STOPPED:
                try:
                    _ptrace(_DETACH, self.tid, 0, self._signal)
                except ProcessLookupError:
                    # Killed while it was stopped. What is left of it must be reaped, or its process would wait for us.
                    self.state = State.RUNNING
                else:
                    self.state = State.GONE
            elif self.state is State.RUNNING:
                if not self.is_ours:
                    self.state = State.GONE
                elif time.monotonic() > deadline:
                    return False
                else:
                    # A thread that got this number by execve runs, and was not asked to stop yet.
                    self.interrupt()
            if self.state is State.GONE:
                return True


class Reaper:
    """Keeps the kernel from waiting for us while we wait for it: use it in a `with` statement around `seize` calls.

    execve ends all other threads of its process, waits until their tracer has reaped them, and holds cred_guard_mutex meanwhile;
    PTRACE_SEIZE of a further thread waits for that mutex (fs/exec.c, de_thread; kernel/ptrace.c, ptrace_attach). So another thread of ours
    reaps.
    """

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._seized: list[Seized] = []
        self._since: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reaper", daemon=True)

    def seize(self, tid: int) -> Seized:
        """The same as `Seized.seize`; the thread is watched from then on."""
        self._since = time.monotonic()
        try:
            seized = Seized.seize(tid)
        finally:
            self._since = None
        self._seized.append(seized)
        return seized

    def __enter__(self) -> Self:
        """Start to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the watch."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_WATCH_EVERY):
            since = self._since
            if since is not None and time.monotonic() - since > _WATCH_EVERY:
                for seized in list(self._seized):
                    if seized.state is not State.GONE:
                        seized.reap()
