"""`unspool audit`: what it says of a file is what readelf says, and its exit status serves a build."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from formats.dwarf.readelf import readelf_rows
from target_programs import Programs

from unspool.cli.main import main
from unspool.formats.elf import Elf
from unspool.unwind.audit import Audit, Kind, audit, without_padding

LIBRARIES = Path("/lib/x86_64-linux-gnu")
FILES = [LIBRARIES / "libc.so.6", LIBRARIES / "libgcc_s.so.1", Path("/bin/bash")]
X86_64 = 62


def audited(path: Path) -> Audit:
    return audit(Elf(path.read_bytes(), file=str(path)))


def starts(found: Audit, kind: Kind) -> set[int]:
    return {finding.start for finding in found.findings if finding.kind is kind}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_its_sets_are_those_that_readelf_gives(path: Path) -> None:
    found = audited(path)
    table = readelf_rows(path)
    assert len(table) == found.functions
    shown: dict[Kind, set[int]] = {kind: set() for kind in READELF}
    for (_, end), printed in table.items():
        inside = [row for row in printed if row[0] < end]
        for kind, holds in READELF.items():
            first = next((start for start, cfa, cells in inside if holds(cfa, cells)), None)
            if first is not None:
                shown[kind].add(first)
    for kind in READELF:
        assert shown[kind] - trampolines(found) == starts(found, kind) - trampolines(found), kind


def trampolines(found: Audit) -> set[int]:
    """Signal frames are allowed what makes others suspect."""
    return starts(found, Kind.SIGNAL_FRAME)


def _other_register(cfa: str, _: dict[str, str]) -> bool:
    return cfa != "exp" and cfa.partition("+")[0] not in {"rsp", "rbp", "rbx", "r12", "r13", "r14", "r15"}


READELF = {
    Kind.NONSTANDARD_RA: lambda _, cells: cells["ra"] not in {"c-8", "u"},
    Kind.EXCEPTION_COMMIT: lambda _, cells: all(cells.get(register, "").startswith("c") for register in ("rax", "rdx")),
    Kind.EXPRESSION: lambda cfa, _: cfa == "exp",
    Kind.OTHER_REGISTER: _other_register,
}


def test_covered_and_missing_code_make_up_the_executable_sections() -> None:
    path = FILES[0]
    found = audited(path)
    text = subprocess.run(["readelf", "-SW", str(path)], check=True, capture_output=True, text=True, timeout=60).stdout
    sizes = [int(line.split("]")[1].split()[4], 16) for line in text.splitlines() if "PROGBITS" in line and " AX " in line]
    assert sum(sizes) == found.code
    assert found.code - found.padding == found.covered + found.missing


def test_the_exception_machinery_of_libgcc_is_named() -> None:
    names = {finding.function for finding in audited(LIBRARIES / "libgcc_s.so.1").findings if finding.kind is Kind.EXCEPTION_COMMIT}
    assert {"_Unwind_RaiseException", "_Unwind_ForcedUnwind", "_Unwind_Resume", "_Unwind_Resume_or_Rethrow"} <= names


def test_code_without_unwind_data_is_listed_with_its_functions(programs: Programs) -> None:
    found = audited(programs.build("deep.c", "-O2", "-fno-asynchronous-unwind-tables"))
    symbols = {symbol for gap in found.gaps for symbol in gap.symbols}
    assert "main" in symbols
    assert found.missing_share > 0.3


def test_a_program_says_where_its_stacks_end(programs: Programs) -> None:
    found = audited(programs.build("deep.c", "-O2"))
    (entry,) = [finding for finding in found.findings if finding.kind is Kind.PROCESS_ENTRY]
    assert "_start" == entry.function
    assert found.is_sound


def test_the_exit_status_follows_the_share_that_is_allowed(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    good = str(programs.build("deep.c", "-O2"))
    assert 0 == main(["audit", good])
    assert 0 == main(["audit", "--max-missing", "80", good])
    assert 1 == main(["audit", "--max-missing", "0", good])
    assert "% of the code has no unwind data; 0 % may have none" in capsys.readouterr().out


def test_a_static_program_without_search_table_fails(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(programs.build("deep.c", "-O2", "-static"))
    assert 1 == main(["audit", "--json", path])
    printed = json.loads(capsys.readouterr().out)
    assert "absent" == printed["search_table"]
    assert any("--eh-frame-hdr" in complaint for complaint in printed["failed"])


def test_json_holds_what_the_text_counts(capsys: pytest.CaptureFixture[str]) -> None:
    path = FILES[1]
    main(["audit", "--json", str(path)])
    printed = json.loads(capsys.readouterr().out)
    found = audited(path)
    assert (found.functions, found.rows, found.missing) == (printed["functions"], printed["rows"], printed["missing_bytes"])
    assert len(found.findings) == len(printed["findings"])
    main(["audit", str(path)])
    assert f"{found.functions:,} functions, {found.rows:,} rows, search table complete" in capsys.readouterr().out


def test_what_is_no_program_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("hello", encoding="ascii")
    assert 1 == main(["audit", str(tmp_path / "text")])
    assert 1 == main(["audit", str(tmp_path / "none")])
    assert "not an ELF file" in (errors := capsys.readouterr().err)
    assert "No such file" in errors


@pytest.mark.parametrize(
    ("piece", "kept"),
    [
        ("90", (1, 0)),
        ("cccccc", (3, 0)),
        ("66662e0f1f840000000000", (11, 0)),
        ("0f1f4000", (4, 0)),
        ("f3900f1f8000000000", (9, 0)),
        ("90c390", (1, 1)),
        ("c3" + "00" * 100, (0, 1)),
        ("00" * 5, (5, 0)),
        ("e800000000" + "0f1f00", (0, 5)),
        ("90" * 63 + "c3", (63, 1)),
    ],
)
def test_padding_is_told_from_code(piece: str, kept: tuple[int, int]) -> None:
    assert kept == without_padding(bytes.fromhex(piece), X86_64)
