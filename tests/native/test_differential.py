"""Random unwind data and stacks through both walks: they agree, or the C walk says that it does not know."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from formats.dwarf.cfi_builder import (
    DEREF,
    RA,
    REMEMBER,
    RESTORE_STATE,
    RSP,
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
from unwind.process_builder import ANON, CALL, INITIAL_SP, NOP, PLAIN_CIE, RET, UPROBES, Program

from unspool import native
from unspool.model.stack import Stack
from unspool.model.thread import Birth, Thread
from unspool.model.verdict import Stop, Verdict
from unspool.unwind.api import unwind_user

# What the C walk may say of a rule that it does not follow: expressions beyond the known forms, registers that only odd data keeps.
NOT_KNOWN = {Stop.UNSUPPORTED_RULE, Stop.REG_UNAVAILABLE, Stop.BAD_CFI}
SYSCALL = b"\x0f\x05"
BODY = NOP * 4 + CALL + NOP * 3 + CALL + NOP * 3 + RET
REGISTERS = (0, 1, 2, 3, 6, 7, 10, 12, 13, 14, 15, 16, 17, 33)


def instruction(draw: random.Random) -> bytes:
    """Any call frame instruction; those that move the location are likelier."""
    register, number = draw.choice(REGISTERS), draw.choice((0, 1, 2, 3, 4, 5, 7, 8, 16, 100))
    form = breg(draw.choice((6, 7, 3)), draw.choice((0, 8, 16, -8)))
    return draw.choice(
        (
            *[advance(draw.choice((0, 1, 2, 3, 5, 9)))] * 4,
            *[def_cfa_offset(draw.choice((8, 16, 24, 32, 48)))] * 2,
            offset(register, number),
            restore(register),
            def_cfa(draw.choice((6, 7, 7, register)), draw.choice((8, 16, 24, 32, 40, 0, 12))),
            def_cfa_register(draw.choice((6, 7, 3, 10))),
            def_cfa_expression(form + draw.choice((b"", DEREF, DEREF + b"\x23\x08", b"\x23\x10"))),
            expression(register, form),
            val_expression(register, form),
            undefined(register),
            same_value(register),
            in_register(register, draw.choice((0, 3, 6, 7, 12))),
            offset_sf(register, draw.choice((-1, 1, 2, 3))),
            val_offset(register, number),
            REMEMBER,
            RESTORE_STATE,
            b"\x2e\x08",  # GNU_args_size
        )
    )


def instructions(draw: random.Random, most: int) -> list[bytes]:
    return [instruction(draw) for _ in range(draw.randrange(most))]


def thread_of(seed: int) -> Thread:
    """A program of four functions, a stack of addresses that may be returns or frames, and registers that point into it."""
    draw = random.Random(seed)
    program = Program(initial=PLAIN_CIE if draw.random() < 0.8 else tuple(instructions(draw, 5)), text=bytearray(NOP * 14 + SYSCALL))
    start = program.function(CALL + NOP * 3, undefined(RA))
    program.entry = start if draw.random() < 0.5 else 0
    signal = program.section.cie(def_cfa(RSP, 8), offset(RA, 1), augmentation="zRS")
    functions = [program.function(BODY, *instructions(draw, 8), cie=signal if draw.random() < 0.1 else None) for _ in range(4)]

    def word() -> int:
        kinds = (
            *[draw.choice(functions) + draw.choice((9, 9, 17, 17, 4))] * 5,
            *[INITIAL_SP - 8 * draw.randrange(24)] * 2,
            *[start + 5] * 2,
            draw.choice((0, 1, 0x77, ANON + 5, UPROBES)),
        )
        return draw.choice(kinds)

    registers = {number: INITIAL_SP - 8 * draw.randrange(24) for number in range(16) if number != RSP and draw.random() < 0.8}
    pc = draw.choice(functions) + draw.choice((0, 2, 4, 9, 12))
    thread = program.thread(pc, [word() for _ in range(24)], registers)
    return begun(thread, start, draw)


def begun(thread: Thread, start: int, draw: random.Random) -> Thread:
    """The same, and for some where their stack began: by the thread pointer, or by what their creator waits in."""
    near = [INITIAL_SP - 8 * draw.randrange(-2, 24) for _ in range(3)]
    birth = Birth(start - draw.choice((0, 40, 59, 60, 64)), near[0], near[1])
    registers = replace(thread.registers, thread_pointer=near[2] if draw.random() < 0.5 else None)
    return replace(thread, registers=registers, birth=birth if draw.random() < 0.5 else None)


def told(stack: Stack) -> tuple[object, ...]:
    judgement = stack.judgement
    return stack.frames, stack.stop, judgement.verdict, judgement.reason, judgement.first_bad_frame, judgement.scope


@pytest.mark.parametrize("block", range(8))
def test_random_rules_give_the_same_stack(block: int) -> None:
    """Where the C walk does not know, it has no frame that the reference has not, and never `reliable`."""
    known = 0
    for seed in range(block * 100, block * 100 + 100):
        thread = thread_of(seed)
        ours, reference = native.walk(thread, max_frames=200), unwind_user(thread, 200)
        if told(ours) == told(reference):
            known += 1
            continue
        assert Verdict.UNRELIABLE is ours.judgement.verdict, seed
        assert ours.stop in NOT_KNOWN or reference.stop is Stop.MEM_FAULT, (seed, told(ours), told(reference))
        shared = min(len(ours.frames), len(reference.frames))
        assert [frame.ip for frame in reference.frames[:shared]] == [frame.ip for frame in ours.frames[:shared]], seed
    assert known > 90
