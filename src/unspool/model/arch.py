"""The machines whose stacks are understood: register numbers as DWARF gives them, and the ABI's facts that an unwinder needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Arch:
    """One machine: sizes in bytes, registers by DWARF number.

    `callee_saved` are the registers a function must give back (psABI); a register without a CFI rule keeps its value only if it is one
    of them or the stack pointer. `link_register` is None where a call pushes its return address.
    """

    name: str
    elf_machine: int
    byte_order: Literal["little", "big"]
    word: int
    sp: int
    fp: int
    ra: int
    link_register: int | None
    callee_saved: frozenset[int]
    registers: tuple[str, ...] = field(repr=False)
    stack_alignment: int

    def register_name(self, number: int) -> str:
        """The psABI's name of a DWARF register number, `r<number>` where it has none."""
        return self.registers[number] if 0 <= number < len(self.registers) else f"r{number}"


# System V psABI AMD64, figure 3.36 (DWARF register number mapping).
_X86_64_NAMES = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip")
# DWARF for the Arm 64-bit Architecture, section 4.1; 34 is RA_SIGN_STATE.
_AARCH64_NAMES = (*(f"x{n}" for n in range(30)), "lr", "sp", "pc", "elr_mode", "ra_sign_state")
# S/390 ELF ABI supplement: 0-15 general registers, 16-31 floating-point registers in this order, 65 the PSW address.
_S390X_NAMES = (
    *(f"r{n}" for n in range(16)),
    *(f"f{n}" for n in (0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)),
)

X86_64 = Arch(
    name="x86_64",
    elf_machine=62,
    byte_order="little",
    word=8,
    sp=7,
    fp=6,
    ra=16,
    link_register=None,
    callee_saved=frozenset({3, 6, 12, 13, 14, 15}),
    registers=_X86_64_NAMES,
    stack_alignment=16,
)
AARCH64 = Arch(
    name="aarch64",
    elf_machine=183,
    byte_order="little",
    word=8,
    sp=31,
    fp=29,
    ra=30,
    link_register=30,
    callee_saved=frozenset(range(19, 30)) | frozenset(range(72, 80)),
    registers=_AARCH64_NAMES,
    stack_alignment=16,
)
S390X = Arch(
    name="s390x",
    elf_machine=22,
    byte_order="big",
    word=8,
    sp=15,
    fp=11,
    ra=14,
    link_register=14,
    callee_saved=frozenset(range(6, 14)) | frozenset(range(24, 32)),
    registers=_S390X_NAMES,
    stack_alignment=8,
)

ARCHES = {arch.elf_machine: arch for arch in (X86_64, AARCH64, S390X)}
"""Every machine by its ELF `e_machine`."""
