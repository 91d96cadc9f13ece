"""What is known of one virtual CPU at one moment, and the seam through which every back end gives it.

x86-64 guests only. The control register bits are those of the Intel SDM, volume 3A, sections 2.2.1 (EFER), 2.5 (CR0, CR4).
"""

from __future__ import annotations

import enum
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from unspool.model.registers import Registers

_CR0_PE, _CR0_PG = 1 << 0, 1 << 31
_CR4_LA57 = 1 << 12
_EFER_LMA = 1 << 10
_CR3_ROOT = 0x000F_FFFF_FFFF_F000
_RPL = 3
KERNEL_HALF = 1 << 63


@dataclass(frozen=True, slots=True)
class VcpuState:
    """One vCPU's registers: what an unwinder and a reader of page tables need of it.

    `registers` holds the general registers by DWARF number, `pc` is RIP. `cs` is the selector, `cpl` the privilege level 0-3.
    `kernel_gs_base` is the MSR of that name, None where the back end cannot read it. `halted`: the vCPU waits in HLT.
    `snapshot`: registers and memory stand still until the `with` block of `VcpuSource.hold` ends; False when the vCPU may run on, so no
    stack made from them is reliable.
    """

    registers: Registers
    cr0: int
    cr3: int
    cr4: int
    efer: int
    cs: int
    cpl: int
    rflags: int
    fs_base: int
    gs_base: int
    kernel_gs_base: int | None
    halted: bool
    snapshot: bool

    @property
    def long_mode(self) -> bool:
        """Whether the vCPU runs with 4- or 5-level page tables; right after a reset it does not, and nothing can be unwound."""
        return bool(self.efer & _EFER_LMA and self.cr0 & _CR0_PG and self.cr0 & _CR0_PE)

    @property
    def levels(self) -> int:
        """The levels of its page tables: 5 with CR4.LA57, else 4."""
        return 5 if self.cr4 & _CR4_LA57 else 4

    @property
    def root(self) -> int:
        """The guest-physical address of its topmost page table: CR3 without flags and PCID."""
        return self.cr3 & _CR3_ROOT

    @property
    def in_kernel(self) -> bool:
        """Whether it executes kernel code (CPL 0 at an address of the upper half)."""
        return self.cpl == 0 and self.registers.pc >= KERNEL_HALF


class RefusalKind(enum.Enum):
    """What a sampler does about a refusal."""

    HALTED = enum.auto()
    """The vCPU is idle and was not touched: count the sample as idle."""
    BUSY = enum.auto()
    """This once it did not work: count the sample as missed and try again."""
    GONE = enum.auto()
    """The machine has ended, or its control socket was closed: no later sample will work."""
    IMPOSSIBLE = enum.auto()
    """This back end cannot serve this vCPU at all; the reason says why."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A vCPU whose registers cannot be had, the reason as a sentence, and what that means for further samples."""

    reason: str
    kind: RefusalKind = RefusalKind.BUSY


class VcpuSource(Protocol):
    """One back end, open on one machine; not safe for use by two threads at once.

    Opening one is a request of the user, so it raises an UnspoolError; from then on everything that happens to a vCPU is a value.
    """

    name: str
    """The back end's name in recordings: `kvm-hold`, `gdbstub`, `qmp-stop`, `qmp-live`, `tcg-state`."""
    vcpus: tuple[int, ...]
    """The vCPUs' numbers, as the guest's kernel counts them on a plain machine: 0, 1, 2, ..."""
    snapshot: bool
    """Whether `hold` stops the vCPU, so that registers and memory belong together."""
    skips_idle: bool
    """Whether a vCPU that is told to be idle from outside is refused (HALTED) without being touched: True when opened, may be changed."""

    def hold(self, vcpu: int) -> AbstractContextManager[VcpuState | Refused]:
        """The vCPU's state; where `snapshot` is True it stands still until the `with` block ends, however that ends."""

    def close(self) -> None:
        """Let go of everything; the machine runs on. A second call does nothing."""
