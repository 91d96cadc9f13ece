from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from unspool.model.arch import AARCH64, S390X, X86_64
from unspool.targets.prstatus import registers_of


def x86_64(**known: int) -> bytes:
    """A user_regs_struct with the named registers, the others 0."""
    names = [
        "r15",
        "r14",
        "r13",
        "r12",
        "rbp",
        "rbx",
        "r11",
        "r10",
        "r9",
        "r8",
        "rax",
        "rcx",
        "rdx",
        "rsi",
        "rdi",
        "orig_rax",
        "rip",
        "cs",
        "eflags",
        "rsp",
        "ss",
        "fs_base",
        "gs_base",
        "ds",
        "es",
        "fs",
        "gs",
    ]
    return struct.pack("<27Q", *(known.get(name, 0) for name in names))


def test_registers_come_by_dwarf_number() -> None:
    registers = registers_of(X86_64, x86_64(rip=0x401000, rsp=0x7FFE0000, cs=0x33, rdx=1, rbx=3, r15=15, fs_base=0x7F00))
    assert registers is not None
    assert (0x401000, 0x7FFE0000, 0x7F00) == (registers.pc, registers.sp, registers.thread_pointer)
    assert (1, 3, 15) == (registers.get(1), registers.get(3), registers.get(15))


def test_32_bit_code_has_no_registers_for_us() -> None:
    assert registers_of(X86_64, x86_64(cs=0x23)) is None
    assert registers_of(X86_64, bytes(68)) is None


def test_aarch64_has_the_stack_pointer_at_31_and_the_pc_apart() -> None:
    registers = registers_of(AARCH64, struct.pack("<34Q", *range(100, 134)))
    assert registers is not None
    assert (132, 131, 130) == (registers.pc, registers.sp, registers.get(30))


def test_s390x_takes_the_psw_address_as_pc_and_the_access_registers_as_thread_pointer() -> None:
    registers = registers_of(S390X, struct.pack(">18Q2I", 7, 0x1000, *range(200, 216), 0x3FF, 0x80))
    assert registers is not None
    assert (0x1000, 215, 0x3FF_0000_0080) == (registers.pc, registers.sp, registers.thread_pointer)


@given(st.sampled_from([X86_64, AARCH64, S390X]), st.binary(max_size=300))
def test_any_bytes_give_registers_or_none(arch: object, data: bytes) -> None:
    assert registers_of(arch, data) is None or len(data) >= 144  # type: ignore[arg-type]
