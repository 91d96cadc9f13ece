"""Versions 1 and 2: read as the binutils of their time read them, and version 2 written so that today's readelf reads it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from sframe_toolchain import Toolchain

from unspool.errors import BadInput
from unspool.formats.elf import Elf
from unspool.formats.sframe import Abi, Base, Flag, decode, encode
from unspool.formats.sframe.encode import function, row
from unspool.toolkit import sections, show

SOURCE = Path(__file__).parent / "programs" / "many.c"
ROW = re.compile(r"\s+[0-9a-f]{16}  ")


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if ROW.match(line)]


def test_version_1_of_debians_binutils(tmp_path: Path) -> None:
    """Debian 12's assembler writes version 1, in a PROGBITS section; its own readelf is the oracle."""
    file = tmp_path / "v1"
    subprocess.run(["gcc", "-O2", "-Wa,--gsframe", "-o", file, SOURCE], check=True, capture_output=True)
    expected = subprocess.run(["readelf", "--sframe", file], check=True, capture_output=True, text=True).stdout
    found = sections.read(Elf(file.read_bytes()))
    if "SFRAME_VERSION_1" not in expected:
        pytest.skip("this machine's binutils do not write version 1")
    assert 1 == found[0].header.version
    # That readelf prints u for the fixed return address, and numbers a repeated block's rows from the function on.
    ours = rows("\n".join(line for section in found for line in show.lines(section)))
    assert [line[1:3] for line in rows(expected)] == [line[1:3] for line in ours]
    plain = [line[0] for line in ours if int(line[0], 16) > 0x100]
    assert plain == [line[0] for line in rows(expected) if line[0] in set(plain)]


def test_version_2_is_read_by_todays_readelf(toolchain: Toolchain, tmp_path: Path) -> None:
    """A version 3 program's default functions, written as version 2 into a copy of it."""
    program = toolchain.build(SOURCE.read_text(encoding="utf-8"), "s390x", ("-O2",))
    elf = Elf(program.read_bytes())
    section = sections.read(elf)[0]
    plain = [fde for fde in section.fdes if not fde.signal and not fde.fde_type]
    data = encode(plain, section.header.abi, section.address, version=2)
    assert len(data) <= len(program.read_bytes())
    blob, copy = tmp_path / "blob", tmp_path / "v2"
    blob.write_bytes(data)
    objcopy = toolchain.tool("objcopy", "s390x")
    subprocess.run([objcopy, "--update-section", f".sframe={blob}", program, copy], check=True, capture_output=True)
    expected = toolchain.readelf(copy)
    assert "SFRAME_VERSION_2" in expected
    again = decode(data, section.address)
    assert tuple(plain) == again.fdes
    assert rows(expected) == rows("\n".join(show.lines(again)))


def test_version_2_starts_count_from_the_section_without_the_pcrel_flag() -> None:
    fdes = [function(0x2000, 16, [row(0, (8,), base=Base.SP)]), function(0x2010, 16, [row(0, (16,), base=Base.SP)])]
    from_field = encode(fdes, Abi.AMD64_LITTLE, 0x1000, version=2)
    from_section = encode(fdes, Abi.AMD64_LITTLE, 0x1000, version=2, flags=Flag.FDE_SORTED)
    assert from_field != from_section
    assert decode(from_field, 0x1000).fdes == decode(from_section, 0x1000).fdes == tuple(fdes)


def test_version_2_cannot_say_what_only_version_3_has() -> None:
    with pytest.raises(BadInput, match="needs version 3"):
        encode([function(0x2000, 16, [], signal=True)], Abi.AMD64_LITTLE, 0x1000, version=2)
