"""What a process gives up before it parses bytes that somebody hostile may have written: privileges, files, memory, most system calls."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
from pathlib import Path

NOBODY = 65534
MEMORY = 1 << 30
"""Bytes of heap that a parser may have beyond what it inherited."""
ADDRESS_SPACE = 6 << 30
"""Bytes of address space beyond what it inherited: mapped files count here."""
CPU_SECONDS = 600
_ABOVE = 64
"""More descriptors than `keep_only` is ever asked to keep."""

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_RET_KILL_PROCESS = 0x80000000
_RET_ALLOW = 0x7FFF0000
_RET_ERRNO_EPERM = 0x00050001
_AUDIT_ARCH_X86_64 = 0xC000003E
_PROT_EXEC = 4
_AT_EMPTY_PATH = 0x1000
_F_DUPFD_CLOEXEC = 1030
# offsetof(struct seccomp_data, nr / arch / args[]), lower halves on a little-endian machine (include/uapi/linux/seccomp.h).
_NR, _ARCH, _ARGS = 0, 4, 16
# Classic BPF (include/uapi/linux/bpf_common.h): load a word, jump if equal, jump if any bit is set, return.
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06

# x86-64 system calls (arch/x86/entry/syscalls/syscall_64.tbl) of an interpreter that computes, and talks over a socket it already has.
_ALLOWED = {
    "read": 0,
    "write": 1,
    "close": 3,
    "fstat": 5,
    "lseek": 8,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "pread64": 17,
    "readv": 19,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "getpid": 39,
    "sendto": 44,
    "recvfrom": 45,
    "sendmsg": 46,
    "recvmsg": 47,
    "exit": 60,
    "sigaltstack": 131,
    "gettid": 186,
    "futex": 202,
    "clock_gettime": 228,
    "exit_group": 231,
    "tgkill": 234,
    "getrandom": 318,
    "rseq": 334,
}
_MMAP, _MPROTECT, _FCNTL, _NEWFSTATAT = 9, 10, 72, 262
# What no library calls to parse a file: whoever does has taken the process over.
_DEADLY = {
    "socket": 41,
    "connect": 42,
    "execve": 59,
    "kill": 62,
    "ptrace": 101,
    "mount": 165,
    "tkill": 200,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "bpf": 321,
    "execveat": 322,
    "userfaultfd": 323,
    "io_uring_setup": 425,
}


def keep_only(channel: socket.socket, *descriptors: int) -> socket.socket:
    """The channel as descriptor 3 and the others from 4 on in their order, nothing on 0 to 2, and no other descriptor of the parent's."""
    # Copies far above first, so that no number is overwritten before it was moved.
    copies = [fcntl.fcntl(number, fcntl.F_DUPFD, _ABOVE) for number in (channel.detach(), *descriptors)]
    for index, number in enumerate(copies):
        os.dup2(number, 3 + index)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.closerange(3 + len(copies), 1 << 20)
    return socket.socket(fileno=3)


def restrict(*, cpu_seconds: int | None = CPU_SECONDS) -> None:
    """Give everything up for good; `cpu_seconds` is what it may compute in all, None for no limit.

    Limits need the files of /proc, dropping the user needs privileges: so the filter comes last.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    _limit_resources(cpu_seconds)
    _drop_privileges()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and os.uname().machine == "x86_64":
        _filter_system_calls(libc)


def _limit_resources(cpu_seconds: int | None) -> None:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    size, data = (int(pages[index]) * resource.getpagesize() for index in (0, 5))
    for limit, value in (
        (resource.RLIMIT_AS, size + ADDRESS_SPACE),
        (resource.RLIMIT_DATA, data + MEMORY),
        (resource.RLIMIT_CPU, resource.RLIM_INFINITY if cpu_seconds is None else cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        _, hard = resource.getrlimit(limit)
        # RLIM_INFINITY is -1 in Python, so that min() alone would take it for the smallest.
        ceiling = hard if value == resource.RLIM_INFINITY else value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (ceiling, ceiling))


def _drop_privileges() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _filter_system_calls(libc: ctypes.CDLL) -> None:
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in _program())
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    program = struct.pack("<H6xQ", len(code) // 8, ctypes.addressof(buffer))
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(program), 0, 0)


def _program() -> list[tuple[int, int, int, int]]:
    """The filter as (code, jump if true, jump if false, operand): what is neither allowed nor deadly fails with EPERM.

    Libraries of other versions make other harmless calls (how many processors are there?), and take a refusal well.
    """
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _AUDIT_ARCH_X86_64),
        (_RETURN, 0, 0, _RET_KILL_PROCESS),
        (_LOAD, 0, 0, _NR),
    ]
    for number in _ALLOWED.values():
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _RET_ALLOW)]
    # No memory becomes code: what a parser's bug lets in has to make do with what is there.
    for number in (_MMAP, _MPROTECT):
        program += _when(number, 2, (_ANY_BIT, 0, 1, _PROT_EXEC), _RET_ERRNO_EPERM, _RET_ALLOW)
    program += _when(_FCNTL, 1, (_EQUAL, 0, 1, _F_DUPFD_CLOEXEC), _RET_ALLOW, _RET_ERRNO_EPERM)
    program += _when(_NEWFSTATAT, 3, (_EQUAL, 0, 1, _AT_EMPTY_PATH), _RET_ALLOW, _RET_ERRNO_EPERM)
    for number in _DEADLY.values():
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _RET_KILL_PROCESS)]
    return [*program, (_RETURN, 0, 0, _RET_ERRNO_EPERM)]


def _when(number: int, argument: int, test: tuple[int, int, int, int], match: int, other: int) -> list[tuple[int, int, int, int]]:
    """`match` for the call where the test on its argument holds, `other` for the call where it does not."""
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _ARGS + 8 * argument),
        test,
        (_RETURN, 0, 0, match),
        (_RETURN, 0, 0, other),
    ]
