"""R9b: which frames of the exception machinery may be committing, against what objdump shows of the machine's own libgcc."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from formats.dwarf.cfi_builder import RA, RAX, RBP, RBX, RDX, RSP, advance, def_cfa, in_register, offset, undefined
from target_programs import Programs
from unwind.process_builder import CALL, NOP, RET, Program

from unspool.formats.dwarf import FrameSection, rows
from unspool.formats.elf import Elf
from unspool.model.arch import AARCH64, S390X, X86_64
from unspool.model.memory import Bytes
from unspool.model.verdict import Stop
from unspool.unwind.api import unwind_user
from unspool.unwind.exception_commit import leaves_for_landing_pad, may_be_committing, near_calls
from unspool.unwind.rule import Rule, rule_of

LIBGCC = Path("/lib/x86_64-linux-gnu/libgcc_s.so.1")
THROWERS = {"_Unwind_RaiseException", "_Unwind_ForcedUnwind", "_Unwind_Resume", "_Unwind_Resume_or_Rethrow"}
CALLED = re.compile(r"^ *([0-9a-f]+):\t((?:[0-9a-f]{2} )+) *\tcall +(.*)$")
STORES_HANDLER = re.compile(r"mov +%\w+,0x8\(%rbp,%\w+,1\)")


@pytest.fixture(scope="module")
def libgcc() -> Elf:
    """The machine's own libgcc_s.so.1."""
    return Elf(LIBGCC.read_bytes())


def exception_rules(elf: Elf) -> list[Rule]:
    """The rules of every row that saves exception data."""
    section = elf.section(".eh_frame")
    assert section is not None
    frames = FrameSection(Bytes(section.address, elf.data(section)), section.address, section.address + section.size)
    rules = [rule_of(row, fde, X86_64) for fde in frames.fdes() for row in rows(fde)]
    return [rule for rule in rules if isinstance(rule, Rule) and rule.saves_exception_data]


def test_the_rows_that_save_exception_data_are_those_of_the_four_throwers(libgcc: Elf) -> None:
    symbols = subprocess.run(["nm", "-D", "--defined-only", str(LIBGCC)], check=True, capture_output=True, text=True, timeout=60).stdout
    named = {int(line.split()[0], 16): line.split()[2].partition("@")[0] for line in symbols.splitlines()}
    functions = {rule.start for rule in exception_rules(libgcc)}
    assert THROWERS == {named[start] for start in functions if start in named}
    # The others are their cold parts.
    assert len(functions) <= 2 * len(THROWERS)


def test_only_the_calls_of_the_commit_are_refused(libgcc: Elf) -> None:
    """The compiler's code is the proof: the two last calls before the handler's address is stored are the commit, all before are not."""
    text = libgcc.section(".text")
    assert text is not None
    memory = Bytes(text.address, libgcc.data(text))
    seen = 0
    for rule in {rule.start: rule for rule in exception_rules(libgcc)}.values():
        calls, stored = disassembled(rule.start, rule.end)
        committing = {ip for ip in calls if may_be_committing(rule, ip, memory, X86_64, exact=False)}
        if not stored:
            # A cold part: it aborts.
            assert set(calls) == committing, f"{rule.start:#x}"
            continue
        before = [call for call in calls if call < stored]
        assert len(before) > 2, f"{rule.start:#x}"
        assert set(before[-2:]) == committing, f"{rule.start:#x}"
        seen += 1
    assert len(THROWERS) == seen


def disassembled(start: int, end: int) -> tuple[list[int], int]:
    """The return addresses of the function's calls, and where it stores the landing pad's address (0: nowhere)."""
    command = ["objdump", "-d", "--wide", f"--start-address={start}", f"--stop-address={end}", str(LIBGCC)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    calls, stored = [], 0
    for line in text.splitlines():
        if called := CALLED.match(line):
            calls.append(int(called[1], 16) + len(called[2].split()))
        elif STORES_HANDLER.search(line):
            stored = int(line.split(":")[0], 16)
    return calls, stored


EXCEPTION_DATA = (offset(RBP, 2), def_cfa(RBP, 16), offset(RBX, 3), offset(RDX, 4), offset(RAX, 5))
CODE = NOP * 4 + b"".join(CALL + NOP * 3 for _ in range(4)) + NOP * 4 + RET
CALLS = [4 + 8 * number + 5 for number in range(4)]
JUMP = 4 + 8 * 4 + 2


def thrower(*leaving: bytes) -> tuple[Program, int, int]:
    """A program, its entry, and a function that saves exception data, makes four calls, and then leaves for a landing pad."""
    program = Program()
    start = program.function(CALL + NOP * 3, undefined(RA))
    # The near calls go to the byte behind them: as near as can be.
    at = program.function(CODE, advance(2), *EXCEPTION_DATA, advance(JUMP - 2), *leaving)
    return program, start, at


@pytest.mark.parametrize(
    "leaving", [(def_cfa(2, 8),), (in_register(RA, 2),), (b"\x0f\x02\x72\x08",)], ids=["cfa in rcx", "ra in rcx", "cfa by expression"]
)
@pytest.mark.parametrize(("call", "reason"), list(zip(CALLS, [Stop.NONE, Stop.NONE, Stop.EH_COMMIT, Stop.EH_COMMIT], strict=True)))
def test_a_frame_is_suspect_from_the_call_of_the_commit_on(call: int, reason: Stop, leaving: tuple[bytes, ...]) -> None:
    program, start, at = thrower(*leaving)
    leaf = program.function(NOP + RET)
    probe = program.thread(leaf, [0] * 9)
    rbp = probe.registers.sp + 6 * 8
    stack = unwind_user(program.thread(leaf, [at + call, 0, 0, 0, 0, 0, 0x1111, start + 5, 0], {RBP: rbp}))
    assert (Stop.END_PROCESS_ENTRY, reason) == (stack.stop, stack.judgement.reason)
    assert (1 if reason else None) == stack.judgement.first_bad_frame


def test_a_thrower_that_is_executing_itself_is_suspect() -> None:
    program, start, at = thrower(def_cfa(2, 8))
    probe = program.thread(at, [0] * 8)
    rbp = probe.registers.sp + 5 * 8
    stack = unwind_user(program.thread(at + 20, [0, 0, 0, 0, 0, 0x1111, start + 5, 0], {RBP: rbp}))
    assert (Stop.EH_COMMIT, 0) == (stack.judgement.reason, stack.judgement.first_bad_frame)


def test_without_the_row_that_leaves_every_call_is_suspect() -> None:
    program, start, at = thrower()
    leaf = program.function(NOP + RET)
    rbp = program.thread(leaf, [0] * 9).registers.sp + 6 * 8
    stack = unwind_user(program.thread(leaf, [at + CALLS[0], 0, 0, 0, 0, 0, 0x1111, start + 5, 0], {RBP: rbp}))
    assert Stop.EH_COMMIT is stack.judgement.reason


def test_calls_to_far_functions_are_not_those_of_the_commit() -> None:
    far = b"\xe8" + (1 << 20).to_bytes(4, "little")
    assert [5, 16] == near_calls(CALL + far + b"\xff\x15\x00\x00\x00\x01")


def test_an_ordinary_row_does_not_leave() -> None:
    program, _, at = thrower(def_cfa(2, 8))
    data = program.section.bytes()
    frames = FrameSection(Bytes(program.section.address, data), program.section.address, program.section.address + len(data))
    (fde,) = [fde for fde in frames.fdes() if fde.start == at]
    assert [False, False, True] == [leaves_for_landing_pad(row, X86_64) for row in rows(fde)]
    assert def_cfa(RSP, 8) in program.initial


@pytest.mark.parametrize("arch", [AARCH64, S390X], ids=lambda arch: arch.name)
def test_where_no_code_is_decoded_every_call_is_suspect(arch: object) -> None:
    program, _, at = thrower(def_cfa(2, 8))
    data = program.section.bytes()
    frames = FrameSection(Bytes(program.section.address, data), program.section.address, program.section.address + len(data))
    fde = next(fde for fde in frames.fdes() if fde.start == at)
    rule = rule_of(list(rows(fde))[1], fde, X86_64)
    assert isinstance(rule, Rule)
    assert may_be_committing(rule, at + CALLS[0], Bytes(0, b""), arch, exact=False)  # type: ignore[arg-type]


def test_in_a_static_program_the_refused_calls_have_the_right_names(programs: Programs) -> None:
    """There the linker keeps the names of the two functions, and the code is another build of libgcc."""
    path = programs.build("recursion.cc", "-O2", "-static")
    elf = Elf(path.read_bytes())
    text = elf.section(".text")
    assert text is not None
    memory = Bytes(text.address, elf.data(text))
    refused: set[str] = set()
    passed: set[str] = set()
    for rule in {rule.start: rule for rule in exception_rules(elf)}.values():
        for ip, target in called_names(path, rule.start, rule.end):
            (refused if may_be_committing(rule, ip, memory, X86_64, exact=False) else passed).add(target)
    assert {"<uw_install_context_1>", "<_Unwind_DebugHook>", "<abort>"} == refused
    assert {"<uw_init_context_1>", "<_Unwind_RaiseException_Phase2>", "<_Unwind_ForcedUnwind_Phase2>"} <= passed


def called_names(path: Path, start: int, end: int) -> list[tuple[int, str]]:
    """The return address and the target of each of the function's calls."""
    command = ["objdump", "-d", "--wide", f"--start-address={start}", f"--stop-address={end}", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    found = [CALLED.match(line) for line in text.splitlines()]
    return [(int(call[1], 16) + len(call[2].split()), call[3].split()[-1]) for call in found if call]
