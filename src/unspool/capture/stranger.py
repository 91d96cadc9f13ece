"""A process of ours that is no child of ours, to see what may be done to processes of the same user (kernel.yama.ptrace_scope)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from types import TracebackType
from typing import Self

from unspool.capture.proc import read_file
from unspool.formats.proc_maps import parse_maps

_PTRACE_SEIZE = 0x4206
_WALL = 0x40000000


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class Stranger:
    """A process that waits for its end; it was left by the process that made it, so that nobody here is its parent."""

    def __init__(self) -> None:
        """Make it. It ends with us, however we end, because the pipe it waits on is closed then."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._word = ctypes.create_string_buffer(b"stranger")
        self._seized = False
        answer, answers = os.pipe()
        gate, self._gate = os.pipe()
        child = os.fork()
        if child == 0:
            _leave(answers, gate, self._gate)
        os.close(answers)
        os.close(gate)
        os.waitpid(child, 0)
        with os.fdopen(answer, "rb") as file:
            self.pid = int(file.readline() or b"0")

    def seize(self) -> None:
        """Take it under ptrace; OSError."""
        if self._libc.ptrace(ctypes.c_long(_PTRACE_SEIZE), self.pid, None, None) < 0:
            raise _error()
        self._seized = True

    def read_memory(self) -> None:
        """Read a word of its memory, which is at the same address as ours; OSError."""
        word = ctypes.create_string_buffer(len(self._word))
        here = _Vector(ctypes.addressof(word), len(word))
        there = _Vector(ctypes.addressof(self._word), len(word))
        size = ctypes.c_ulong
        if self._libc.process_vm_readv(self.pid, ctypes.byref(here), size(1), ctypes.byref(there), size(1), size(0)) < 0:
            raise _error()

    def mapped_file(self) -> str:
        """The kernel's name for a file that is mapped into it, as it is into us."""
        for mapping in parse_maps(read_file("/proc/self/maps") or b""):
            if mapping.kind == "file" and mapping.executable:
                return f"/proc/{self.pid}/map_files/{mapping.start:x}-{mapping.end:x}"
        return f"/proc/{self.pid}/map_files/none"

    def __enter__(self) -> Self:
        """Give the process."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it."""
        os.close(self._gate)
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            if self._seized:
                # A tracer is told of the end before the parent is.
                os.waitpid(self.pid, _WALL)


def _leave(answers: int, gate: int, far_gate: int) -> None:
    """In the child: make the stranger, tell its number, and leave it."""
    try:
        stranger = os.fork()
        if stranger:
            os.write(answers, f"{stranger}\n".encode())
        else:
            os.close(answers)
            os.close(far_gate)
            os.read(gate, 1)
    finally:
        os._exit(0)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
