"""Which thread of a virtual machine monitor runs which vCPU, and whether that vCPU is idle, told without touching it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from unspool.targets import procfs

KVM_RUN = 0xAE80
IOCTL = 16
_FUTEX = 202
_FUTEX_COMMAND, _FUTEX_WAIT_BITSET = 0x7F, 9
# QEMU with debug-threads=on; Firecracker; cloud-hypervisor.
_NAMES = re.compile(r"(?:CPU (\d{1,5})/(?:KVM|TCG)|fc_vcpu (\d{1,5})|vcpu(\d{1,5}))")


@dataclass(frozen=True, slots=True)
class VcpuThreads:
    """The threads of a machine: `tids` by vCPU number."""

    pid: int
    tids: Mapping[int, int]
    shared: bool = False
    """One thread runs all vCPUs in turn (TCG with thread=single), so that none of them can be called idle."""

    def halted(self, vcpu: int) -> bool:
        """Whether the vCPU waits in HLT: its thread sleeps inside KVM_RUN, or (TCG) on the condition that an interrupt signals.

        A thread that waits for a lock is not idle: pthread_cond_wait uses FUTEX_WAIT_BITSET, a mutex FUTEX_WAIT (glibc, nptl).
        False also when it cannot be told.
        """
        tid = self.tids.get(vcpu)
        if tid is None or self.shared:
            return False
        call = blocked_call(self.pid, tid)
        if call is None:
            return False
        number, second = call[0], call[2]
        waits = second == KVM_RUN if number == IOCTL else number == _FUTEX and second & _FUTEX_COMMAND == _FUTEX_WAIT_BITSET
        if not waits:
            return False
        # A thread that a tracer has stopped shows the system call that it was in as well.
        state = procfs.thread_state(self.pid, tid)
        return state is not None and state.state == "S"


def blocked_call(pid: int, tid: int) -> tuple[int, ...] | None:
    """The system call in which the thread sleeps, number and six arguments; None when it runs or cannot be seen (proc_pid_syscall(5))."""
    with suppress(OSError, ValueError):
        words = procfs.thread_file(pid, tid, "syscall").split()
        if len(words) == 9:
            return (int(words[0]), *(int(word, 16) for word in words[1:7]))
    return None


def named_threads(pid: int) -> VcpuThreads:
    """The threads whose names say which vCPU they run; a thread may have any name, so this is a claim, to be checked where it matters."""
    found: dict[int, int] = {}
    for tid in procfs.thread_ids(pid):
        with suppress(OSError):
            match = _NAMES.fullmatch(procfs.thread_file(pid, tid, "comm").decode("utf-8", "replace").strip())
            if match:
                found.setdefault(int(next(filter(None, match.groups()))), tid)
    return VcpuThreads(pid, found)
