"""perf_event_open(2) for events that Python opens itself: the sideband's rings, and what `doctor` tries."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass

from unspool.errors import NotPermitted, UnspoolError, Unsupported

TYPE_HARDWARE, TYPE_SOFTWARE, TYPE_TRACEPOINT = 0, 1, 2
HARDWARE_CPU_CYCLES = 0
SOFTWARE_CPU_CLOCK = 0
SOFTWARE_DUMMY = 9
CLOCK_MONOTONIC = 1

_SYSCALL = {"x86_64": 298, "aarch64": 241, "s390x": 331}
"""perf_event_open's number (arch/*/entry/syscalls, include/uapi/asm-generic/unistd.h)."""

_FLAG_FD_CLOEXEC = 8
_SAMPLE_TIME = 1 << 2
_ATTR_SIZE = 128
_ATTR = struct.Struct("<IIQQQQQIIQQQQIi")

_BITS = {
    "disabled": 0,
    "exclude_kernel": 5,
    "exclude_hv": 6,
    "mmap": 8,
    "comm": 9,
    "freq": 10,
    "task": 13,
    "watermark": 14,
    "sample_id_all": 18,
    "mmap2": 23,
    "comm_exec": 24,
    "use_clockid": 25,
    "build_id": 34,
}
"""Bits of `struct perf_event_attr` by name; `build_id` needs kernel 5.12."""


@dataclass(frozen=True, slots=True)
class EventAttributes:
    """What a perf event counts and writes; the fields are those of `struct perf_event_attr`, times are CLOCK_MONOTONIC nanoseconds."""

    kind: int = TYPE_SOFTWARE
    config: int = SOFTWARE_DUMMY
    period: int = 0
    flags: tuple[str, ...] = ()
    wakeup: int = 0

    def pack(self) -> bytes:
        """The struct's bytes (PERF_ATTR_SIZE_VER7)."""
        bits = sum(1 << _BITS[name] for name in self.flags)
        clock = CLOCK_MONOTONIC if "use_clockid" in self.flags else 0
        head = _ATTR.pack(self.kind, _ATTR_SIZE, self.config, self.period, _SAMPLE_TIME, 0, bits, self.wakeup, 0, 0, 0, 0, 0, 0, clock)
        return head.ljust(_ATTR_SIZE, b"\0")


def open_event(attributes: EventAttributes, *, cpu: int, pid: int = -1) -> int:
    """A new event's file descriptor; NotPermitted, or Unsupported when this kernel or machine has no such event."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        message = f"perf events on {platform.machine()} are not supported"
        raise Unsupported(message)
    libc = ctypes.CDLL(None, use_errno=True)
    data = attributes.pack()
    fd = libc.syscall(number, ctypes.c_char_p(data), pid, cpu, -1, ctypes.c_ulong(_FLAG_FD_CLOEXEC))
    if fd >= 0:
        return int(fd)
    raise failure(ctypes.get_errno())


def failure(number: int) -> UnspoolError:
    """The error for an errno of perf_event_open(2)."""
    reason = os.strerror(number)
    if number in {errno.EPERM, errno.EACCES}:
        return NotPermitted(f"the kernel does not permit perf events ({reason})", hint=_permission_hint())
    if number in {errno.EMFILE, errno.ENFILE}:
        return Unsupported(f"perf_event_open: {reason}", hint="Raise the limit of open files: ulimit -n 65536.")
    return Unsupported(f"perf_event_open: {reason}")


def _permission_hint() -> str:
    return f"{NotPermitted.hint} Some kernels also need: sysctl kernel.perf_event_paranoid=1."
