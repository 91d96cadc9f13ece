"""Call instructions, against objdump for x86-64 and by their encodings for the others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from unspool.formats.elf import Elf
from unspool.model.arch import AARCH64, S390X, X86_64
from unspool.model.memory import Bytes
from unspool.unwind.call_site import is_aarch64_call, is_call_site, is_s390x_call, is_x86_64_call

FILES = [Path("/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"), Path("/bin/bash")]
LINES = 200_000
INSTRUCTION = re.compile(r"^ *([0-9a-f]+):\t([0-9a-f ]+?) *\t(.*)$")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_call_that_objdump_sees_is_one(path: Path) -> None:
    """And no more than a few hundredths of what follows another instruction look like one: bytes before it can be an operand."""
    section = Elf(path.read_bytes()).section(".text")
    assert section is not None
    memory = Bytes(section.address, path.read_bytes()[section.offset : section.offset + section.size])
    command = ["objdump", "-d", "--wide", "-j", ".text", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    calls = others = mistaken = 0
    for line in text.splitlines()[:LINES]:
        if not (found := INSTRUCTION.match(line)) or found[3].startswith("(bad)"):
            continue
        following = int(found[1], 16) + len(found[2].split())
        if re.match(r"(?:(?:notrack|addr32|data16|rex\S*|bnd) )*call\b", found[3]):
            calls += 1
            assert is_call_site(memory, following, X86_64), line
        else:
            others += 1
            mistaken += is_call_site(memory, following, X86_64)
    assert calls > 1000
    assert mistaken < others / 50


@pytest.mark.parametrize(
    "code",
    [
        "e8 01 02 03 04",
        "ff d0",  # call *%rax
        "41 ff d4",  # call *%r12
        "ff 10",  # call *(%rax)
        "ff 50 08",  # call *8(%rax)
        "ff 90 08 01 00 00",  # call *0x108(%rax)
        "ff 15 00 00 00 00",  # call *0(%rip)
        "ff 14 c8",  # call *(%rax,%rcx,8)
        "ff 14 25 00 00 00 00",  # call *0
        "ff 54 c8 10",  # call *0x10(%rax,%rcx,8)
        "ff 94 c8 00 01 00 00",  # call *0x100(%rax,%rcx,8)
        "67 e8 01 02 03 04",
    ],
)
def test_each_form_of_an_x86_64_call_is_one(code: str) -> None:
    assert is_x86_64_call(bytes.fromhex("90 90 90") + bytes.fromhex(code))


@pytest.mark.parametrize("code", ["c3", "ff e0", "ff 25 00 00 00 00", "e9 00 00 00 00", "0f 05", "ff 20", "ff 70 08", "90 90", ""])
def test_jumps_and_other_instructions_are_no_calls(code: str) -> None:
    assert not is_x86_64_call(bytes.fromhex("90 90 90") + bytes.fromhex(code))


@pytest.mark.parametrize("word", [0x94000001, 0x97FFFFFF, 0xD63F0000, 0xD63F03C0, 0xD73F0A1F, 0xD63F081F, 0xD63F0C1F])
def test_aarch64_branches_with_link_are_calls(word: int) -> None:
    assert is_aarch64_call(word.to_bytes(4, "little"))


@pytest.mark.parametrize("word", [0x14000001, 0xD61F0000, 0xD65F03C0, 0xD503201F, 0xD4000001])
def test_aarch64_branches_without_link_are_none(word: int) -> None:
    assert not is_aarch64_call(word.to_bytes(4, "little"))


@pytest.mark.parametrize("code", ["c0e5 00001234", "a7e5 0010", "0de1", "4de0 1000"])
def test_s390x_branches_that_save_to_r14_are_calls(code: str) -> None:
    assert is_s390x_call(b"\x07\x07" + bytes.fromhex(code))


@pytest.mark.parametrize("code", ["c0f4 00001234", "07fe", "0d01", "a7f4 0010"])
def test_s390x_branches_that_do_not_are_none(code: str) -> None:
    assert not is_s390x_call(b"\x07\x07" + bytes.fromhex(code))


def test_a_call_at_the_very_start_of_what_can_be_read_is_seen() -> None:
    memory = Bytes(0x1000, bytes.fromhex("e800000000 90"))
    assert is_call_site(memory, 0x1005, X86_64)
    assert not is_call_site(memory, 0x1006, X86_64)
    assert not is_call_site(memory, 0x1000, X86_64)
    assert not is_call_site(memory, 0x5000, AARCH64)
    assert not is_call_site(memory, 0x5000, S390X)
