from __future__ import annotations

import pytest

from unspool.capture import syscall_names
from unspool.capture.syscall_names import NAMES, syscall_name, syscall_number
from unspool.capture.triggers import Trigger, parse_trigger
from unspool.errors import BadRequest


@pytest.fixture(autouse=True)
def _x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscall_names, "machine", lambda: "x86_64")
    monkeypatch.setattr("unspool.capture.triggers.machine", lambda: "x86_64")


def test_triggers_as_written() -> None:
    assert [Trigger(), Trigger("syscalls", (), "syscalls"), Trigger("syscalls", (257, 0), "syscalls:openat,read")] == [
        parse_trigger(text) for text in ("cpu", "syscalls", "syscalls:openat,read")
    ]


def test_a_call_may_be_a_number() -> None:
    assert (500,) == parse_trigger("syscalls:500").syscalls


@pytest.mark.parametrize(("text", "hint"), [("off", "Triggers: cpu"), ("cpu:read", "-F"), ("syscalls:opnat", "openat")])
def test_what_is_not_known_comes_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_trigger(text)
    assert hint in caught.value.hint


def test_names_and_numbers_are_each_others_inverse() -> None:
    numbers = NAMES["x86_64"]
    assert len(numbers) == len(set(numbers.values()))
    assert list(numbers) == [syscall_number(syscall_name(number)) for number in numbers]


def test_numbers_are_those_of_the_c_librarys_header() -> None:
    """/usr/include/x86_64-linux-gnu/asm/unistd_64.h comes from the kernel; a newer kernel only adds calls."""
    from pathlib import Path

    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("the C library's headers are not installed")
    lines = [line.split() for line in header.read_text(encoding="ascii").splitlines() if line.startswith("#define __NR_")]
    known = {int(line[2]): line[1].removeprefix("__NR_") for line in lines}
    assert known == {number: name for number, name in NAMES["x86_64"].items() if number in known}
