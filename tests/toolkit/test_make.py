"""`unspool sframe make`: what it writes runs, is read by readelf, is valid, and says what .eh_frame says at every address."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sframe_toolchain import Toolchain

from unspool.cli.main import main
from unspool.errors import BadInput
from unspool.formats.elf import Elf
from unspool.formats.sframe import FrameRule, Place, rule_of
from unspool.toolkit import sections, show
from unspool.toolkit.compare import Outcome, compare
from unspool.toolkit.make import covered, make
from unspool.toolkit.sections import PT_GNU_SFRAME
from unspool.toolkit.stats import overlap

PROGRAMS = Path(__file__).parents[1] / "formats" / "sframe" / "programs"
MANY = (PROGRAMS / "many.c").read_text(encoding="utf-8")
ROW = re.compile(r"\s+[0-9a-f]{16}  ")
ARCHES = ("x86_64", "aarch64", "s390x")

# Programs that nobody here wrote: a file name, and how to run the copy.
SYSTEM = {
    "/usr/bin/ls": ["-d", "/"],
    "/usr/bin/perl": ["-e", "print join ',', sort map { $_ * 3 } 1..20"],
    "/usr/bin/python3.11": ["-c", "import json; print(json.dumps({'a': [1, 2]}))"],
    "/usr/bin/bash": ["-c", "f() { [ $1 = 0 ] || f $(($1 - 1)); }; f 20; echo done"],
}


def made(path: Path, to: Path) -> Elf:
    """The converted copy of a file."""
    assert 0 == main(["sframe", "make", str(path), "-o", str(to)])
    return Elf(to.read_bytes(), file=str(to))


@pytest.mark.parametrize("program", SYSTEM)
def test_system_programs_still_run(program: str, tmp_path: Path) -> None:
    if not Path(program).exists():
        pytest.skip(f"{program} is not installed")
    copy = tmp_path / "copy"
    made(Path(program), copy)
    arguments = SYSTEM[program]
    expected = subprocess.run([program, *arguments], capture_output=True, check=True, timeout=60).stdout
    assert expected == subprocess.run([copy, *arguments], capture_output=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("file", [*SYSTEM, "/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libstdc++.so.6"])
def test_what_is_made_says_what_eh_frame_says(file: str, tmp_path: Path) -> None:
    """Every address at which either changes; what version 3 cannot say is missing and nothing else."""
    path = Path(file)
    if not path.exists():
        pytest.skip(f"{file} is not installed")
    elf = made(path, tmp_path / "copy")
    found = compare(elf)
    assert {Outcome.EQUAL, Outcome.WEAKER, Outcome.INEXPRESSIBLE} >= set(found.ranges)
    assert found.bytes[Outcome.EQUAL] > 0.99 * sum(found.bytes.values())
    assert 0 == main(["sframe", "check", str(tmp_path / "copy")])


@pytest.mark.parametrize("arch", ARCHES)
def test_readelf_reads_what_is_made(arch: str, toolchain: Toolchain, tmp_path: Path) -> None:
    """A program without SFrame data of its own, for each machine."""
    plain = toolchain.build(MANY, arch, ("-O2", "-Wa,--gsframe=no"))
    assert sections.find(Elf(plain.read_bytes())) is None or arch == "x86_64"
    if sections.find(Elf(plain.read_bytes())) is not None:
        # GNU ld makes rows for the PLT all the same.
        stripped = tmp_path / "stripped"
        subprocess.run([toolchain.tool("objcopy", arch), "-R", ".sframe", plain, stripped], check=True, capture_output=True)
        plain = stripped
    elf = made(plain, tmp_path / "copy")
    expected = [line.split() for line in toolchain.readelf(tmp_path / "copy").splitlines() if ROW.match(line)]
    ours = [line.split() for line in "\n".join(show.lines(sections.read(elf)[0])).splitlines() if ROW.match(line)]
    assert expected == ours
    assert compare(elf).proved


@pytest.mark.parametrize("arch", ARCHES)
def test_our_rows_agree_with_gas(arch: str, toolchain: Toolchain) -> None:
    """The assembler's SFrame and ours are made from the same CFI: no address contradicts, the .plt.got bug of GNU ld apart."""
    elf = Elf(toolchain.build(MANY, arch).read_bytes())
    plt_got = elf.section(".plt.got")
    contradictions = [case for case in compare(elf).cases if case.outcome is Outcome.CONTRADICTORY]
    assert [] == [case for case in contradictions if plt_got is None or not plt_got.address <= case.start < plt_got.address + plt_got.size]
    assert (plt_got is not None) == bool(contradictions)


def test_the_new_segment_is_where_the_headers_say(tmp_path: Path) -> None:
    """eu-elflint-like facts, and what GNU readelf says of the tables."""
    elf = made(Path("/usr/bin/ls"), tmp_path / "copy")
    text = subprocess.run(["readelf", "-lSW", tmp_path / "copy"], capture_output=True, text=True, check=True).stdout
    assert ".sframe" in text
    (segment,) = [segment for segment in elf.segments if segment.type == PT_GNU_SFRAME]
    section = elf.section(".sframe")
    assert section is not None
    assert (section.address, section.offset, section.size) == (segment.address, segment.offset, segment.file_size)
    assert any(
        load.address <= segment.address and segment.address + segment.file_size <= load.address + load.file_size for load in elf.loads
    )
    addresses = [load.address for load in elf.loads]
    assert sorted(addresses) == addresses
    assert all(load.address % load.align == load.offset % load.align for load in elf.loads)


def test_a_detached_file_holds_the_same_section(tmp_path: Path) -> None:
    path = Path("/usr/bin/ls")
    elf = made(path, tmp_path / "copy")
    assert 0 == main(["sframe", "make", str(path), "-o", str(tmp_path / "side"), "--detached"])
    side = Elf((tmp_path / "side").read_bytes(), file="side")
    assert sections.read(elf)[0].fdes == sections.read(side)[0].fdes
    assert elf.build_id == side.build_id
    assert subprocess.run(["readelf", "-SW", tmp_path / "side"], capture_output=True, check=True).returncode == 0


def test_what_cannot_be_said_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Libcrypto's assembly keeps its CFA in memory, plus 8."""
    path = Path("/usr/lib/x86_64-linux-gnu/libcrypto.so.3")
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    assert 0 == main(["sframe", "make", "--json", str(path), "-o", str(tmp_path / "copy")])
    result = json.loads(capsys.readouterr().out)
    assert any("expression" in skipped["reason"] for skipped in result["skipped"])
    assert result["covered"] + sum(int(s["end"], 16) - int(s["start"], 16) for s in result["skipped"]) <= result["text"]


def test_files_that_cannot_be_converted_are_refused(tmp_path: Path) -> None:
    elf = made(Path("/usr/bin/ls"), tmp_path / "copy")
    with pytest.raises(BadInput, match="has SFrame data already"):
        make(elf, (tmp_path / "copy").read_bytes())
    assert 1 == main(["sframe", "make", str(tmp_path / "copy"), "-o", str(tmp_path / "again")])
    assert not (tmp_path / "again").exists()
    assert 1 == main(["sframe", "make", "/usr/bin/ls", "-o", "/usr/bin/ls"])


def test_a_function_that_gas_leaves_out_is_covered_but_for_the_row(toolchain: Toolchain, tmp_path: Path) -> None:
    """One row without words: GAS drops the function, ours only that row."""
    source = """
        .text
        .globl _start
    _start:
        .cfi_startproc
        nop
        push %rbx
        .cfi_adjust_cfa_offset 8
        nop
        .cfi_escape 0x0f, 0x05, 0x77, 0x10, 0x06, 0x23, 0x08
        nop
        nop
        .cfi_def_cfa %rsp, 16
        pop %rbx
        .cfi_adjust_cfa_offset -8
        ret
        .cfi_endproc
    """
    program = toolchain.build(source, "x86_64", ("-nostdlib", "-static", "-Wa,--gsframe=no"), suffix=".s")
    elf = made(program, tmp_path / "copy")
    (section,) = sections.read(elf)
    assert 2 == len(section.fdes)
    rules = [rule_of(fde, fre, section.header.abi) for fde in section.fdes for fre in fde.fres]
    assert [8, 16, 16, 8] == [rule.cfa.offset for rule in rules if isinstance(rule, FrameRule) and isinstance(rule.cfa, Place)]
    assert 2 == compare(elf).bytes[Outcome.INEXPRESSIBLE]


RANGES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 40)), max_size=12)


@given(RANGES, RANGES)
def test_text_that_is_covered_is_counted_once(functions: list[tuple[int, int]], text: list[tuple[int, int]]) -> None:
    """As overlap() counts it, one range after the other."""
    functions.sort()
    starts, sizes = (np.array([row[place] for row in functions], dtype=np.int64) for place in (0, 1))
    ranges = [(start, start + size) for start, size in text]
    assert overlap(ranges, [(start, start + size) for start, size in functions]) == covered(starts, sizes, ranges)
