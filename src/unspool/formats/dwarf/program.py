"""CFI programs: the opcodes of a CIE and an FDE, run into rows that say where the caller's registers are (DWARF 5, section 6.4)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from unspool.formats.dwarf.budget import Budget, OverBudget
from unspool.formats.dwarf.cfi import Cie, Fde
from unspool.formats.dwarf.cursor import Cursor
from unspool.formats.dwarf.pointers import pointer

MAX_OPCODES = 1 << 16
"""Opcodes of one program (CIE and FDE together) at most."""
MAX_REMEMBERED = 64
"""States that DW_CFA_remember_state may stack up."""
MAX_REGISTERS = 4096
"""Register numbers from here on are not of any machine."""

# DWARF for the Arm 64-bit Architecture, section 4.1: the pseudo register that says whether return addresses are signed.
RA_SIGN_STATE = 34


class How(enum.IntEnum):
    """How a register of the caller is found (DWARF 5, section 6.4.1)."""

    UNDEFINED = 0
    SAME_VALUE = 1
    OFFSET = 2
    """at `CFA + value`"""
    VAL_OFFSET = 3
    """is `CFA + value`"""
    REGISTER = 4
    """in register `value`"""
    EXPRESSION = 5
    """at the address that the expression gives"""
    VAL_EXPRESSION = 6
    """is what the expression gives"""


@dataclass(frozen=True, slots=True)
class RegisterRule:
    """One register's rule; `value` is an offset in bytes or a register number, `expression` the DWARF operations."""

    how: How
    value: int = 0
    expression: bytes = b""


UNDEFINED = RegisterRule(How.UNDEFINED)
SAME_VALUE = RegisterRule(How.SAME_VALUE)


@dataclass(frozen=True, slots=True)
class CfaRule:
    """`CFA = register + offset`, or what `expression` gives where it is not None."""

    register: int = 0
    offset: int = 0
    expression: bytes | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The rules for pcs in `[start, end)`. A register that is not in `registers` has no rule: what that means is the ABI's business.

    `ra_signed` says that AArch64's return address carries an authentication code.
    """

    start: int
    end: int
    cfa: CfaRule | None
    registers: Mapping[int, RegisterRule]
    ra_signed: bool = False


def rows(fde: Fde) -> Iterator[Row]:
    """The FDE's rows in order, from its start to its end without gap; rows past the end are clipped. BadInput for a broken program."""
    return _Machine(fde.cie, fde).run()


def row_at(fde: Fde, pc: int, budget: Budget | None = None) -> Row | None:
    """The row for the pc, None when the program ends before it (it cannot, if the pc is in the FDE)."""
    machine = _Machine(fde.cie, fde)
    found = next((row for row in machine.run() if row.start <= pc < row.end), None)
    if budget is not None:
        budget.spend(machine.opcodes)
    return found


def initial_row(cie: Cie) -> Row:
    """The state in which the CIE's instructions leave every FDE."""
    machine = _Machine(cie, None)
    return Row(0, 0, machine.cfa, dict(machine.registers), machine.ra_signed)


class _Machine:
    """The state of a CFI program: the row that is being made, and those remembered."""

    def __init__(self, cie: Cie, fde: Fde | None) -> None:
        self.cie = cie
        self.fde = fde
        self.location = fde.start if fde else 0
        self.cfa: CfaRule | None = None
        self.registers: dict[int, RegisterRule] = {}
        self.ra_signed = False
        self.shared = False
        self.initial: dict[int, RegisterRule] = {}
        self.remembered: list[tuple[CfaRule | None, dict[int, RegisterRule], bool]] = []
        self.opcodes = 0
        self.cursor = Cursor(cie.instructions, cie.byte_order, origin=cie.instructions_at)
        for _ in self._execute(in_cie=True):
            pass
        self.initial = dict(self.registers)

    def run(self) -> Iterator[Row]:
        """The FDE's rows."""
        fde = self.fde
        assert fde is not None
        self.cursor = Cursor(fde.instructions, fde.cie.byte_order, origin=fde.instructions_at)
        for start, end in self._execute(in_cie=False):
            if start >= fde.end:
                return
            yield self._row(start, min(end, fde.end))
        if self.location < fde.end:
            yield self._row(self.location, fde.end)

    def _row(self, start: int, end: int) -> Row:
        self.shared = True
        return Row(start, end, self.cfa, self.registers, self.ra_signed)

    def _execute(self, *, in_cie: bool) -> Iterator[tuple[int, int]]:
        """Run the program; gives (start, end) of each row while the machine still holds it."""
        cursor, cie = self.cursor, self.cie
        while cursor.offset < cursor.end:
            self.opcodes += 1
            if self.opcodes > MAX_OPCODES:
                raise OverBudget(f"more than {MAX_OPCODES} CFI opcodes", offset=cursor.origin + cursor.offset)
            opcode = cursor.u8()
            primary, operand = opcode & 0xC0, opcode & 0x3F
            if primary == 0x80:  # DW_CFA_offset
                self._set(operand, RegisterRule(How.OFFSET, cursor.uleb() * cie.data_align))
                continue
            if primary == 0xC0:  # DW_CFA_restore
                self._restore(operand)
                continue
            if primary == 0x40:  # DW_CFA_advance_loc
                target = self.location + operand * cie.code_align
            elif opcode in _ADVANCES:
                target = self.location + cursor.unsigned(_ADVANCES[opcode]) * cie.code_align
            elif opcode == 0x01:  # DW_CFA_set_loc
                target = pointer(cursor, cie.encoding, cie.word)
            else:
                handler = _HANDLERS.get(opcode)
                if handler is None:
                    raise cursor.bad(f"CFI opcode {opcode:#x}")
                handler(self)
                continue
            if in_cie or target < self.location:
                raise cursor.bad("CFI program goes backwards" if not in_cie else "CIE that advances")
            if target > self.location:
                yield self.location, target
                self.location = target

    # -- registers

    def _set(self, register: int, rule: RegisterRule | None) -> None:
        if register >= MAX_REGISTERS:
            raise self.cursor.bad(f"register {register}")
        if self.shared:
            self.registers = dict(self.registers)
            self.shared = False
        if rule is None:
            self.registers.pop(register, None)
        else:
            self.registers[register] = rule

    def _restore(self, register: int) -> None:
        self._set(register, self.initial.get(register))

    def restore_extended(self) -> None:
        self._restore(self.cursor.uleb())

    def undefined(self) -> None:
        self._set(self.cursor.uleb(), UNDEFINED)

    def same_value(self) -> None:
        self._set(self.cursor.uleb(), SAME_VALUE)

    def offset_extended(self) -> None:
        self._set(self.cursor.uleb(), RegisterRule(How.OFFSET, self.cursor.uleb() * self.cie.data_align))

    def offset_extended_sf(self) -> None:
        self._set(self.cursor.uleb(), RegisterRule(How.OFFSET, self.cursor.sleb() * self.cie.data_align))

    def negative_offset_extended(self) -> None:
        self._set(self.cursor.uleb(), RegisterRule(How.OFFSET, -self.cursor.uleb() * self.cie.data_align))

    def val_offset(self) -> None:
        self._set(self.cursor.uleb(), RegisterRule(How.VAL_OFFSET, self.cursor.uleb() * self.cie.data_align))

    def val_offset_sf(self) -> None:
        self._set(self.cursor.uleb(), RegisterRule(How.VAL_OFFSET, self.cursor.sleb() * self.cie.data_align))

    def in_register(self) -> None:
        self._set(self.cursor.uleb(), RegisterRule(How.REGISTER, self.cursor.uleb()))

    def expression(self) -> None:
        self._set(self.cursor.uleb(), RegisterRule(How.EXPRESSION, 0, self._block()))

    def val_expression(self) -> None:
        self._set(self.cursor.uleb(), RegisterRule(How.VAL_EXPRESSION, 0, self._block()))

    def _block(self) -> bytes:
        return self.cursor.bytes(self.cursor.uleb())

    # -- the CFA

    def def_cfa(self) -> None:
        self.cfa = CfaRule(self.cursor.uleb(), self.cursor.uleb())

    def def_cfa_sf(self) -> None:
        self.cfa = CfaRule(self.cursor.uleb(), self.cursor.sleb() * self.cie.data_align)

    def def_cfa_register(self) -> None:
        self.cfa = CfaRule(self.cursor.uleb(), self._plain_cfa().offset)

    def def_cfa_offset(self) -> None:
        self.cfa = CfaRule(self._plain_cfa().register, self.cursor.uleb())

    def def_cfa_offset_sf(self) -> None:
        self.cfa = CfaRule(self._plain_cfa().register, self.cursor.sleb() * self.cie.data_align)

    def def_cfa_expression(self) -> None:
        self.cfa = CfaRule(expression=self._block())

    def _plain_cfa(self) -> CfaRule:
        """The CFA rule, which must be register and offset already (DWARF 5, section 6.4.2.2)."""
        if self.cfa is None or self.cfa.expression is not None:
            raise self.cursor.bad("part of a CFA rule is changed that is not register + offset")
        return self.cfa

    # -- states

    def remember(self) -> None:
        if len(self.remembered) >= MAX_REMEMBERED:
            raise OverBudget(f"more than {MAX_REMEMBERED} remembered states", offset=self.cursor.origin + self.cursor.offset)
        self.remembered.append((self.cfa, dict(self.registers), self.ra_signed))

    def restore_state(self) -> None:
        if not self.remembered:
            raise self.cursor.bad("DW_CFA_restore_state without a remembered state")
        self.cfa, self.registers, self.ra_signed = self.remembered.pop()
        self.shared = False

    def negate_ra_state(self) -> None:
        self.ra_signed = not self.ra_signed

    def nop(self) -> None:
        pass

    def args_size(self) -> None:
        self.cursor.uleb()


_ADVANCES = {0x02: 1, 0x03: 2, 0x04: 4, 0x1D: 8}
"""DW_CFA_advance_loc1, 2, 4 and MIPS_advance_loc8: the bytes of their operand."""

_HANDLERS: dict[int, Callable[[_Machine], None]] = {
    0x00: _Machine.nop,  # DW_CFA_nop
    0x05: _Machine.offset_extended,
    0x06: _Machine.restore_extended,
    0x07: _Machine.undefined,
    0x08: _Machine.same_value,
    0x09: _Machine.in_register,
    0x0A: _Machine.remember,
    0x0B: _Machine.restore_state,
    0x0C: _Machine.def_cfa,
    0x0D: _Machine.def_cfa_register,
    0x0E: _Machine.def_cfa_offset,
    0x0F: _Machine.def_cfa_expression,
    0x10: _Machine.expression,
    0x11: _Machine.offset_extended_sf,
    0x12: _Machine.def_cfa_sf,
    0x13: _Machine.def_cfa_offset_sf,
    0x14: _Machine.val_offset,
    0x15: _Machine.val_offset_sf,
    0x16: _Machine.val_expression,
    0x2C: _Machine.negate_ra_state,  # DW_CFA_AARCH64_negate_ra_state_with_pc
    0x2D: _Machine.negate_ra_state,  # DW_CFA_AARCH64_negate_ra_state, also GNU_window_save of machines that are not supported
    0x2E: _Machine.args_size,  # DW_CFA_GNU_args_size
    0x2F: _Machine.negative_offset_extended,  # DW_CFA_GNU_negative_offset_extended
}
