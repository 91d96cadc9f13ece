"""Our rows against those of `readelf --debug-dump=frames-interp`, for every function of files that every machine has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from formats.dwarf.readelf import Cells, readelf_rows

from unspool.formats.dwarf import FrameSection, How, RegisterRule, Row, rows
from unspool.formats.elf import Elf
from unspool.model.arch import X86_64
from unspool.model.memory import Bytes

LIBRARIES = Path("/lib/x86_64-linux-gnu")
FILES = [LIBRARIES / name for name in ("libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2")] + [Path("/bin/bash"), Path("/bin/ls")]
FILES += [Path("/usr/lib/x86_64-linux-gnu/libstdc++.so.6")]


def name(number: int) -> str:
    """The register's name as readelf has it."""
    if number == X86_64.ra:
        return "ra"
    return X86_64.register_name(number) if number < 16 else f"xmm{number - 17}"


def cell(rule: RegisterRule | None) -> str:
    """A rule as readelf prints it; no rule and `undefined` look alike."""
    if rule is None or rule.how is How.UNDEFINED:
        return "u"
    if rule.how is How.REGISTER:
        return f"in:{name(rule.value)}"
    simple = {How.SAME_VALUE: "s", How.EXPRESSION: "exp", How.VAL_EXPRESSION: "vexp"}
    return simple.get(rule.how) or f"{'c' if rule.how is How.OFFSET else 'v'}{rule.value:+d}"


def as_printed(row: Row, columns: Cells) -> tuple[int, str, Cells]:
    """Our row in readelf's words, with the columns that readelf has."""
    assert row.cfa is not None
    cfa = "exp" if row.cfa.expression is not None else f"{name(row.cfa.register)}{row.cfa.offset:+d}"
    rules = {name(number): rule for number, rule in row.registers.items()}
    assert set(rules) <= set(columns)
    return row.start, cfa, {column: cell(rules.get(column)) for column in columns}


def our_rows(path: Path) -> Iterator[tuple[tuple[int, int], list[Row]]]:
    """Per function, our rows."""
    elf = Elf(path.read_bytes())
    section = elf.section(".eh_frame")
    assert section is not None
    frames = FrameSection(Bytes(section.address, elf.data(section)), section.address, section.address + section.size)
    for fde in frames.fdes():
        yield (fde.start, fde.end), list(rows(fde))


@pytest.mark.parametrize("path", [path for path in FILES if path.exists()], ids=lambda path: path.name)
def test_every_row_is_the_one_that_readelf_prints(path: Path) -> None:
    expected = readelf_rows(path)
    seen = 0
    for function, found in our_rows(path):
        printed = expected.pop(function)
        if not printed:
            # A function without instructions of its own: readelf prints nothing, and the CIE's row holds for all of it.
            assert 1 == len(found)
            continue
        inside = [row for row in printed if row[0] < function[1]]
        assert inside == [as_printed(row, printed[0][2]) for row in found], f"{path} {function[0]:#x}"
        seen += len(found)
    assert {} == expected
    assert seen > 20
