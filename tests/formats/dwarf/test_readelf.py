"""Our rows against those of `readelf --debug-dump=frames-interp`, for every function of files that every machine has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from formats.dwarf.readelf import Cells, readelf_rows
from target_programs import Programs

from unspool.formats.dwarf import Fde, FrameSection, How, RegisterRule, Row, rows
from unspool.formats.elf import Elf
from unspool.model.arch import ARCHES, X86_64, Arch
from unspool.model.memory import Bytes

LIBRARIES = Path("/lib/x86_64-linux-gnu")
FILES = [LIBRARIES / name for name in ("libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2")] + [Path("/bin/bash"), Path("/bin/ls")]
FILES += [Path("/usr/lib/x86_64-linux-gnu/libstdc++.so.6")]
# What the cross compilers' packages bring along.
FILES += [Path(f"/usr/{machine}-linux-gnu/lib/{name}") for machine in ("aarch64", "s390x") for name in ("libc.so.6", "libgcc_s.so.1")]


def name(number: int, arch: Arch, ra: int = -1) -> str:
    """The register's name as readelf has it; `ra` is the CIE's return address column."""
    if number == ra:
        return "ra"
    if number < len(arch.registers):
        return arch.register_name(number)
    return f"xmm{number - 17}" if arch is X86_64 else f"v{number - 64}"


def cell(rule: RegisterRule | None, arch: Arch) -> str:
    """A rule as readelf prints it; no rule and `undefined` look alike."""
    if rule is None or rule.how is How.UNDEFINED:
        return "u"
    if rule.how is How.REGISTER:
        return f"in:{name(rule.value, arch)}"
    simple = {How.SAME_VALUE: "s", How.EXPRESSION: "exp", How.VAL_EXPRESSION: "vexp"}
    return simple.get(rule.how) or f"{'c' if rule.how is How.OFFSET else 'v'}{rule.value:+d}"


def as_printed(row: Row, columns: Cells, arch: Arch, ra: int) -> tuple[int, str, Cells]:
    """Our row in readelf's words, with the columns that readelf has."""
    assert row.cfa is not None
    cfa = "exp" if row.cfa.expression is not None else f"{name(row.cfa.register, arch)}{row.cfa.offset:+d}"
    rules = {name(number, arch, ra): rule for number, rule in row.registers.items()}
    assert set(rules) <= set(columns)
    return row.start, cfa, {column: cell(rules.get(column), arch) for column in columns}


def our_rows(elf: Elf) -> Iterator[tuple[Fde, list[Row]]]:
    """Each function and its rows."""
    section = elf.section(".eh_frame")
    assert section is not None
    memory = Bytes(section.address, elf.data(section))
    frames = FrameSection(memory, section.address, section.address + section.size, byte_order=elf.layout.byte_order)
    for fde in frames.fdes():
        yield fde, list(rows(fde))


@pytest.mark.parametrize("path", [path for path in FILES if path.exists()], ids=str)
def test_every_row_is_the_one_that_readelf_prints(path: Path) -> None:
    expected = readelf_rows(path)
    elf = Elf(path.read_bytes())
    arch = ARCHES[elf.machine]
    seen = 0
    for fde, found in our_rows(elf):
        printed = expected.pop((fde.start, fde.end))
        if not printed:
            # A function without instructions of its own: readelf prints nothing, and the CIE's row holds for all of it.
            assert 1 == len(found)
            continue
        inside = [row for row in printed if row[0] < fde.end]
        assert inside == [as_printed(row, printed[0][2], arch, fde.cie.ra_register) for row in found], f"{path} {fde.start:#x}"
        seen += len(found)
    assert {} == expected
    assert seen > 20


@pytest.mark.parametrize(("compiler", "flags"), [("gcc", ("-g",)), ("clang", ("-g", "-gdwarf-5", "-gdwarf64"))])
def test_debug_frame_is_read_as_readelf_reads_it(programs: Programs, compiler: str, flags: tuple[str, ...]) -> None:
    """Without asynchronous tables compilers write .debug_frame; clang also with 64-bit offsets."""
    path = programs.build("deep.c", "-O1", "-fno-asynchronous-unwind-tables", *flags, compiler=compiler)
    expected = readelf_rows(path)
    elf = Elf(path.read_bytes())
    section = elf.section(".debug_frame")
    assert section is not None
    data = elf.data(section)
    frames = FrameSection(Bytes(0, data), 0, len(data), kind="debug_frame")
    seen = 0
    for fde in frames.fdes():
        printed = expected[fde.start, fde.end]
        found = [as_printed(row, printed[0][2], X86_64, fde.cie.ra_register) for row in rows(fde)] if printed else []
        assert printed == found
        seen += len(found)
    assert seen > 3
    assert ("-gdwarf64" in flags) is data.startswith(b"\xff\xff\xff\xff")
