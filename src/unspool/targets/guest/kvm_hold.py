"""Registers under KVM, by any VMM: one vCPU's thread is stopped for a moment, and KVM leaves the registers in a page we share with it.

The page is `struct kvm_run`, mapped from a duplicate of the vCPU's descriptor (pidfd_getfd(2)). With KVM_CAP_SYNC_REGS
(Documentation/virt/kvm/api.rst, section 6.74) KVM stores the registers there whenever the vCPU leaves KVM_RUN, and a ptrace stop makes it
leave. Nothing runs in the VMM, no other vCPU notices, and when we are killed the kernel lets the thread go on.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from unspool.errors import NoSuchTarget, NotPermitted, Unsupported
from unspool.model.arch import X86_64
from unspool.model.registers import Registers
from unspool.targets import procfs
from unspool.targets.guest.machines import encrypted_by, kvm_vcpus
from unspool.targets.guest.registers import RefusalKind, Refused, VcpuState
from unspool.targets.guest.vcpu_threads import KVM_RUN, VcpuThreads, blocked_call, named_threads
from unspool.targets.ptrace import Seized, State

STOP_SECONDS = 0.5
"""How long a vCPU's thread may take to stop: it waits uninterruptibly only while the host's disks are slow."""
_PIDFD_GETFD = 438  # the same number on every machine
_PAGE = mmap.PAGESIZE
# arch/x86/include/uapi/asm/kvm.h, include/uapi/linux/kvm.h: struct kvm_run up to the end of kvm_sync_regs' kvm_regs and kvm_sregs.
_VALID_AT, _REGS_AT, _SREGS_AT = 288, 304, 448
_REGS_AND_SREGS = 3
_REGS = struct.Struct("<18Q")
_DWARF_OF = (0, 3, 2, 1, 4, 5, 7, 6, *range(8, 16))  # rax rbx rcx rdx rsi rdi rsp rbp r8-r15
_SEGMENT, _CS, _FS, _GS = 24, 0, 3, 4
_CONTROL = struct.Struct("<6Q")  # cr0 cr2 cr3 cr4 cr8 efer
_CONTROL_AT = 224
_ALWAYS_ONE = 2  # bit 1 of RFLAGS
_RDI, _RSI = 5, 4
_SEARCHES = 20


@dataclass(frozen=True, slots=True)
class _Vcpu:
    page: mmap.mmap
    tid: int
    valid_before: bytes


class KvmHold:
    """A `VcpuSource`: a hold stops one vCPU, and only that one. All holds must be made by one operating system thread (see `ptrace`)."""

    name = "kvm-hold"
    snapshot = True

    def __init__(self, pid: int, vcpus: Mapping[int, _Vcpu]) -> None:
        """Hold those; `open` finds them."""
        self.vcpus = tuple(sorted(vcpus))
        self._pid = pid
        self._found = dict(vcpus)
        self._threads = VcpuThreads(pid, {number: vcpu.tid for number, vcpu in vcpus.items()})
        self._start = _start_of(pid)
        self._late: list[Seized] = []
        self.skips_idle = True

    @classmethod
    def open(cls, pid: int) -> Self:
        """The vCPUs of a VMM; NotPermitted without CAP_SYS_PTRACE, Unsupported when KVM does not share registers."""
        descriptors = kvm_vcpus(pid)
        if what := encrypted_by(pid):
            # KVM_RUN with valid_regs set would fail, and end the machine (arch/x86/kvm/x86.c, kvm_sync_valid_fields).
            raise Unsupported(f"the registers of process {pid}'s machine are encrypted ({what})", hint="")
        if not descriptors:
            raise NoSuchTarget(f"process {pid} has no KVM vCPUs, or they are not ours to see", hint="Run as root, or grant CAP_SYS_PTRACE.")
        tids = _threads_of(pid, descriptors)
        pages: dict[int, _Vcpu] = {}
        try:
            for number, descriptor in descriptors.items():
                page = _run_page(pid, descriptor)
                pages[number] = _Vcpu(page, tids[number], bytes(page[_VALID_AT : _VALID_AT + 8]))
                # Flags that no vCPU ever has: what is found later was stored after this.
                page[_REGS_AT : _REGS_AT + _REGS.size] = bytes(_REGS.size)
                # It stays set while we are attached, so that a vCPU that happens to be in the VMM's own code has its last registers there.
                page[_VALID_AT : _VALID_AT + 8] = struct.pack("<Q", _REGS_AND_SREGS)
        except BaseException:
            _restore(pages)
            raise
        return cls(pid, pages)

    @contextmanager
    def hold(self, vcpu: int) -> Iterator[VcpuState | Refused]:
        """The vCPU's state while its thread stands still."""
        found = self._found.get(vcpu)
        if found is None:
            gone = not self._found
            yield Refused(
                "the machine was closed" if gone else f"there is no vCPU {vcpu}", RefusalKind.GONE if gone else RefusalKind.IMPOSSIBLE
            )
            return
        # A thread that did not stop in its time stops when it wakes up, and must be let go then.
        self._late = [seized for seized in self._late if not _release(seized, 0)]
        if self.skips_idle and self._threads.halted(vcpu):
            yield Refused("the vCPU is idle", RefusalKind.HALTED)
            return
        seized = self._seize(found.tid)
        if isinstance(seized, Refused):
            yield seized
            return
        try:
            yield _state(found.page) if self._stop(seized) else self._refusal()
        finally:
            if not _release(seized):
                self._late.append(seized)

    def close(self) -> None:
        """Restore what KVM was told, and let go."""
        self._late = [seized for seized in self._late if not _release(seized)]
        _restore(self._found)
        self._found.clear()

    def _seize(self, tid: int) -> Seized | Refused:
        try:
            return Seized.seize(tid)
        except PermissionError:
            tracer = procfs.status_number(tid, "TracerPid")
            if tracer:
                return Refused(f"process {tracer} traces the vCPU's thread")
            return Refused("the vCPU's thread is not ours to trace: CAP_SYS_PTRACE is missing", RefusalKind.IMPOSSIBLE)
        except OSError:
            return self._refusal()

    def _stop(self, seized: Seized) -> bool:
        seized.interrupt()
        # The number may have been given to a thread of another process since: then it is let go at once.
        return seized.wait(STOP_SECONDS) is State.STOPPED and Path(f"/proc/{self._pid}/task/{seized.tid}").exists()

    def _refusal(self) -> Refused:
        if _start_of(self._pid) != self._start:
            return Refused("the machine ended", RefusalKind.GONE)
        return Refused("the vCPU's thread did not stop in time")


def _state(page: mmap.mmap) -> VcpuState | Refused:
    words = _REGS.unpack_from(page, _REGS_AT)
    rip, rflags = words[16:]
    if not rflags & _ALWAYS_ONE:
        return Refused("the vCPU has not left the guest yet")
    cr0, _, cr3, cr4, _, efer = _CONTROL.unpack_from(page, _SREGS_AT + _CONTROL_AT)
    (selector,) = struct.unpack_from("<H", page, _SREGS_AT + _CS * _SEGMENT + 12)
    fs_base, gs_base = (int(struct.unpack_from("<Q", page, _SREGS_AT + number * _SEGMENT)[0]) for number in (_FS, _GS))
    return VcpuState(
        registers=Registers(X86_64, rip, dict(zip(_DWARF_OF, words[:16], strict=True)), fs_base),
        cr0=cr0,
        cr3=cr3,
        cr4=cr4,
        efer=efer,
        cs=selector,
        cpl=selector & 3 if cr0 & 1 else 0,
        rflags=rflags,
        fs_base=fs_base,
        gs_base=gs_base,
        kernel_gs_base=None,
        halted=False,
        snapshot=True,
    )


def _release(seized: Seized, seconds: float = 1.0) -> bool:
    try:
        return seized.release(seconds)
    except KeyboardInterrupt:
        # Ctrl-C ends this program, but the vCPU does not stay stopped for it.
        seized.release()
        raise


def _restore(vcpus: Mapping[int, _Vcpu]) -> None:
    for vcpu in vcpus.values():
        with suppress(ValueError):
            vcpu.page[_VALID_AT : _VALID_AT + 8] = vcpu.valid_before
            vcpu.page.close()


def _start_of(pid: int) -> int | None:
    state = procfs.thread_state(pid, pid)
    return None if state is None or state.ended else state.start_ticks


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def _run_page(pid: int, descriptor: int) -> mmap.mmap:
    """The vCPU's `struct kvm_run`, shared with the kernel and the VMM."""
    process = os.pidfd_open(pid)
    try:
        copy = _libc().syscall(ctypes.c_long(_PIDFD_GETFD), ctypes.c_int(process), ctypes.c_int(descriptor), ctypes.c_uint(0))
        if copy < 0:
            number = ctypes.get_errno()
            raise NotPermitted(
                f"the vCPUs of process {pid} are not ours to use: {os.strerror(number)}", hint="Run as root, or grant CAP_SYS_PTRACE."
            )
    finally:
        os.close(process)
    try:
        return mmap.mmap(copy, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError as error:
        raise Unsupported(f"the registers that KVM shares cannot be mapped: {error.strerror}", hint="") from None
    finally:
        os.close(copy)


def _threads_of(pid: int, descriptors: Mapping[int, int]) -> dict[int, int]:
    """The thread of each vCPU: the one whose name says so, else the one that is found in KVM_RUN on its descriptor."""
    named = named_threads(pid).tids
    if all(number in named and _may_run(pid, named[number], descriptor) for number, descriptor in descriptors.items()):
        return {number: named[number] for number in descriptors}
    found: dict[int, int] = {}
    by_descriptor = {descriptor: number for number, descriptor in descriptors.items()}
    # A worker of KVM in the same process (kvm-nx-lpage-recovery) shows the system call of the vCPU that started it.
    tids = [tid for tid in procfs.thread_ids(pid) if (state := procfs.thread_state(pid, tid)) and not state.kernel]
    for _ in range(_SEARCHES):
        for tid in (tid for tid in tids if tid not in found.values()):
            descriptor = _kvm_run_of(pid, tid)
            if descriptor in by_descriptor:
                found.setdefault(by_descriptor[descriptor], tid)
        if len(found) == len(descriptors):
            return found
    raise Unsupported(f"the threads that run the vCPUs of process {pid} cannot be told apart", hint="Try again when the machine is busy.")


def _may_run(pid: int, tid: int, descriptor: int) -> bool:
    """Whether nothing shows that the thread runs another vCPU than that one."""
    call = blocked_call(pid, tid)
    return call is None or call[2] != KVM_RUN or call[1] == descriptor


def _kvm_run_of(pid: int, tid: int) -> int | None:
    """The vCPU descriptor on which the thread is in KVM_RUN, None when it is elsewhere. A running one is stopped to see."""
    call = blocked_call(pid, tid)
    if call is not None:
        return call[1] if call[2] == KVM_RUN else None
    with suppress(OSError):
        seized = Seized.seize(tid)
        try:
            seized.interrupt()
            if seized.wait(STOP_SECONDS) is State.STOPPED and (registers := seized.registers()) and registers.get(_RSI) == KVM_RUN:
                return registers.get(_RDI)
        finally:
            _release(seized)
    return None
