"""Kernel stacks of a guest that lies, or is damaged: every walk ends, with a stop and without harm."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unwind.kernel_builder import (
    FUNCTION,
    IRQ_TOP,
    KERNEL_CS,
    RETURN,
    SIZE,
    TASK,
    TASK_TOP,
    TEXT,
    Kernel,
    at,
    said,
    space,
    stack,
    syscall,
    that_reads,
)

from unspool.formats.orc import OrcEntry, OrcRegister, OrcType
from unspool.model.arch import X86_64
from unspool.model.memory import Bytes, Layered
from unspool.model.registers import Registers
from unspool.model.thread import EntryPoints, Thread
from unspool.model.verdict import Stop, Trust, Verdict
from unspool.unwind.kernel_walk import KernelUnwinder


@pytest.fixture
def kernel() -> Kernel:
    return that_reads()


ENTRIES = st.builds(
    OrcEntry,
    st.sampled_from(OrcRegister), st.integers(-64, 400), st.sampled_from(OrcRegister), st.integers(-64, 64), st.sampled_from(OrcType),
    signal=st.booleans(), end=st.booleans(),
)  # fmt: skip


@given(rows=st.lists(st.none() | ENTRIES, min_size=1, max_size=12), seed=st.integers(0, 1 << 32))
def test_any_tables_on_any_stack_end_in_a_stop(rows: list[OrcEntry | None], seed: int) -> None:
    """Neither an exception nor more frames than the stacks have words, whatever the guest says."""
    chance = random.Random(seed)
    kernel = Kernel()
    for number, row in enumerate(rows):
        kernel.function(chance.choice(["f", "__x86_indirect_thunk_rax", "ret_from_fork"]) + str(number), row)
    places = [TEXT + FUNCTION * number + RETURN for number in range(len(rows))]
    near = [*places, TASK_TOP - 400, TASK + 800, IRQ_TOP - 64, KERNEL_CS, 0x33, 0, (1 << 64) - 1]
    words = [chance.choice(near) for _ in range(120)]
    thread = kernel.thread(
        chance.choice(places),
        chance.choice([TASK_TOP - 960, TASK_TOP - 8, IRQ_TOP - 960, 0, (1 << 64) - 8]),
        words,
        words,
        bp=chance.choice(near),
    )
    for methods in ({Trust.ORC}, {Trust.ORC, Trust.FRAME_POINTER, Trust.SCAN}, {Trust.SCAN}):
        found = KernelUnwinder(kernel, methods).unwind(thread, exact=chance.random() < 0.5)
        assert Stop.NONE is not found.stack.stop
        assert found.stack.stop.is_end or found.stack.judgement.verdict is Verdict.UNRELIABLE


def test_flipped_bits_of_a_stack_end_in_a_stop(kernel: Kernel) -> None:
    """A stack with damaged words has the frames before the damage, or another verdict."""
    chance = random.Random(6)
    words = syscall(kernel)
    code = Bytes(TEXT, bytes(kernel.code))
    for _ in range(500):
        data = bytearray(stack(TASK, words).data)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(SIZE - 8 * len(words), SIZE)] ^= 1 << chance.randrange(8)
        registers = Registers(X86_64, at(kernel, "copy", 3), {X86_64.sp: TASK_TOP - 8 * len(words)})
        thread = Thread(registers, Layered((code, Bytes(TASK, bytes(data)))), space(), EntryPoints())
        found = KernelUnwinder(kernel).unwind(thread)
        assert 1 <= len(found.stack.frames) <= len(words)
        assert found.stack.stop.is_end or found.stack.judgement.verdict is Verdict.UNRELIABLE


def test_memory_that_cannot_be_read(kernel: Kernel) -> None:
    registers = Registers(X86_64, at(kernel, "copy", 3), {X86_64.sp: TASK_TOP - 64})
    found = KernelUnwinder(kernel).unwind(Thread(registers, Bytes(0, b""), space(), EntryPoints()))
    assert (["copy"], Stop.MEM_FAULT, Stop.MEM_FAULT, 0) == said(kernel, found)
