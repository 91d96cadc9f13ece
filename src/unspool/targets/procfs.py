"""What /proc says of a process and its threads; every read may fail at any time, because the process may be gone."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

# include/linux/sched.h: PF_KTHREAD, PF_USER_WORKER and PF_IO_WORKER: kernel threads, and workers that the kernel runs inside a process.
_KERNEL = 0x00200000 | 0x4000 | 0x10
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ThreadState:
    """One line of /proc/PID/task/TID/stat (proc_pid_stat(5)).

    `state` is its letter (R running, S asleep, D uninterruptible, T stopped, t traced, Z zombie, X dead); `kernel` says that the thread
    never runs user code; `start_ticks` is its start in clock ticks since boot; `initial_sp` is mm->start_stack, 0 when the kernel does not
    tell us.
    """

    name: str
    state: str
    kernel: bool
    start_ticks: int
    initial_sp: int

    @property
    def ended(self) -> bool:
        """Whether nothing is left of the thread but its entry."""
        return self.state in {"Z", "X", "x"}


def parse_stat(data: bytes) -> ThreadState:
    """One stat line; ValueError when it is none. The name is in parentheses and may hold any byte, so the last one ends it."""
    head, _, tail = data.rpartition(b")")
    fields = tail.split()
    name = head.partition(b"(")[2].decode("utf-8", "backslashreplace")
    try:
        flags = int(fields[6])
        return ThreadState(name, fields[0].decode(), bool(flags & _KERNEL), int(fields[19]), int(fields[25]))
    except IndexError:
        message = f"not a stat line: {data!r}"
        raise ValueError(message) from None


def read_file(path: str) -> bytes:
    """The whole file; OSError (ProcessLookupError and FileNotFoundError among them) when it cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, _CHUNK):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def thread_file(pid: int, tid: int, name: str) -> bytes:
    """The bytes of /proc/PID/task/TID/NAME: a thread's own file, because a leader that ended shows no mappings any more."""
    return read_file(f"/proc/{pid}/task/{tid}/{name}")


def thread_state(pid: int, tid: int) -> ThreadState | None:
    """The thread's state, None when it is gone."""
    try:
        return parse_stat(thread_file(pid, tid, "stat"))
    except (OSError, ValueError):
        return None


def thread_ids(pid: int) -> list[int]:
    """The process's threads in the order of their numbers, empty when it is gone."""
    with contextlib.suppress(OSError):
        return sorted(int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir())
    return []


def status_number(pid: int, field: str) -> int | None:
    """A number of /proc/PID/status (`Tgid`, `TracerPid`); None when it is not there."""
    with contextlib.suppress(OSError, ValueError):
        for line in read_file(f"/proc/{pid}/status").splitlines():
            name, _, value = line.partition(b":")
            if name == field.encode():
                return int(value.split()[0])
    return None
