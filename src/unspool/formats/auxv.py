"""The auxiliary vector: what the kernel told a program at its start (/proc/PID/auxv, the NT_AUXV note of a core)."""

from __future__ import annotations

import enum
import struct
from typing import Literal


class AuxType(enum.IntEnum):
    """The entries that an unwinder needs (include/uapi/linux/auxvec.h)."""

    PHDR = 3
    PHENT = 4
    PHNUM = 5
    PAGESZ = 6
    BASE = 7
    ENTRY = 9
    PLATFORM = 15
    RANDOM = 25
    EXECFN = 31
    SYSINFO_EHDR = 33


def parse_auxv(data: bytes, *, word: int = 8, byte_order: Literal["little", "big"] = "little") -> dict[int, int]:
    """Values by entry type (AuxType), up to AT_NULL or the last whole pair; the first of equal types counts, as in getauxval().

    `word` is the program's word size in bytes (4 or 8). A vector that was cut short gives what it holds: there is nothing in it to check.

    >>> parse_auxv(struct.pack("<4Q", AuxType.ENTRY, 0x401000, 0, 0))[AuxType.ENTRY] == 0x401000
    True
    """
    pair = struct.Struct(("<" if byte_order == "little" else ">") + ("2Q" if word == 8 else "2I"))
    values: dict[int, int] = {}
    for key, value in pair.iter_unpack(data[: len(data) - len(data) % pair.size]):
        if key == 0:
            break
        values.setdefault(key, value)
    return values
