"""`unspool sframe check`: each rule has a section that breaks it, and what GNU ld wrote breaks none."""

from __future__ import annotations

import json
import random
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sframe_toolchain import Toolchain

from unspool.cli.main import main
from unspool.formats.elf import Elf
from unspool.formats.sframe import Abi, Base, Fde, FdeType, Flag, Fre, PcType, encode
from unspool.formats.sframe.encode import function, row
from unspool.toolkit.check import check_data, check_file

AT = 0x1000
ROWS = (row(0, (8,), base=Base.SP), row(1, (16, -16), base=Base.SP))
PLAIN = function(0x2000, 64, ROWS)
NEXT = function(0x2040, 64, ROWS)
MANY = (Path(__file__).parents[1] / "formats" / "sframe" / "programs" / "many.c").read_text(encoding="utf-8")


def rules(data: bytes) -> set[tuple[str, str]]:
    """(kind, rule) of every finding."""
    return {(finding.kind, finding.rule) for finding in check_data(data, AT)[1]}


def section(*fdes: Fde, **options: object) -> bytes:
    return encode(fdes, Abi.AMD64_LITTLE, AT, **options)  # type: ignore[arg-type]


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


def test_a_sound_section_has_no_findings() -> None:
    assert set() == rules(section(PLAIN, NEXT))


BROKEN = {
    "sorted-flag": ("kernel", section(PLAIN, flags=Flag.FDE_FUNC_START_PCREL)),
    "pcrel": ("kernel", section(PLAIN, flags=Flag.FDE_SORTED)),
    "sorted": ("format", section(NEXT, PLAIN, keep_order=True, flags=Flag.FDE_SORTED | Flag.FDE_FUNC_START_PCREL)),
    "same-start": ("kernel", section(replace(PLAIN, size=0), PLAIN)),
    "overlap": ("format", section(replace(PLAIN, size=80), NEXT)),
    "empty": ("kernel", section()),
    "num-fres": ("format", patched(section(PLAIN), 12, struct.pack("<I", 3))),
    "fixed-ra": ("format", patched(section(PLAIN), 6, b"\xf0")),
    "fixed-fp": ("warning", patched(section(PLAIN), 5, b"\xf0")),
    "reserved-bits": ("format", patched(section(PLAIN), 28 + 16 + 2, b"\x40")),
    "rep-size": ("format", section(replace(PLAIN, pc_type=PcType.MASK))),
    "row-order": ("format", section(replace(PLAIN, fres=ROWS[::-1]))),
    "row-range": ("format", section(replace(PLAIN, size=1))),
    "row-words": ("format", section(replace(PLAIN, fres=(row(0, (8, -16, 3)),)))),
    "mangled-ra": ("format", section(replace(PLAIN, fres=(replace(ROWS[0], mangled_ra=True),)))),
    "no-rows": ("warning", section(PLAIN, replace(NEXT, fres=()))),
    "late-row": ("warning", section(replace(PLAIN, fres=ROWS[1:]))),
    "structure": ("format", section(PLAIN)[:-1]),
    "shared-rows": ("format", patched(section(PLAIN, NEXT), 28 + 16 + 12, struct.pack("<I", 0))),
    "unused-bytes": ("warning", patched(section(PLAIN, NEXT), 28 + 16 + 12, struct.pack("<I", 0))),
    "one-blob": ("kernel", section(PLAIN) + section(NEXT)),
    "version": ("warning", section(PLAIN, version=2)),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_found_broken(rule: str) -> None:
    kind, data = BROKEN[rule]
    assert (kind, rule) in rules(data)


def test_a_reserved_bit_of_a_control_word_is_found() -> None:
    flex = Fre(0, (0x3D, 8), Base.FP, 1)
    assert ("format", "row-words") in rules(section(function(0x2000, 8, [flex], fde_type=FdeType.FLEX)))


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "s390x"])
def test_what_gnu_ld_links_is_valid(arch: str, toolchain: Toolchain) -> None:
    file = toolchain.build(MANY, arch)
    assert [] == [finding for finding in check_file(Elf(file.read_bytes())) if finding.kind != "warning"]
    assert 0 == main(["sframe", "check", str(file)])


def test_gnu_lds_plt_got_bug_is_named(toolchain: Toolchain) -> None:
    elf = Elf(toolchain.build(MANY, "x86_64").read_bytes())
    assert elf.section(".plt.got") is not None
    assert "plt-got" in {finding.rule for finding in check_file(elf)}


def test_functions_without_an_fde_are_listed(toolchain: Toolchain, capsys: pytest.CaptureFixture[str]) -> None:
    """The distribution's _start carries no SFrame data."""
    file = toolchain.build(MANY, "x86_64")
    main(["sframe", "check", "--json", str(file)])
    (result,) = json.loads(capsys.readouterr().out)
    assert "_start" in {entry["name"] for entry in result["uncovered"]}
    assert "main" not in {entry["name"] for entry in result["uncovered"]}


def test_exit_statuses(toolchain: Toolchain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = toolchain.build(MANY, "x86_64")
    bad = tmp_path / "bad"
    elf = Elf(good.read_bytes())
    place = elf.section(".sframe")
    assert place is not None
    bad.write_bytes(patched(good.read_bytes(), place.offset + 3, b"\x04"))
    none = tmp_path / "none"
    none.write_bytes(Path(sys.executable).resolve().read_bytes()[:64])
    assert (0, 1, 2, 2) == (
        main(["sframe", "check", str(good)]),
        main(["sframe", "check", str(good), str(bad)]),
        main(["sframe", "check", str(none)]),
        main(["sframe", "check", str(bad), str(tmp_path / "absent")]),
    )
    assert "sorted-flag" in capsys.readouterr().out


def test_damaged_sections_never_crash(toolchain: Toolchain) -> None:
    """Any damage gives sections or findings; the same damage crashes half of readelf's runs (docs/sframe.md)."""
    elf = Elf(toolchain.build(MANY, "x86_64").read_bytes())
    place = elf.section(".sframe")
    assert place is not None
    original = elf.data(place)
    numbers = random.Random(20)
    for _ in range(3000):
        data = bytearray(original)
        for _ in range(numbers.randint(1, 8)):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        sections, findings = check_data(bytes(data), place.address)
        assert sections or findings
