"""DWARF expressions as CFI uses them: a stack machine, bounded in operations and depth (DWARF 5, section 2.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from unspool.errors import BadInput
from unspool.formats.dwarf.budget import Budget
from unspool.formats.dwarf.cursor import ByteOrder, Cursor
from unspool.formats.dwarf.pointers import pointer
from unspool.model.memory import Memory
from unspool.model.verdict import Stop

MAX_OPERATIONS = 10_000
"""Operations that one evaluation may run; three bytes (DW_OP_skip -3) are enough for an endless loop."""
MAX_DEPTH = 256
"""Values on the stack at most."""
_MASK = (1 << 64) - 1
_SIGN = 1 << 63


class RegisterReader(Protocol):
    """The one question an expression asks of a frame's registers."""

    def get(self, number: int, /) -> int | None:
        """The register's value, None when it is not known."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an expression has no value: EXPR_LIMIT, REG_UNAVAILABLE, MEM_FAULT, UNSUPPORTED_RULE or BAD_CFI, and a sentence."""

    stop: Stop
    detail: str


class _Stopped(Exception):
    def __init__(self, stop: Stop, detail: str) -> None:
        super().__init__(detail)
        self.failure = Failure(stop, detail)


@dataclass(frozen=True, slots=True)
class Context:
    """What an expression works on: a frame's registers, memory, the byte order, and what it may spend."""

    registers: RegisterReader
    memory: Memory
    byte_order: ByteOrder = "little"
    budget: Budget | None = None


def evaluate(expression: bytes, context: Context, initial: tuple[int, ...] = ()) -> int | Failure:
    """The value on top of the stack when the operations end; `initial` is on the stack before (the CFA, for a register's rule)."""
    machine = _Machine(expression, context)
    machine.stack.extend(value & _MASK for value in initial)
    try:
        return machine.run()
    except _Stopped as stopped:
        return stopped.failure
    except BadInput as error:
        return Failure(Stop.BAD_CFI, f"DWARF expression: {error}")


class _Machine:
    def __init__(self, expression: bytes, context: Context) -> None:
        self.cursor = Cursor(expression, context.byte_order)
        self.context = context
        self.stack: list[int] = []

    def run(self) -> int:
        cursor, budget = self.cursor, self.context.budget
        limit = MAX_OPERATIONS if budget is None else min(MAX_OPERATIONS, budget.left)
        for operations in range(limit):
            if cursor.offset >= cursor.end:
                if budget is not None:
                    budget.left -= operations
                return self.pop()
            self.operate(cursor.u8())
        raise _Stopped(
            Stop.EXPR_LIMIT, f"DWARF expressions ran more operations than they may: {MAX_OPERATIONS} each, and a budget for a walk"
        )

    def operate(self, op: int) -> None:
        if 0x30 <= op <= 0x4F:  # DW_OP_lit0-31
            self.push(op - 0x30)
        elif 0x70 <= op <= 0x8F:  # DW_OP_breg0-31
            self.push(self.register(op - 0x70) + self.cursor.sleb())
        elif op in _CONSTANTS:
            size, signed = _CONSTANTS[op]
            self.push(self.cursor.signed(size) if signed else self.cursor.unsigned(size))
        elif op in _BINARY:
            second = self.pop()
            self.push(_BINARY[op](self.pop(), second))
        elif op in _UNARY:
            self.push(_UNARY[op](self.pop()))
        elif op in _OTHERS:
            _OTHERS[op](self)
        else:
            raise _Stopped(Stop.UNSUPPORTED_RULE, f"DWARF operation {op:#x} has no meaning in unwind data")

    def push(self, value: int) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise _Stopped(Stop.EXPR_LIMIT, f"a DWARF expression holds more than {MAX_DEPTH} values")
        self.stack.append(value & _MASK)

    def pop(self) -> int:
        if not self.stack:
            raise self.cursor.bad("the stack of the expression is empty")
        return self.stack.pop()

    def pick(self, index: int) -> None:
        if index >= len(self.stack):
            raise self.cursor.bad(f"the stack of the expression has no value {index}")
        self.push(self.stack[-1 - index])

    def register(self, number: int) -> int:
        value = self.context.registers.get(number)
        if value is None:
            raise _Stopped(Stop.REG_UNAVAILABLE, f"a DWARF expression needs register {number}, which is not known")
        return value

    def load(self, size: int) -> None:
        address = self.pop()
        data = self.context.memory.read(address, size)
        if data is None:
            raise _Stopped(Stop.MEM_FAULT, f"a DWARF expression reads {address:#x}, which cannot be read")
        self.push(int.from_bytes(data, self.context.byte_order))

    # -- operations with operands or effects of their own

    def op_addr(self) -> None:
        self.push(self.cursor.unsigned(8))

    def op_constu(self) -> None:
        self.push(self.cursor.uleb())

    def op_consts(self) -> None:
        self.push(self.cursor.sleb())

    def op_dup(self) -> None:
        self.pick(0)

    def op_drop(self) -> None:
        self.pop()

    def op_over(self) -> None:
        self.pick(1)

    def op_pick(self) -> None:
        self.pick(self.cursor.u8())

    def op_swap(self) -> None:
        first, second = self.pop(), self.pop()
        self.stack += (first, second)

    def op_rot(self) -> None:
        first, second, third = self.pop(), self.pop(), self.pop()
        self.stack += (first, third, second)

    def op_deref(self) -> None:
        self.load(8)

    def op_deref_size(self) -> None:
        size = self.cursor.u8()
        if not 1 <= size <= 8:
            raise self.cursor.bad(f"DW_OP_deref_size {size}")
        self.load(size)

    def op_xderef(self) -> None:
        # The second value names an address space (DWARF 5, 2.5.1.3); these machines have one.
        address = self.pop()
        self.pop()
        self.push(address)
        self.load(8)

    def op_plus_uconst(self) -> None:
        self.push(self.pop() + self.cursor.uleb())

    def op_skip(self) -> None:
        self.jump(self.cursor.signed(2))

    def op_bra(self) -> None:
        distance = self.cursor.signed(2)
        if self.pop():
            self.jump(distance)

    def jump(self, distance: int) -> None:
        target = self.cursor.offset + distance
        if not 0 <= target <= self.cursor.end:
            raise self.cursor.bad("a branch leaves the expression")
        self.cursor.offset = target

    def op_bregx(self) -> None:
        self.push(self.register(self.cursor.uleb()) + self.cursor.sleb())

    def op_nop(self) -> None:
        pass

    def op_convert(self) -> None:
        # DW_OP_convert and DW_OP_reinterpret: 0 is the generic type, which every value here has; others need .debug_info.
        if self.cursor.uleb():
            raise _Stopped(Stop.UNSUPPORTED_RULE, "a DWARF expression names a type of .debug_info")

    def op_encoded_addr(self) -> None:
        self.push(pointer(self.cursor, self.cursor.u8(), 8))


def _signed(value: int) -> int:
    return value - (1 << 64) if value & _SIGN else value


def _divide(first: int, second: int) -> int:
    if second == 0:
        raise _Stopped(Stop.BAD_CFI, "a DWARF expression divides by zero")
    a, b = _signed(first), _signed(second)
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _modulo(first: int, second: int) -> int:
    if second == 0:
        raise _Stopped(Stop.BAD_CFI, "a DWARF expression divides by zero")
    return first % second


_CONSTANTS = {0x08: (1, False), 0x09: (1, True), 0x0A: (2, False), 0x0B: (2, True), 0x0C: (4, False), 0x0D: (4, True)}
_CONSTANTS |= {0x0E: (8, False), 0x0F: (8, True)}
"""DW_OP_const1u to const8s: size, signed."""

_BINARY: dict[int, Callable[[int, int], int]] = {
    0x1A: lambda a, b: a & b,
    0x1B: _divide,
    0x1C: lambda a, b: a - b,
    0x1D: _modulo,
    0x1E: lambda a, b: a * b,
    0x21: lambda a, b: a | b,
    0x22: lambda a, b: a + b,
    0x24: lambda a, b: a << b if b < 64 else 0,
    0x25: lambda a, b: a >> b if b < 64 else 0,
    0x26: lambda a, b: _signed(a) >> min(b, 63),
    0x27: lambda a, b: a ^ b,
    # Relations compare the generic type as signed (DWARF 5, section 2.5.1.5).
    0x29: lambda a, b: int(a == b),
    0x2A: lambda a, b: int(_signed(a) >= _signed(b)),
    0x2B: lambda a, b: int(_signed(a) > _signed(b)),
    0x2C: lambda a, b: int(_signed(a) <= _signed(b)),
    0x2D: lambda a, b: int(_signed(a) < _signed(b)),
    0x2E: lambda a, b: int(a != b),
}

_UNARY: dict[int, Callable[[int], int]] = {
    0x19: lambda a: abs(_signed(a)),
    0x1F: lambda a: -a,
    0x20: lambda a: ~a,
}

_OTHERS: dict[int, Callable[[_Machine], None]] = {
    0x03: _Machine.op_addr,
    0x06: _Machine.op_deref,
    0x10: _Machine.op_constu,
    0x11: _Machine.op_consts,
    0x12: _Machine.op_dup,
    0x13: _Machine.op_drop,
    0x14: _Machine.op_over,
    0x15: _Machine.op_pick,
    0x16: _Machine.op_swap,
    0x17: _Machine.op_rot,
    0x18: _Machine.op_xderef,
    0x23: _Machine.op_plus_uconst,
    0x28: _Machine.op_bra,
    0x2F: _Machine.op_skip,
    0x92: _Machine.op_bregx,
    0x94: _Machine.op_deref_size,
    0x96: _Machine.op_nop,
    0xA8: _Machine.op_convert,
    0xA9: _Machine.op_convert,
    0xF1: _Machine.op_encoded_addr,  # DW_OP_GNU_encoded_addr
}
