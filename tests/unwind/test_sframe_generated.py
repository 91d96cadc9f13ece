"""Code that no file backs, with an SFrame section registered for it: unwound, and never called reliable (rule R2)."""

from __future__ import annotations

import struct

from unspool.formats.sframe import Abi, Base, encode
from unspool.formats.sframe.encode import function, row
from unspool.model.arch import X86_64
from unspool.model.memory import Bytes, Layered
from unspool.model.module import AddressSpace, Mapping
from unspool.model.registers import Registers
from unspool.model.thread import EntryPoints, Thread
from unspool.model.verdict import Stop, Trust, Verdict
from unspool.unwind.api import Unwinder
from unspool.unwind.sframe_registry import SFrameRegistry

CODE, DATA, STACK = 0x7F0000001000, 0x7F0000100000, 0x7FFE00000000
CALL = b"\xe8\0\0\0\0"


def thread() -> Thread:
    """Two generated functions: the inner one has 24 bytes of locals and has called nothing, the outer one has a frame pointer."""
    stack = [0x11, 0x22, 0x33, CODE + 0x105, 0x55, STACK + 0x80, 0, 0]
    words = struct.pack(f"<{len(stack)}Q", *stack).ljust(0x1000, b"\0")
    code = b"\x90" * 0x100 + CALL + b"\x90" * 0x100
    space = AddressSpace.of(
        [
            Mapping(CODE, CODE + 0x1000, readable=True, writable=False, executable=True, offset=0, path=""),
            Mapping(DATA, DATA + 0x1000, readable=True, writable=True, executable=False, offset=0, path=""),
            Mapping(STACK, STACK + 0x1000, readable=True, writable=True, executable=False, offset=0, path="[stack]"),
        ]
    )
    memory = Layered([Bytes(STACK, words), Bytes(CODE, code.ljust(0x1000, b"\x90")), Bytes(DATA, section().ljust(0x1000, b"\0"))])
    registers = Registers(X86_64, CODE + 0x10, {7: STACK, 6: STACK + 0x28})
    return Thread(registers, memory, space, EntryPoints())


def section() -> bytes:
    inner = function(CODE, 0x40, [row(0, (32,), base=Base.SP)])
    outer = function(CODE + 0x100, 0x40, [row(0, (16, -16))])
    return encode([inner, outer], Abi.AMD64_LITTLE, DATA)


def test_a_jits_section_unwinds_its_code() -> None:
    given = thread()
    registry = SFrameRegistry(given.memory, given.space)
    registry.add(range(DATA, DATA + len(section())), range(CODE, CODE + 0x1000))
    stack = Unwinder(sframe=registry).unwind(given)
    assert [CODE + 0x10, CODE + 0x105] == [frame.ip for frame in stack.frames][:2]
    assert Trust.SFRAME is stack.frames[1].trust
    assert (Verdict.UNRELIABLE, Stop.ANON_CODE, 0) == (stack.judgement.verdict, stack.judgement.reason, stack.judgement.first_bad_frame)


def test_without_a_section_the_stack_ends_at_once() -> None:
    stack = Unwinder().unwind(thread())
    assert (Stop.ANON_CODE, 1) == (stack.stop, len(stack.frames))
