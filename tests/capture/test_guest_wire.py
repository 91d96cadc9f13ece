"""What the decoder answers becomes values or BadAnswer: it reads memory that somebody hostile may have written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.capture.guest_wire import (
    BadAnswer,
    Failed,
    GuestFrame,
    GuestModule,
    GuestStack,
    GuestTask,
    checked_kernel,
    checked_names,
    checked_stack,
    checked_tasks,
    stack_to_wire,
    state_of,
    state_to_wire,
    task_to_wire,
)
from unspool.model.arch import X86_64
from unspool.model.registers import Registers
from unspool.model.verdict import Judgement, Stop, Trust, Verdict
from unspool.targets.guest.registers import VcpuState

WORD = st.integers(0, 2**64 - 1)
TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["task", "frames", "kernel", "modules", "x"]), inner),
    max_leaves=20,
)
TASKS = st.builds(
    GuestTask, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), TEXT, st.integers(0, 2**63 - 1), TEXT, st.sampled_from("RSD")
)
FRAMES = st.builds(GuestFrame, WORD, st.sampled_from(Trust), st.booleans(), st.none() | st.integers(0, 9), st.none() | WORD)
MODULES = st.builds(GuestModule, TEXT, st.sampled_from(["", "ab12"]), st.sampled_from(["file", "kernel", "anon"]), st.integers(0, 1000))
USER = GuestFrame(0x401000, Trust.CFI, exact=False, module=1, offset=0x1000)


def example() -> GuestStack:
    """A stack of one kernel and one user frame."""
    return GuestStack(
        task=GuestTask(7, 7, "dd", 5, "dd", "R"),
        frames=(GuestFrame(2**64 - 4096, Trust.REGISTERS, exact=True, module=0, offset=16), USER),
        kernel_frames=1,
        stop=Stop.END_PROCESS_ENTRY,
        judgement=Judgement(Verdict.RELIABLE),
        detail="",
        modules={0: GuestModule("[guest.kernel]", "ab", "kernel"), 1: GuestModule("/bin/dd", "", "file", 99)},
        in_kernel=True,
    )


def through_json(value: object) -> object:
    return json.loads(json.dumps(value))


def test_a_stack_comes_back_as_it_was() -> None:
    assert example() == checked_stack(through_json(stack_to_wire(example())))


@given(
    TASKS, st.lists(FRAMES, max_size=5), st.dictionaries(st.integers(0, 9), MODULES, max_size=3), st.sampled_from(Stop), st.integers(0, 5)
)
def test_every_stack_comes_back(task: GuestTask, frames: list[GuestFrame], modules: dict[int, GuestModule], stop: Stop, bad: int) -> None:
    judgement = Judgement(Verdict.UNRELIABLE, stop, bad, "why")
    stack = GuestStack(task, tuple(frames), len(frames), stop, judgement, "more", modules)
    assert stack == checked_stack(through_json(stack_to_wire(stack)))
    assert [task] == checked_tasks({"tasks": [through_json(task_to_wire(task))]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kernel", 3),
        ("kernel", -1),
        ("kernel", True),
        ("stop", 8),
        ("stop", "end"),
        ("frames", [[2**64, 0, True, None, None]]),
        ("frames", [[1, 99, True, None, None]]),
        ("frames", [[1, 0, True, 1 << 20, None]]),
        ("frames", [[1, 0, True]]),
        ("frames", "x"),
        ("frames", [[1, 0, True, None, None]] * 2000),
        ("modules", [[0, "/x", "not hexadecimal", "file", 1]]),
        ("modules", [[0, "/x", "", "socket", 1]]),
        ("modules", [[0, "/x", "", "file", 1 << 60]]),
        ("modules", [[0, "x" * 5000, "", "file", 1]]),
        ("judgement", [1, 0, None]),
        ("judgement", [9, 0, None, ""]),
        ("task", [-1, 0, "", 0, "", ""]),
        ("task", None),
    ],
)
def test_what_is_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(BadAnswer):
        checked_stack(stack_to_wire(example()) | {field: value})


@given(JSON)
def test_any_json_is_a_value_or_a_bad_answer(value: object) -> None:
    for check in (checked_stack, checked_kernel, checked_tasks, lambda answer: checked_names(answer, 1)):
        try:
            check(value)  # type: ignore[operator]
        except BadAnswer:
            continue


def test_a_failure_is_told_apart_from_a_lost_kernel() -> None:
    assert Failed("no kernel") == checked_kernel({"failed": "no kernel"})
    assert Failed("rebooted", lost=True) == checked_stack({"failed": "rebooted", "lost": True})


def test_the_state_of_a_vcpu_comes_back() -> None:
    registers = Registers(X86_64, 2**64 - 1, {7: 2**63, 0: 0}, 0x7F00)
    state = VcpuState(registers, 1, 2, 3, 4, 0x10, 0, 0x202, 0x7F00, 5, None, halted=False, snapshot=True)
    assert state == state_of(through_json(state_to_wire(state)))  # type: ignore[arg-type]
