"""Corrupted registers, stacks and unwind data over the corpus: every walk ends with a reason, and both walks with the same one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from oracle import corpus, unwinders
from oracle.corpus import Program
from oracle.image import ImageMemory
from oracle.judge import Judge
from oracle.test_corpus import X86_64_CORPUS, said
from oracle.truth import Kind, Run, State

from unspool.model.memory import Bytes, Layered
from unspool.model.thread import Thread
from unspool.native import Walker
from unspool.unwind.api import Unwinder

SEED = 20261121
STATES = 25
"""States of each program that are spoilt, each in several ways."""
FRAMES = 4096


def flipped(data: bytes, bits: random.Random, count: int) -> bytes:
    """The bytes with so many bits turned over."""
    spoilt = bytearray(data)
    for _ in range(count):
        position = bits.randrange(len(spoilt) * 8)
        spoilt[position // 8] ^= 1 << position % 8
    return bytes(spoilt)


def chosen(run: Run) -> list[State]:
    """Some states, spread over the run."""
    states = list(run.states())
    return states[:: max(1, len(states) // STATES)]


def with_flipped_registers(run: Run, state: State, bits: random.Random) -> Thread:
    """One to three bits of the registers are wrong."""
    values = dict(state.registers.values)
    pc = state.registers.pc
    for _ in range(bits.choice((1, 1, 3))):
        number = bits.choice([*values, 16])
        if number == 16:
            pc ^= 1 << bits.randrange(48)
        else:
            values[number] ^= 1 << bits.randrange(64)
    return replace(run.thread(state), registers=replace(state.registers, pc=pc, values=values))


def with_flipped_stack(run: Run, state: State, bits: random.Random) -> Thread:
    """1 to 64 bits of the stack are wrong."""
    parts = tuple(Bytes(part.start, flipped(part.data, bits, bits.choice((1, 4, 64)))) for part in state.stack)
    thread = run.thread(state)
    return replace(thread, memory=Layered((*parts, ImageMemory(state.space, run.vdso, run.files))))


@pytest.mark.parametrize("spoil", [with_flipped_registers, with_flipped_stack])
@pytest.mark.parametrize("program", [pytest.param(p, id=p.name) for p in corpus.load(X86_64_CORPUS)])
def test_corrupted_threads_end_alike_in_both_walks(program: Program, spoil: object) -> None:
    """Wrong bits in registers or on the stack: an end or a reason, the same in C and Python, and never more frames than were allowed."""
    bits = random.Random(f"{SEED} {program.name}")
    for state in chosen(program.run):
        thread = spoil(program.run, state, bits)  # type: ignore[operator]
        python = Unwinder().unwind(thread, FRAMES)
        with Walker(thread) as walker:
            assert said(python) == said(walker.walk(thread, FRAMES))
        assert python.stop.ending in {"whole", "cut"}
        assert FRAMES >= len(python.frames) > 0


def test_corruption_that_the_thread_does_not_meet_makes_no_lie() -> None:
    """Wrong bits where the thread will not look: its list of returns is what it was, and no reliable stack lacks a part of it.

    Where a return address changed, or a saved register that a frame is found by, the thread itself goes another way: the truth changed too.
    """
    told: Counter[str] = Counter()
    for program in corpus.load(X86_64_CORPUS):
        judge, bits = Judge(program.run), random.Random(f"{SEED} {program.name}")
        for state in chosen(program.run):
            for changed, thread in _harmless(program.run, state, bits):
                answer = unwinders.answer_of(Unwinder().unwind(thread, FRAMES))
                assert not judge.find(state, answer).false_reliable(answer), (program.name, state.step, changed)
                told[changed] += answer.complete
    assert told["dead registers"] > 0
    assert told["below the stack pointer"] > 0


def _harmless(run: Run, state: State, bits: random.Random) -> Iterator[tuple[str, Thread]]:
    """Corruption that leaves the thread's way back as it was."""
    thread = run.thread(state)
    dead = {number: bits.getrandbits(64) if number in {0, 1, 2, 4, 5, 8, 9} else value for number, value in state.registers.values.items()}
    if not any(run.entries[number].kind in {Kind.LANDING, Kind.NOTHING} for number in state.entries):
        yield "dead registers", replace(thread, registers=replace(state.registers, values=dead))
    below = Bytes(state.registers.sp - 4096, bits.randbytes(4096 - 128))
    yield "below the stack pointer", replace(thread, memory=Layered((below, *state.stack, ImageMemory(state.space, run.vdso, run.files))))


class FlippedFiles:
    """The corpus's files with wrong bits in what is read of unwind data."""

    def __init__(self, files: object, bits: random.Random, rate: float) -> None:
        """Spoil about that share of all 64-byte blocks that hold no code."""
        self._files = files
        self._seed = bits.random()
        self._rate = rate

    def read(self, path: str, offset: int, size: int) -> bytes:
        """The bytes: a block is spoilt always or never."""
        data = bytearray(self._files.read(path, offset, size))  # type: ignore[attr-defined]
        for block in range(offset // 64, (offset + len(data)) // 64 + 1):
            bits = random.Random(f"{self._seed} {path} {block}")
            if block == 0 or bits.random() > self._rate:
                continue
            position = block * 64 + bits.randrange(64) - offset
            if 0 <= position < len(data):
                data[position] ^= 1 << bits.randrange(8)
        return bytes(data)

    def function(self, path: str, offset: int) -> int | None:
        """The function, unspoilt: it is the truth's."""
        return self._files.function(path, offset)  # type: ignore[attr-defined]


@pytest.mark.parametrize("program", [pytest.param(p, id=p.name) for p in corpus.load(X86_64_CORPUS)])
def test_corrupted_unwind_data_makes_no_reliable_stack_lose_a_function(program: Program) -> None:
    """Wrong bits in the ELF headers, .eh_frame_hdr, .eh_frame and code: the thread's way back is what it was, and no stack may lack a part.

    The two walks may give different reasons: they read different parts of what is broken.
    """
    run, bits = program.run, random.Random(f"{SEED} {program.name}")
    judge = Judge(run)
    lies: list[tuple[object, ...]] = []
    for state in chosen(run):
        memory = Layered((*state.stack, ImageMemory(state.space, run.vdso, FlippedFiles(run.files, bits, 0.05))))
        thread = replace(run.thread(state), memory=memory)
        with Walker(thread) as walker:
            stacks = [Unwinder().unwind(thread, FRAMES), walker.walk(thread, FRAMES)]
        for stack in stacks:
            answer = unwinders.answer_of(stack)
            assert stack.stop.ending in {"whole", "cut"}
            if judge.find(state, answer).false_reliable(answer):
                lies.append((state.step, [hex(ip) for ip in answer.ips], [hex(ip) for ip in judge.truth(state)]))
    assert [] == lies
