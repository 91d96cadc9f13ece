"""CFI programs: each opcode, and what hostile ones are refused for."""

from __future__ import annotations

import pytest
from formats.dwarf.cfi_builder import (
    NEGATE_RA_STATE,
    RA,
    RBP,
    RBX,
    REMEMBER,
    RESTORE_STATE,
    RSP,
    Section,
    advance,
    breg,
    def_cfa,
    def_cfa_expression,
    def_cfa_offset,
    def_cfa_register,
    expression,
    in_register,
    offset,
    offset_sf,
    restore,
    same_value,
    undefined,
    val_expression,
    val_offset,
)

from unspool.errors import BadInput
from unspool.formats.dwarf import CfaRule, Fde, FrameSection, How, OverBudget, RegisterRule, Row, row_at, rows
from unspool.formats.dwarf.program import MAX_OPCODES, MAX_REMEMBERED, initial_row
from unspool.model.memory import Bytes

START, SIZE = 0x1000, 0x100
PLAIN = (def_cfa(RSP, 8), offset(RA, 1))


def fde_of(*instructions: bytes, initial: tuple[bytes, ...] = PLAIN, size: int = SIZE) -> Fde:
    section = Section(0x2000)
    section.fde(section.cie(*initial), START, size, *instructions)
    data = section.bytes()
    return next(FrameSection(Bytes(0x2000, data), 0x2000, 0x2000 + len(data)).fdes())


def rows_of(*instructions: bytes, initial: tuple[bytes, ...] = PLAIN, size: int = SIZE) -> list[Row]:
    return list(rows(fde_of(*instructions, initial=initial, size=size)))


def last(*instructions: bytes, initial: tuple[bytes, ...] = PLAIN) -> Row:
    return rows_of(*instructions, initial=initial)[-1]


def test_a_program_without_instructions_has_the_row_of_its_cie() -> None:
    (row,) = rows_of()
    assert Row(START, START + SIZE, CfaRule(RSP, 8), {RA: RegisterRule(How.OFFSET, -8)}) == row


@pytest.mark.parametrize("delta", [1, 0x3F, 0x40, 0xFF, 0x100, 0xFFFF, 0x10000])
def test_rows_begin_where_the_location_advances_to(delta: int) -> None:
    first, second = rows_of(advance(delta), def_cfa_offset(16), size=0x20000)
    assert (START, START + delta, 8) == (first.start, first.end, first.cfa and first.cfa.offset)
    assert (START + delta, START + 0x20000, 16) == (second.start, second.end, second.cfa and second.cfa.offset)


def test_row_at_gives_the_row_that_holds_the_pc() -> None:
    fde = fde_of(advance(4), def_cfa_offset(16), advance(4), def_cfa_offset(24))
    offsets = {pc: row.cfa.offset for pc in (0, 3, 4, 7, 8, 0xFF) if (row := row_at(fde, START + pc)) and row.cfa}
    assert {0: 8, 3: 8, 4: 16, 7: 16, 8: 24, 0xFF: 24} == offsets


def test_rows_past_the_end_of_the_function_are_clipped() -> None:
    found = rows_of(advance(0x3F), def_cfa_offset(16), advance(0x3F), def_cfa_offset(24), size=0x40)
    assert [(START, START + 0x3F), (START + 0x3F, START + 0x40)] == [(row.start, row.end) for row in found]


@pytest.mark.parametrize(
    ("instruction", "register", "rule"),
    [
        (offset(RBX, 2), RBX, RegisterRule(How.OFFSET, -16)),
        (offset(100, 2), 100, RegisterRule(How.OFFSET, -16)),
        (offset_sf(RBX, -2), RBX, RegisterRule(How.OFFSET, 16)),
        (b"\x2f\x03\x02", RBX, RegisterRule(How.OFFSET, 16)),
        (val_offset(RBX, 1), RBX, RegisterRule(How.VAL_OFFSET, -8)),
        (b"\x15\x03\x7f", RBX, RegisterRule(How.VAL_OFFSET, 8)),
        (in_register(RBX, 12), RBX, RegisterRule(How.REGISTER, 12)),
        (same_value(RBX), RBX, RegisterRule(How.SAME_VALUE)),
        (undefined(RA), RA, RegisterRule(How.UNDEFINED)),
        (expression(RBX, breg(RSP, 8)), RBX, RegisterRule(How.EXPRESSION, 0, breg(RSP, 8))),
        (val_expression(RBX, breg(RSP, 8)), RBX, RegisterRule(How.VAL_EXPRESSION, 0, breg(RSP, 8))),
    ],
)
def test_each_rule_is_what_its_opcode_says(instruction: bytes, register: int, rule: RegisterRule) -> None:
    assert rule == last(instruction).registers[register]


@pytest.mark.parametrize(
    ("instruction", "rule"),
    [
        (def_cfa(RBP, 16), CfaRule(RBP, 16)),
        (b"\x12\x06\x7e", CfaRule(RBP, 16)),
        (def_cfa_register(RBP), CfaRule(RBP, 8)),
        (def_cfa_offset(64), CfaRule(RSP, 64)),
        (b"\x13\x7c", CfaRule(RSP, 32)),
        (def_cfa_expression(breg(RBP, -8) + b"\x06"), CfaRule(expression=breg(RBP, -8) + b"\x06")),
        (b"\x2e\x10", CfaRule(RSP, 8)),
    ],
)
def test_each_cfa_is_what_its_opcode_says(instruction: bytes, rule: CfaRule) -> None:
    assert rule == last(instruction).cfa


def test_restore_gives_back_the_rule_of_the_cie_or_none() -> None:
    row = last(offset(RBX, 2), offset(RA, 5), advance(1), restore(RBX), b"\x06\x10")
    assert {RA: RegisterRule(How.OFFSET, -8)} == row.registers


def test_a_remembered_state_holds_the_cfa_too() -> None:
    first, second, third = rows_of(REMEMBER, offset(RBX, 2), advance(1), def_cfa_offset(32), advance(1), RESTORE_STATE)
    assert RBX in first.registers
    assert RBX in second.registers
    assert (CfaRule(RSP, 8), {RA}) == (third.cfa, set(third.registers))


def test_a_row_does_not_change_once_it_was_given() -> None:
    given = rows(fde_of(advance(1), offset(RBX, 2), advance(1), undefined(RBX)))
    first = next(given)
    list(given)
    assert {RA} == set(first.registers)


def test_aarch64_marks_rows_with_signed_return_addresses() -> None:
    assert [False, True, False] == [row.ra_signed for row in rows_of(advance(4), NEGATE_RA_STATE, advance(4), NEGATE_RA_STATE)]


def test_a_cie_may_leave_any_state() -> None:
    row = last(initial=(def_cfa(RBP, 16), offset(RA, 1), offset(RBP, 2)))
    assert (CfaRule(RBP, 16), {RA, RBP}) == (row.cfa, set(row.registers))
    assert row.registers == initial_row(fde_of(initial=(def_cfa(RBP, 16), offset(RA, 1), offset(RBP, 2))).cie).registers


@pytest.mark.parametrize(
    "instruction",
    [
        b"\x3f",  # no such opcode
        RESTORE_STATE,  # nothing remembered
        def_cfa_expression(b"") + def_cfa_offset(8),  # part of a rule that is not register + offset
        b"\x0f\x7f",  # a block that leaves the program
        b"\x05\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01",  # LEB128 without end
        b"\x05\xff\xff\xff\x7f\x01",  # a register that no machine has
    ],
)
def test_a_broken_program_is_bad_input(instruction: bytes) -> None:
    with pytest.raises(BadInput):
        rows_of(instruction)


def test_a_location_that_goes_back_is_bad_input() -> None:
    # DW_CFA_set_loc, pcrel|sdata4: the distance from the operand itself to the function's first byte, one byte too far.
    section = Section(0x2000)
    cie = section.cie(*PLAIN)
    at = len(section.data)
    operand = 0x2000 + at + 4 + 4 + 8 + 1 + 1 + 1
    section.fde(cie, START, SIZE, advance(8), b"\x01" + (START + 4 - operand).to_bytes(4, "little", signed=True))
    data = section.bytes()
    fde = next(FrameSection(Bytes(0x2000, data), 0x2000, 0x2000 + len(data)).fdes())
    with pytest.raises(BadInput, match="backwards"):
        list(rows(fde))


def test_programs_are_bounded() -> None:
    with pytest.raises(OverBudget):
        rows_of(b"\x00" * (MAX_OPCODES + 1))
    with pytest.raises(OverBudget):
        rows_of(REMEMBER * (MAX_REMEMBERED + 1))
