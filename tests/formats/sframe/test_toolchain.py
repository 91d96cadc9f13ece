"""What GNU as and ld of today write is read as their own readelf reads it, and written again to the same bytes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from sframe_toolchain import Toolchain

from unspool.formats.elf import Elf
from unspool.formats.sframe import Abi, FdeType, encode
from unspool.toolkit import sections, show

PROGRAMS = Path(__file__).parent / "programs"
ROW = re.compile(r"\s+[0-9a-f]{16}  ")
MANY = (PROGRAMS / "many.c").read_text(encoding="utf-8")
EDGE = (PROGRAMS / "edge.x86_64.s").read_text(encoding="utf-8")
SMALL = """
int sink;
__attribute__((noinline)) int large(int n) { volatile char b[70000]; b[n] = 1; return b[n] + sink; }
__attribute__((noinline)) int recursion(int n) { return n == 0 ? large(3) : recursion(n - 1) + 1; }
"""

CASES = {
    "x86_64-O2": (MANY, "x86_64", ("-O2",)),
    "x86_64-O0": (MANY, "x86_64", ("-O0",)),
    "x86_64-frame-pointer": (MANY, "x86_64", ("-O2", "-fno-omit-frame-pointer")),
    "x86_64-now": (MANY, "x86_64", ("-O2", "-Wl,-z,now", "-fcf-protection")),
    "x86_64-object": (MANY, "x86_64", ("-O2", "-c")),
    "x86_64-edge": (EDGE, "x86_64", ("-nostdlib", "-static")),
    "aarch64-O2": (MANY, "aarch64", ("-O2",)),
    "aarch64-O0": (MANY, "aarch64", ("-O0",)),
    "aarch64-pac": (MANY, "aarch64", ("-O2", "-mbranch-protection=pac-ret")),
    "aarch64-pac-b-key": (MANY, "aarch64", ("-O2", "-mbranch-protection=pac-ret+b-key")),
    # No big-endian libc is packaged, so this one includes no header of it.
    "aarch64-big-object": (SMALL, "aarch64", ("-O2", "-c", "-mbig-endian", "-ffreestanding")),
    "s390x-O2": (MANY, "s390x", ("-O2",)),
    "s390x-O0": (MANY, "s390x", ("-O0",)),
    "s390x-backchain": (MANY, "s390x", ("-O2", "-mbackchain")),
}


def rows(text: str) -> list[list[str]]:
    """The rows of a dump: address and columns."""
    return [line.split() for line in text.splitlines() if ROW.match(line)]


def titles(text: str) -> list[tuple[str, str]]:
    """Each function's address and size."""
    return re.findall(r"pc = (0x[0-9a-f]+), size = (\d+) bytes", text)


@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_readelf(case: str, toolchain: Toolchain) -> None:
    """Every function and every row, on every sample."""
    source, arch, flags = CASES[case]
    file = toolchain.build(source, arch, flags, suffix=".s" if case.endswith("edge") else ".c")
    expected = toolchain.readelf(file)
    elf = Elf(file.read_bytes(), file=str(file))
    ours = "\n".join(line for section in sections.read(elf) for line in show.lines(section))
    assert rows(expected), expected
    assert rows(expected) == rows(ours)
    assert titles(expected) == titles(ours)


@pytest.mark.parametrize("case", CASES)
def test_what_gnu_wrote_is_written_again_to_the_same_bytes(case: str, toolchain: Toolchain) -> None:
    source, arch, flags = CASES[case]
    elf = Elf(toolchain.build(source, arch, flags, suffix=".s" if case.endswith("edge") else ".c").read_bytes())
    found = sections.find(elf)
    assert found is not None
    for section in sections.read(elf):
        header = section.header
        again = encode(section.fdes, header.abi, section.address, version=header.version, keep_order=True, flags=header.flags)
        assert found.data[: header.size] == again


def test_the_edge_program_holds_every_construct(toolchain: Toolchain) -> None:
    """The sample is worth its name: flexible rows, signal frames with and without rows, an outermost row, wide words."""
    elf = Elf(toolchain.build(EDGE, "x86_64", ("-nostdlib", "-static"), suffix=".s").read_bytes())
    fdes = sections.read(elf)[0].fdes
    assert any(fde.fde_type is FdeType.FLEX for fde in fdes)
    assert {True, False} == {bool(fde.fres) for fde in fdes if fde.signal}
    assert any(fre.outermost for fde in fdes for fre in fde.fres)
    assert {1, 2, 4} >= {fre.word_size for fde in fdes for fre in fde.fres} >= {1, 4}


def test_the_three_machines_and_both_byte_orders_are_among_the_samples(toolchain: Toolchain) -> None:
    seen = set()
    for case, (source, arch, flags) in CASES.items():
        file = toolchain.build(source, arch, flags, suffix=".s" if case.endswith("edge") else ".c")
        seen.add(sections.read(Elf(file.read_bytes()))[0].header.abi)
    assert set(Abi) == seen


def test_cplusplus_of_another_compiler_becomes_version_3(toolchain: Toolchain, tmp_path: Path) -> None:
    """The machine's own g++ and clang++, their assembly through GAS: exceptions, cleanups, cold parts."""
    for compiler in (["g++"], ["clang++", "-fno-addrsig"]):
        for level in ("-O2", "-O0"):
            text, file = tmp_path / "cold.s", tmp_path / "cold.o"
            subprocess.run([*compiler, level, "-S", "-o", text, PROGRAMS / "cold.cc"], check=True, capture_output=True)
            subprocess.run([toolchain.tool("as"), "--gsframe-3", "-o", file, text], check=True, capture_output=True)
            expected = toolchain.readelf(file)
            elf = Elf(file.read_bytes(), file=str(file))
            ours = "\n".join(line for section in sections.read(elf) for line in show.lines(section))
            assert len(rows(expected)) > 20
            assert rows(expected) == rows(ours)
            assert titles(expected) == titles(ours)
