"""The general registers as the kernel hands them out: the NT_PRSTATUS register set of ptrace and of core dumps."""

from __future__ import annotations

import struct

from unspool.model.arch import AARCH64, S390X, X86_64, Arch
from unspool.model.registers import Registers

# struct user_regs_struct (arch/x86/include/asm/user_64.h): 27 words in this order.
_X86_64_WORDS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
_X86_64_DWARF = [(number, _X86_64_WORDS.index(name)) for number, name in enumerate(X86_64.registers[:16])]
_X86_64_RIP, _X86_64_CS, _X86_64_FS_BASE = (_X86_64_WORDS.index(name) for name in ("rip", "cs", "fs_base"))
# __USER_CS (arch/x86/include/asm/segment.h): the code segment of 64-bit programs; __USER32_CS is 0x23.
_USER_CS = 0x33
# struct user_pt_regs (arch/arm64/include/uapi/asm/ptrace.h): x0-x30, sp, pc, pstate.
_AARCH64_WORDS = 34
# s390_regs (arch/s390/include/uapi/asm/ptrace.h): the PSW's mask and address, 16 general registers; then access registers.
_S390X_WORDS = 18


def registers_of(arch: Arch, data: bytes) -> Registers | None:
    """The registers in a register set of that machine; None when the bytes are too few or are those of 32-bit code."""
    if arch is X86_64:
        return _x86_64(data)
    if arch is AARCH64:
        return _aarch64(data)
    return _s390x(data) if arch is S390X else None


def _x86_64(data: bytes) -> Registers | None:
    layout = struct.Struct(f"<{len(_X86_64_WORDS)}Q")
    if len(data) < layout.size:
        return None
    words = layout.unpack_from(data)
    if words[_X86_64_CS] != _USER_CS:
        return None
    values = {number: words[index] for number, index in _X86_64_DWARF}
    return Registers(X86_64, words[_X86_64_RIP], values, words[_X86_64_FS_BASE])


def _aarch64(data: bytes) -> Registers | None:
    layout = struct.Struct(f"<{_AARCH64_WORDS}Q")
    if len(data) < layout.size:
        return None
    words = layout.unpack_from(data)
    return Registers(AARCH64, words[32], dict(enumerate(words[:32])))


def _s390x(data: bytes) -> Registers | None:
    layout = struct.Struct(f">{_S390X_WORDS}Q2I")
    if len(data) < layout.size:
        return None
    words = layout.unpack_from(data)
    # Access registers 0 and 1 hold the thread pointer's halves.
    return Registers(S390X, words[1], dict(enumerate(words[2:18])), words[18] << 32 | words[19])
