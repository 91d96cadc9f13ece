"""ORC, the unwind tables of x86-64 Linux kernels: how to get from a pc's stack pointer to its caller's.

Sources: arch/x86/include/asm/orc_types.h and Documentation/arch/x86/orc-unwinder.rst of the Linux sources. Three encodings are in use:
a 2-bit type and an end bit (4.14 to 6.3), a 3-bit type (6.4 on), and the same with the base registers numbered anew (7.x). Entries come
out in one form.
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from unspool.errors import BadInput

MAX_ENTRIES = 4 << 20
"""Ten times what Debian's kernels have."""
ENTRY_SIZE = 6
_ENTRY = Struct("<hhH")


class OrcRegister(enum.IntEnum):
    """What an ORC rule starts from; the numbers are those of Linux 4.14 to 6.x (AX: 7.x only)."""

    UNDEFINED = 0
    PREV_SP = 1
    DX = 2
    DI = 3
    BP = 4
    SP = 5
    R10 = 6
    R13 = 7
    BP_INDIRECT = 8
    """`*(bp + offset)`."""
    SP_INDIRECT = 9
    """`*sp + offset`."""
    AX = 10
    UNKNOWN = 15


class OrcType(enum.IntEnum):
    """What lies at the caller's stack pointer; the numbers are those of Linux 6.4."""

    UNDEFINED = 0
    """Nothing is known: the stack cannot be unwound from here."""
    END_OF_STACK = 1
    CALL = 2
    """A return address, just below."""
    REGS = 3
    """A whole `struct pt_regs`."""
    REGS_PARTIAL = 4
    """The hardware's interrupt frame only."""


class OrcEntry(NamedTuple):
    """The rule at one pc: previous sp = sp_reg + sp_offset, previous bp = *(bp_reg + bp_offset) or unchanged (bp_reg UNDEFINED).

    `signal`: frames of this kind are of the very instruction, not of one after a call. `end`: the outermost frame of the kernel's stack.
    """

    sp_reg: OrcRegister
    sp_offset: int
    bp_reg: OrcRegister
    bp_offset: int
    type: OrcType
    signal: bool
    end: bool


@dataclass(frozen=True, slots=True)
class OrcBits:
    """Where the bit fields of `struct orc_entry` lie in its last 16 bits, as (shift, width); None where this kernel has no such field."""

    type: tuple[int, int]
    signal: tuple[int, int] | None
    end: tuple[int, int] | None

    @classmethod
    def of(cls, fields: Mapping[str, tuple[int, int]]) -> OrcBits:
        """The layout from the struct's members as BTF gives them: bit offset from the struct's start, and width."""
        placed = {name: (offset - 32, width) for name, (offset, width) in fields.items()}
        if placed.get("sp_reg") != (0, 4) or placed.get("bp_reg") != (4, 4):
            raise BadInput("sp_reg and bp_reg are not where every known kernel has them", file="struct orc_entry")
        kind = placed.get("type", (0, 0))
        if kind[1] not in {2, 3} or any(not 8 <= shift < 16 for shift, _ in list(placed.values())[2:]):
            raise BadInput("bit fields that no known kernel has", file="struct orc_entry")
        return cls(kind, placed.get("signal"), placed.get("end"))


BITS_TYPE2 = OrcBits((8, 2), None, (10, 1))
"""Linux 4.14 to 6.2."""
BITS_TYPE2_SIGNAL = OrcBits((8, 2), (10, 1), (11, 1))
"""Linux 6.3."""
BITS_TYPE3 = OrcBits((8, 3), (11, 1), None)
"""Linux 6.4 on."""

_R = OrcRegister
_OLD_REGISTERS = (_R.UNDEFINED, _R.PREV_SP, _R.DX, _R.DI, _R.BP, _R.SP, _R.R10, _R.R13, _R.BP_INDIRECT, _R.SP_INDIRECT)
_NEW_REGISTERS = (_R.UNDEFINED, _R.AX, _R.DX, _R.SP, _R.BP, _R.DI, _R.R10, _R.R13, _R.PREV_SP, _R.SP_INDIRECT, _R.BP_INDIRECT)
_OLD_SP, _NEW_SP = 5, 3
_TYPES2 = (OrcType.CALL, OrcType.REGS, OrcType.REGS_PARTIAL, OrcType.UNDEFINED)
_TYPES3 = (OrcType.UNDEFINED, OrcType.END_OF_STACK, OrcType.CALL, OrcType.REGS, OrcType.REGS_PARTIAL, *(OrcType.UNDEFINED,) * 3)


@dataclass(frozen=True, slots=True)
class OrcEncoding:
    """How one kernel writes its entries: the bit fields, and the meaning of the 16 register numbers."""

    bits: OrcBits
    registers: tuple[OrcRegister, ...]

    @classmethod
    def detect(cls, entries: bytes, bits: OrcBits) -> OrcEncoding:
        """Tell the numbering of registers by the data: most entries of any kernel start from SP. BadInput when neither fits."""
        import numpy as np

        usable = len(entries) - len(entries) % ENTRY_SIZE
        low = np.frombuffer(entries, dtype=np.uint8, count=usable)[4::ENTRY_SIZE] & 15
        counts = np.bincount(low, minlength=16)
        # Entries that say nothing (UNDEFINED) can be many in a small table; they do not tell.
        most = int(counts[1:].argmax()) + 1 if counts[1:].any() else 0
        registers = {_OLD_SP: _OLD_REGISTERS, _NEW_SP: _NEW_REGISTERS}.get(most)
        if registers is None:
            raise BadInput(f"register {most} is the most frequent base, which is SP in no known encoding", file="ORC table")
        return cls(bits, registers + (_R.UNKNOWN,) * (16 - len(registers)))

    def decode(self, sp_offset: int, bp_offset: int, flags: int) -> OrcEntry:
        """One entry in the common form."""
        bits = self.bits
        kind, end = _field(flags, bits.type), bool(bits.end and _field(flags, bits.end))
        meaning = (_TYPES2 if bits.type[1] == 2 else _TYPES3)[kind]
        sp_reg = self.registers[flags & 15]
        if meaning is OrcType.END_OF_STACK or (end and sp_reg is _R.UNDEFINED):
            meaning, end = OrcType.END_OF_STACK, True
        elif sp_reg is _R.UNDEFINED:
            meaning = OrcType.UNDEFINED
        # Kernels without the field take every saved pc for an exact one (arch/x86/kernel/unwind_orc.c before 6.3).
        signal = bool(_field(flags, bits.signal)) if bits.signal else meaning in {OrcType.REGS, OrcType.REGS_PARTIAL}
        return OrcEntry(sp_reg, sp_offset, self.registers[flags >> 4 & 15], bp_offset, meaning, signal, end)


class OrcTable:
    """The entries of one piece of text (vmlinux, or a module), found by pc."""

    def __init__(self, ips: bytes, entries: bytes, encoding: OrcEncoding, address: int) -> None:
        """Take `.orc_unwind_ip` (whose first byte is at `address`) and `.orc_unwind`; BadInput when they do not belong together."""
        import numpy as np

        count = len(ips) // 4
        if not 0 < count <= MAX_ENTRIES or len(entries) != count * ENTRY_SIZE or len(ips) % 4:
            raise BadInput(f"{len(ips)} bytes of addresses for {len(entries)} bytes of entries", file="ORC table")
        # Each address is relative to its own place in the table.
        places = np.frombuffer(ips, dtype="<i4").astype(np.int64) + np.arange(count, dtype=np.int64) * 4
        if (places[1:] < places[:-1]).any():
            raise BadInput("addresses out of order", file="ORC table")
        self.encoding = encoding
        self._address = address
        self._places = array("q", places.tobytes())
        self._entries = entries

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._places)

    @property
    def size(self) -> int:
        """The bytes of memory that the table takes, about."""
        return 8 * len(self._places) + len(self._entries)

    @property
    def start(self) -> int:
        """The first address that has an entry."""
        return self._address + self._places[0]

    def find(self, pc: int) -> OrcEntry | None:
        """The entry that holds at `pc`, None below the first. It is for the caller to know that `pc` lies in this table's text."""
        index = bisect_right(self._places, pc - self._address) - 1
        if index < 0:
            return None
        return self.encoding.decode(*_ENTRY.unpack_from(self._entries, index * ENTRY_SIZE))


def _field(flags: int, place: tuple[int, int]) -> int:
    return flags >> place[0] & (1 << place[1]) - 1
