"""ORC tables written entry by entry in each of their encodings (arch/x86/include/asm/orc_types.h of each age of Linux)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from struct import pack

from unspool.formats.orc import OrcEntry, OrcRegister, OrcType

R = OrcRegister


class Encoding(Enum):
    """The encodings."""

    TYPE2 = auto()
    """4.14 to 6.2: a type of 2 bits, an end bit."""
    TYPE2_SIGNAL = auto()
    """6.3: a signal bit between them."""
    TYPE3 = auto()
    """6.4 on: a type of 3 bits that knows the end, a signal bit."""
    RENUMBERED = auto()
    """7.x: the same with other register numbers."""


OLD_NUMBERS = {R.UNDEFINED: 0, R.PREV_SP: 1, R.DX: 2, R.DI: 3, R.BP: 4, R.SP: 5, R.R10: 6, R.R13: 7, R.BP_INDIRECT: 8, R.SP_INDIRECT: 9}
NEW_NUMBERS = {
    R.UNDEFINED: 0, R.AX: 1, R.DX: 2, R.SP: 3, R.BP: 4, R.DI: 5, R.R10: 6, R.R13: 7, R.PREV_SP: 8, R.SP_INDIRECT: 9, R.BP_INDIRECT: 10,
}  # fmt: skip
TYPES2 = {OrcType.CALL: 0, OrcType.END_OF_STACK: 0, OrcType.UNDEFINED: 0, OrcType.REGS: 1, OrcType.REGS_PARTIAL: 2}
# Bit offset from the start of struct orc_entry, and width.
FIELDS = {
    Encoding.TYPE2: {"sp_reg": (32, 4), "bp_reg": (36, 4), "type": (40, 2), "end": (42, 1)},
    Encoding.TYPE2_SIGNAL: {"sp_reg": (32, 4), "bp_reg": (36, 4), "type": (40, 2), "signal": (42, 1), "end": (43, 1)},
    Encoding.TYPE3: {"sp_reg": (32, 4), "bp_reg": (36, 4), "type": (40, 3), "signal": (43, 1)},
    Encoding.RENUMBERED: {"sp_reg": (32, 4), "bp_reg": (36, 4), "type": (40, 3), "signal": (43, 1)},
}


def call(sp_offset: int, *, bp_offset: int | None = None) -> OrcEntry:
    """An ordinary function: the return address is below sp + sp_offset, the caller's bp at bp_offset from there (None: unchanged)."""
    return OrcEntry(R.SP, sp_offset, R.UNDEFINED if bp_offset is None else R.PREV_SP, bp_offset or 0, OrcType.CALL, signal=False, end=False)


def regs(*, partial: bool = False, signal: bool = False) -> OrcEntry:
    """Entry code: the registers of what was interrupted are at sp."""
    return OrcEntry(R.SP, 0, R.UNDEFINED, 0, OrcType.REGS_PARTIAL if partial else OrcType.REGS, signal=signal, end=False)


END = OrcEntry(R.UNDEFINED, 0, R.UNDEFINED, 0, OrcType.END_OF_STACK, signal=False, end=True)
NOTHING = OrcEntry(R.UNDEFINED, 0, R.UNDEFINED, 0, OrcType.UNDEFINED, signal=False, end=False)


def entry_bytes(entry: OrcEntry, encoding: Encoding) -> bytes:
    """One `struct orc_entry`."""
    numbers = NEW_NUMBERS if encoding is Encoding.RENUMBERED else OLD_NUMBERS
    fields = FIELDS[encoding]
    kind = TYPES2[entry.type] if fields["type"][1] == 2 else int(entry.type)
    values = {"sp_reg": numbers[entry.sp_reg], "bp_reg": numbers[entry.bp_reg], "type": kind, "signal": entry.signal, "end": entry.end}
    flags = sum(values[name] << offset - 32 for name, (offset, _) in fields.items())
    return pack("<hhH", entry.sp_offset, entry.bp_offset, flags)


def orc_tables(rows: Sequence[tuple[int, OrcEntry]], address: int, encoding: Encoding) -> tuple[bytes, bytes]:
    """`.orc_unwind_ip`, to be placed at `address`, and `.orc_unwind`, for (pc, entry) rows in order."""
    ips = b"".join(pack("<i", pc - (address + 4 * index)) for index, (pc, _) in enumerate(rows))
    return ips, b"".join(entry_bytes(entry, encoding) for _, entry in rows)
