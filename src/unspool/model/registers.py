"""The registers of one frame: what is known of them, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unspool.model.arch import Arch


@dataclass(frozen=True, slots=True)
class Registers:
    """A frame's registers: `values` by DWARF number; a register that is not in it is not known (never 0 for unknown).

    `pc` is the instruction pointer; the stack pointer is `values[arch.sp]`. `fs_base` is x86-64's thread pointer (aarch64: tpidr_el0,
    s390x: a0:a1) when the source captured it.

    >>> from unspool.model.arch import X86_64
    >>> Registers(X86_64, 0x401000, {7: 0x7ffe0000}).sp == 0x7ffe0000
    True
    """

    arch: Arch
    pc: int
    values: Mapping[int, int]
    thread_pointer: int | None = None

    @property
    def sp(self) -> int:
        """The stack pointer; KeyError when it was not captured."""
        return self.values[self.arch.sp]

    def get(self, number: int) -> int | None:
        """The register's value, None when it is not known."""
        return self.values.get(number)
