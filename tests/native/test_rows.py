"""Every row of system libraries, as the C walk decides it and as readelf prints it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIBRARIES = ["/lib64/ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libm.so.6", "libstdc++.so.6"]
FOLDERS = [Path("/lib/x86_64-linux-gnu"), Path("/usr/lib/x86_64-linux-gnu"), Path("/lib64"), Path("/usr/lib64")]
TRACKED = {"rbx", "rbp", "r12", "r13", "r14", "r15", "ra", "rsp"}

Row = tuple[int, str, dict[str, str]]


def found(name: str) -> Path:
    """The library's file."""
    candidates = [Path(name)] if name.startswith("/") else [folder / name for folder in FOLDERS]
    path = next((candidate for candidate in candidates if candidate.exists()), None)
    if path is None:
        pytest.skip(f"this machine has no {name}")
    return path


def readelf_rows(path: Path) -> Iterator[Row]:
    """Address, CFA and rules of each row; rows at or beyond their FDE's end are left out: they hold for no code."""
    # readelf's status is 1 where a separate debug file is named but not installed; what it printed is whole.
    command = ["readelf", "--debug-dump=frames-interp", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300).stdout
    in_fde, end, columns = False, 0, []
    for line in text.splitlines():
        header = re.match(r"^[0-9a-f]+ [0-9a-f]+ [0-9a-f]+ (?:FDE cie=\S+ pc=[0-9a-f]+\.\.([0-9a-f]+)|CIE)", line)
        if header:
            in_fde, end = header[1] is not None, int(header[1] or "0", 16)
        elif "LOC" in line and "CFA" in line:
            columns = line.split()[2:]
        elif in_fde and re.match(r"^[0-9a-f]{16} ", line):
            # "r2 (rcx)": the register that holds the value.
            address, cfa, *rules = re.sub(r"\br\d+ \((\w+)\)", r"\1", line).split()
            if int(address, 16) < end:
                yield int(address, 16), cfa, dict(zip(columns, rules, strict=False))


def parsed(line: str) -> Row:
    """A line of rows.c."""
    address, cfa, *rules = line.split()
    pairs = (rule.partition("=") for rule in rules)
    return int(address, 16), cfa, {name: rule for name, _, rule in pairs}


def relevant(rules: dict[str, str]) -> dict[str, str]:
    """What both state: readelf prints `u` for a register that was never mentioned, too."""
    return {name: rule for name, rule in rules.items() if name in TRACKED and (name == "ra" or rule not in {"u", "s"})}


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_row_is_the_one_that_readelf_prints(name: str, compile_c: Callable[..., Path]) -> None:
    """A CFA that is an expression is compared by its being one: readelf does not print it in the table."""
    path = found(name)
    expected = list(readelf_rows(path))
    program = compile_c(HERE / "rows.c", "-O2")
    pcs = "".join(f"{address:x}\n" for address, _, _ in expected)
    lines = subprocess.run([program, str(path)], input=pcs, capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()
    assert len(expected) == len(lines) > 500
    for row, line in zip(expected, lines, strict=True):
        address, cfa, rules = row
        our_address, our_cfa, our_rules = parsed(line)
        assert address == our_address
        if rules["ra"] == "u":
            assert our_rules["ra"] == "u", line
            continue
        assert relevant(rules) == relevant(our_rules), line
        assert cfa in {our_cfa, "exp"}, line
