"""Registers of an emulated (TCG) vCPU, read out of QEMU's own memory while it runs: nothing is paused, and nothing is a snapshot.

QEMU keeps a vCPU's registers in CPUX86State (target/i386/cpu.h). Its place in the heap is found by what QEMU's monitor says of the vCPU:
the addresses of its descriptor tables, which every vCPU of a running kernel has for itself. RIP is written back at the end of a
translation block only, and lags behind in chains of them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingOf
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from unspool.errors import BadInput, NoSuchTarget, NotPermitted, Unsupported
from unspool.model.arch import X86_64
from unspool.model.module import Mapping
from unspool.model.registers import Registers
from unspool.targets.guest import hmp_text, ram
from unspool.targets.guest.layout import Hmp
from unspool.targets.guest.registers import RefusalKind, Refused, VcpuState
from unspool.targets.guest.vcpu_threads import VcpuThreads

_LARGEST_SEARCHED = 256 << 20
_CHUNK = 4 << 20
_MOST_HITS = 1000
_MOST_VCPUS = 1024
# struct CPUArchState: regs[16], eip, eflags, cc_dst, cc_src, cc_src2, cc_op, df, hflags, hflags2, segs[6], ldt, tr, gdt, idt, cr[5].
# A SegmentCache is selector (4, and 4 of padding), base (8), limit (4), flags (4). QEMU 7.2 to 10.0.
_GENERAL = struct.Struct("<18Q")
_HFLAGS_AT, _SEGS_AT, _TR_AT, _GDT_AT, _IDT_AT, _CR_AT = 176, 184, 352, 376, 400, 424
_SEGMENT, _BASE = 24, 8
_CS, _FS, _GS = 1, 4, 5
_CONTROL = struct.Struct("<5Q")
_SIZE = _CR_AT + _CONTROL.size
_DWARF_OF = (0, 2, 1, 3, 7, 6, 4, 5, *range(8, 16))  # rax rcx rdx rbx rsp rbp rsi rdi r8-r15
_HF_CPL, _HF_LMA, _HF_CS64 = 3, 1 << 14, 1 << 15
_EFER_LMA = 1 << 10


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one vCPU's state lies in QEMU, and its EFER when it was found (it changes while booting only, but for LMA)."""

    address: int
    efer: int


class TcgState:
    """A `VcpuSource` that pauses nothing; the states are racy."""

    name = "tcg-state"
    snapshot = False

    def __init__(self, memory: int, places: MappingOf[int, _Place], threads: VcpuThreads | None) -> None:
        """Read there; `memory` is an open /proc/PID/mem, which stays bound to that very process."""
        self.vcpus = tuple(sorted(places))
        self._memory = memory
        self._places = dict(places)
        self._threads = threads
        self.skips_idle = True

    @classmethod
    def open(cls, pid: int, hmp: Hmp, threads: VcpuThreads | None = None) -> Self:
        """Find every vCPU's state with the monitor's help; Unsupported while the guest has not booted, or for another QEMU."""
        wanted = _descriptor_tables(hmp("info registers -a"))
        try:
            memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            raise NotPermitted(f"the memory of process {pid} is not ours to read", hint="Run as root, or grant CAP_SYS_PTRACE.") from None
        except OSError:
            raise NoSuchTarget(f"there is no process {pid}") from None
        try:
            return cls(memory, _find(memory, ram.mappings_of(pid), wanted), threads)
        except BaseException:
            os.close(memory)
            raise

    @contextmanager
    def hold(self, vcpu: int) -> Iterator[VcpuState | Refused]:
        """The vCPU's state as it was at some moment just now."""
        yield self._state(vcpu)

    def close(self) -> None:
        """Let go of QEMU's memory."""
        if self._memory >= 0:
            os.close(self._memory)
        self._memory = -1

    def _state(self, vcpu: int) -> VcpuState | Refused:
        place = self._places.get(vcpu)
        if place is None:
            return Refused(f"there is no vCPU {vcpu}", RefusalKind.IMPOSSIBLE)
        if self.skips_idle and self._threads and self._threads.halted(vcpu):
            return Refused("the vCPU is idle", RefusalKind.HALTED)
        data = _read(self._memory, place.address, _SIZE)
        if data is None:
            return Refused("the machine ended", RefusalKind.GONE)
        return _state_of(data, place.efer)


def _state_of(data: bytes, efer: int) -> VcpuState:
    words = _GENERAL.unpack_from(data)
    (hflags,) = struct.unpack_from("<I", data, _HFLAGS_AT)
    (selector,) = struct.unpack_from("<I", data, _SEGS_AT + _CS * _SEGMENT)
    fs_base, gs_base = (int(struct.unpack_from("<Q", data, _SEGS_AT + number * _SEGMENT + _BASE)[0]) for number in (_FS, _GS))
    cr0, _, _, cr3, cr4 = _CONTROL.unpack_from(data, _CR_AT)
    return VcpuState(
        registers=Registers(X86_64, words[16], dict(zip(_DWARF_OF, words[:16], strict=True)), fs_base),
        cr0=cr0,
        cr3=cr3,
        cr4=cr4,
        efer=efer | _EFER_LMA if hflags & _HF_LMA else efer & ~_EFER_LMA,
        cs=selector & 0xFFFF,
        cpl=hflags & _HF_CPL,
        rflags=words[17],
        fs_base=fs_base,
        gs_base=gs_base,
        kernel_gs_base=None,
        halted=False,
        snapshot=False,
    )


def _descriptor_tables(text: str) -> dict[int, dict[str, int]]:
    """Each vCPU's registers as the monitor prints them (`info registers -a`), for those that have tables of their own."""
    blocks = text.split("CPU#")[1 : _MOST_VCPUS + 1]
    found: dict[int, dict[str, int]] = {}
    for block in blocks:
        number, _, rest = block.partition("\n")
        if number.strip().isascii() and number.strip().isdigit():
            found[int(number)] = hmp_text.words(rest)
    tables = {words.get("GDT", 0) for words in found.values()}
    if not found or 0 in tables or len(tables) < len(found):
        raise Unsupported("the guest has not booted so far that its vCPUs can be told apart", hint="Try again when its kernel runs.")
    return found


def _find(memory: int, mappings: Sequence[Mapping], wanted: MappingOf[int, MappingOf[str, int]]) -> dict[int, _Place]:
    """The vCPUs' places; Unsupported when one of them is not found, or twice."""
    places: dict[int, _Place] = {}
    for mapping in sorted(mappings, key=lambda one: one.path != "[heap]"):
        if len(places) == len(wanted):
            return places
        if not mapping.writable or mapping.inode or mapping.end - mapping.start > _LARGEST_SEARCHED:
            continue
        for number, words in wanted.items():
            if number not in places:
                for address in _addresses(memory, mapping, words):
                    if number in places:
                        raise Unsupported(f"the state of vCPU {number} is in QEMU's memory twice", hint="")
                    places[number] = _Place(address, words.get("EFER", 0))
    if len(places) < len(wanted):
        raise Unsupported("the vCPUs' state is not found in QEMU's memory", hint="QEMU 7.2 to 10.0 are known; use gdbstub.")
    return places


def _addresses(memory: int, mapping: Mapping, words: MappingOf[str, int]) -> Iterator[int]:
    """Where in the mapping a state lies with these descriptor tables, these control registers and a likely rest."""
    pattern = struct.pack("<Q", words.get("GDT", 0))
    hits = 0
    for start in range(mapping.start, mapping.end, _CHUNK):
        # Pages that were never written are zero, and cannot hold what is searched.
        data = _read(memory, start, min(_CHUNK, mapping.end - start)) or b""
        at = data.find(pattern)
        while at >= 0 and hits < _MOST_HITS:
            hits += 1
            address = start + at - _GDT_AT - _BASE
            state = _read(memory, address, _SIZE) if at % 8 == 0 else None
            if state and _is_state(state, words):
                yield address
            at = data.find(pattern, at + 8)


def _is_state(data: bytes, words: MappingOf[str, int]) -> bool:
    (idt,) = struct.unpack_from("<Q", data, _IDT_AT + _BASE)
    (task,) = struct.unpack_from("<Q", data, _TR_AT + _BASE)
    cr0, cr1, _, cr3, _ = _CONTROL.unpack_from(data, _CR_AT)
    try:
        # CR4 is not compared: the PCE and LA57 bits stay, but others may differ between the monitor's look and ours.
        return (idt, task, cr0 & ~0x8, cr1) == (words["IDT"], words["TR_BASE"], words["CR0"] & ~0x8, 0) and cr3 % 8 == 0
    except KeyError as error:
        raise BadInput(f"the monitor prints no register {error}") from None


def _read(memory: int, address: int, size: int) -> bytes | None:
    try:
        data = os.pread(memory, size, address)
    except (OSError, OverflowError):
        return None
    return data if len(data) == size else None
