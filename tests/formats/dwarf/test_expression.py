"""DWARF expressions: each operation, and the bounds of hostile ones."""

from __future__ import annotations

import struct

import pytest
from formats.dwarf.cfi_builder import DEREF, PLUS, RBP, RSP, breg, skip, sleb, uleb
from hypothesis import given
from hypothesis import strategies as st

from unspool.formats.dwarf.cursor import Cursor
from unspool.formats.dwarf.expression import MAX_DEPTH, Context, Failure, evaluate
from unspool.model.memory import Bytes
from unspool.model.verdict import Stop

MEMORY = Bytes(0x1000, struct.pack("<4Q", 0x1111, 0x2222, 0x8877665544332211, 0x1008))
REGISTERS = {RSP: 0x1000, RBP: 0x1010, 40: 7}
MINUS_1 = (1 << 64) - 1


def value_of(operations: bytes, *initial: int) -> int | Failure:
    return evaluate(operations, Context(REGISTERS, MEMORY), initial)


def lit(number: int) -> bytes:
    return bytes([0x30 + number])


def const(number: int) -> bytes:
    return b"\x11" + sleb(number)


@pytest.mark.parametrize(
    ("operations", "value"),
    [
        (lit(0), 0),
        (lit(31), 31),
        (b"\x03" + struct.pack("<Q", 0x123456789), 0x123456789),
        (b"\x08\xff", 0xFF),
        (b"\x09\xff", MINUS_1),
        (b"\x0a\xff\xff", 0xFFFF),
        (b"\x0b\xff\xff", MINUS_1),
        (b"\x0c" + b"\xff" * 4, 0xFFFFFFFF),
        (b"\x0d" + b"\xff" * 4, MINUS_1),
        (b"\x0e" + b"\xff" * 8, MINUS_1),
        (b"\x0f" + b"\xff" * 8, MINUS_1),
        (b"\x10" + uleb(300), 300),
        (const(-300), (1 << 64) - 300),
        (breg(RBP, -8), 0x1008),
        (b"\x92" + uleb(40) + sleb(1), 8),
        (breg(RSP, 8) + DEREF, 0x2222),
        (breg(RSP, 16) + b"\x94\x02", 0x2211),
        (lit(1) + breg(RSP, 0) + b"\x18", 0x1111),
        (lit(1) + lit(2) + b"\x13", 1),
        (lit(1) + b"\x12" + PLUS, 2),
        (lit(1) + lit(2) + b"\x14", 1),
        (lit(5) + lit(6) + lit(7) + b"\x15\x02", 5),
        (lit(1) + lit(2) + b"\x16", 1),
        # DWARF 5, 2.5.1.3: rot moves the top of three to the bottom.
        (lit(1) + lit(2) + lit(3) + b"\x17", 2),
        (lit(1) + lit(2) + lit(3) + b"\x17\x13", 1),
        (lit(1) + lit(2) + lit(3) + b"\x17\x13\x13", 3),
        (const(-5) + b"\x19", 5),
        (lit(12) + lit(10) + b"\x1a", 8),
        (const(-7) + lit(2) + b"\x1b", (1 << 64) - 3),
        (lit(7) + lit(2) + b"\x1c", 5),
        (lit(2) + lit(7) + b"\x1c", (1 << 64) - 5),
        (lit(7) + lit(4) + b"\x1d", 3),
        (lit(7) + lit(4) + b"\x1e", 28),
        (lit(5) + b"\x1f", (1 << 64) - 5),
        (lit(0) + b"\x20", MINUS_1),
        (lit(12) + lit(10) + b"\x21", 14),
        (lit(12) + lit(10) + b"\x22", 22),
        (lit(12) + b"\x23" + uleb(1000), 1012),
        (lit(3) + lit(4) + b"\x24", 48),
        (lit(3) + b"\x08\x40" + b"\x24", 0),
        (const(-16) + lit(2) + b"\x25", (1 << 62) - 4),
        (const(-16) + lit(2) + b"\x26", (1 << 64) - 4),
        (lit(12) + lit(10) + b"\x27", 6),
        (lit(1) + b"\x28" + struct.pack("<h", 1) + lit(2) + lit(3), 3),
        (lit(9) + lit(0) + b"\x28" + struct.pack("<h", 1) + lit(2) + lit(3), 3),
        (skip(1) + lit(2) + lit(3), 3),
        (lit(3) + lit(3) + b"\x29", 1),
        (const(-1) + lit(0) + b"\x2a", 0),
        (const(-1) + lit(0) + b"\x2b", 0),
        (const(-1) + lit(0) + b"\x2c", 1),
        (const(-1) + lit(0) + b"\x2d", 1),
        (const(-1) + lit(0) + b"\x2e", 1),
        (lit(4) + b"\x96", 4),
        (lit(4) + b"\xa8\x00", 4),
        (lit(4) + b"\xa9\x00", 4),
        (b"\xf1\x03" + struct.pack("<I", 77), 77),
    ],
)
def test_each_operation_gives_its_value(operations: bytes, value: int) -> None:
    assert value == value_of(operations)


def test_the_initial_values_are_on_the_stack() -> None:
    assert 0x1008 == value_of(b"\x23\x08", 0x1000)


def test_the_plt_expression_of_gnu_ld() -> None:
    """`rsp + 8 + ((rip & 15) >= 11) << 3`: the lazy PLT's CFA depends on how far its stub has come."""
    operations = breg(RSP, 8) + b"\x80\x00" + lit(15) + b"\x1a" + lit(11) + b"\x2a" + lit(3) + b"\x24" + PLUS
    assert 0x1008 == evaluate(operations, Context(REGISTERS | {16: 0x401026}, MEMORY))
    assert 0x1010 == evaluate(operations, Context(REGISTERS | {16: 0x40102B}, MEMORY))


@pytest.mark.parametrize(
    ("operations", "stop"),
    [
        (skip(-3), Stop.EXPR_LIMIT),
        (lit(1) + b"\x12" + skip(-4), Stop.EXPR_LIMIT),
        (lit(1) * (MAX_DEPTH + 1), Stop.EXPR_LIMIT),
        (skip(100), Stop.BAD_CFI),
        (skip(-100), Stop.BAD_CFI),
        (b"", Stop.BAD_CFI),
        (PLUS, Stop.BAD_CFI),
        (lit(1) + b"\x15\x05", Stop.BAD_CFI),
        (b"\x0e\x00", Stop.BAD_CFI),
        (lit(1) + lit(0) + b"\x1b", Stop.BAD_CFI),
        (lit(1) + lit(0) + b"\x1d", Stop.BAD_CFI),
        (breg(RSP, 0) + b"\x94\x09", Stop.BAD_CFI),
        (b"\x10" + b"\xff" * 20, Stop.BAD_CFI),
        (lit(8) + DEREF, Stop.MEM_FAULT),
        (breg(3, 0), Stop.REG_UNAVAILABLE),
        (b"\x9c", Stop.UNSUPPORTED_RULE),
        (b"\x50", Stop.UNSUPPORTED_RULE),
        (lit(1) + b"\xa8\x05", Stop.UNSUPPORTED_RULE),
    ],
)
def test_what_has_no_value_says_why(operations: bytes, stop: Stop) -> None:
    result = value_of(operations)
    assert isinstance(result, Failure)
    assert stop is result.stop


@given(st.binary(max_size=64))
def test_any_bytes_give_a_value_or_a_reason(operations: bytes) -> None:
    result = value_of(operations, 0x1000)
    assert isinstance(result, Failure) or 0 <= result < 1 << 64


@given(st.integers(0, (1 << 64) - 1))
def test_unsigned_leb128_comes_back(number: int) -> None:
    assert number == Cursor(uleb(number), "little").uleb()


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_signed_leb128_comes_back(number: int) -> None:
    assert number == Cursor(sleb(number), "little").sleb()
