"""Call instructions: whether one ends where a return address points (rule R4)."""

from __future__ import annotations

from unspool.model.arch import AARCH64, S390X, X86_64, Arch
from unspool.model.memory import Memory

LONGEST = 7
"""Bytes of the longest call without prefixes: ff /2 with ModRM, SIB and a 32-bit displacement."""


def is_call_site(memory: Memory, address: int, arch: Arch) -> bool:
    """Whether the bytes before the address end in a call instruction; False where they cannot be read."""
    window = _before(memory, address)
    return _DECODERS[arch.name](window)


def _before(memory: Memory, address: int) -> bytes:
    """Up to LONGEST bytes before the address: fewer where what lies before is not readable."""
    for size in range(min(LONGEST, address), 1, -1):
        data = memory.read(address - size, size)
        if data is not None:
            return data
    return b""


def is_x86_64_call(window: bytes) -> bool:
    """Whether the bytes end in a near call: e8 rel32, or ff /2 with any operand (Intel SDM volume 2, CALL).

    >>> is_x86_64_call(bytes.fromhex("ff1500000000")), is_x86_64_call(bytes.fromhex("41ffd4")), is_x86_64_call(bytes.fromhex("c3"))
    (True, True, False)
    """
    if len(window) >= 5 and window[-5] == 0xE8:
        return True
    return any(window[-size] == 0xFF and _indirect_size(window[-size:]) == size for size in range(2, min(len(window), LONGEST) + 1))


def _indirect_size(code: bytes) -> int:
    """The length of the ff /2 instruction that the bytes begin with, 0 when it is another."""
    modrm = code[1]
    if (modrm >> 3) & 7 != 2:
        return 0
    mode, operand = modrm >> 6, modrm & 7
    if mode == 3:
        return 2
    sib = operand == 4
    if mode == 0:
        if sib:
            # A base of 5 without mode means a 32-bit displacement alone.
            return 3 + (4 if len(code) > 2 and code[2] & 7 == 5 else 0)
        return 2 + (4 if operand == 5 else 0)
    return 2 + sib + (1 if mode == 1 else 4)


def is_aarch64_call(window: bytes) -> bool:
    """Whether the last instruction is BL, BLR or one of BLRAA, BLRAB, BLRAAZ, BLRABZ (Arm ARM, C6.2)."""
    if len(window) < 4:
        return False
    word = int.from_bytes(window[-4:], "little")
    return (
        word & 0xFC000000 == 0x94000000
        or word & 0xFFFFFC1F == 0xD63F0000
        or word & 0xFFFFF81F == 0xD63F081F
        or word & 0xFFFFF800 == 0xD73F0800
    )


def is_s390x_call(window: bytes) -> bool:
    """Whether the bytes end in BRASL, BRAS, BASR or BAS with r14 (z/Architecture Principles of Operation)."""
    brasl = len(window) >= 6 and window[-6] == 0xC0 and window[-5] == 0xE5
    four = len(window) >= 4 and (window[-4:-2] == b"\xa7\xe5" or (window[-4] == 0x4D and window[-3] & 0xF0 == 0xE0))
    basr = len(window) >= 2 and window[-2] == 0x0D and window[-1] & 0xF0 == 0xE0
    return brasl or four or basr


_DECODERS = {X86_64.name: is_x86_64_call, AARCH64.name: is_aarch64_call, S390X.name: is_s390x_call}
