"""The headers' twins in Python: stops.h is generated and current, structures have the compiler's sizes and offsets."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unspool import native
from unspool.model.verdict import Stop, Verdict
from unspool.native import structures

ROOT = Path(__file__).resolve().parents[2]

STRUCTURES = {
    "unspool_mapping": structures.Mapping,
    "unspool_ends": structures.Ends,
    "unspool_thread": structures.Thread,
    "unspool_frame": structures.Frame,
    "unspool_stack": structures.Stack,
    "unspool_state": structures.State,
}
CONSTANTS = {
    "UNSPOOL_WRITABLE": structures.WRITABLE,
    "UNSPOOL_EXECUTABLE": structures.EXECUTABLE,
    "UNSPOOL_VDSO": structures.VDSO,
    "UNSPOOL_UPROBES": structures.UPROBES,
    "UNSPOOL_EXACT": structures.EXACT,
    "UNSPOOL_SIGNAL": structures.SIGNAL,
    "UNSPOOL_CFA": structures.CFA,
}


def test_stops_h_is_what_the_script_writes() -> None:
    script = ROOT / "scripts" / "stops_header.py"
    text = subprocess.run([sys.executable, script, "-"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert text == (ROOT / "native" / "stops.h").read_text(encoding="utf-8"), "run `make header`"


def test_the_librarys_names_are_the_models() -> None:
    library = native.load()
    assert {stop.value: stop.label for stop in Stop} == {
        number: label.decode() for number in range(256) if (label := library.unspool_stop_name(number)) is not None
    }
    assert {verdict.value: verdict.label for verdict in Verdict} == {
        number: label.decode() for number in range(16) if (label := library.unspool_verdict_name(number)) is not None
    }


def test_structures_have_the_compilers_sizes_and_offsets(compile_c: Callable[..., Path], tmp_path: Path) -> None:
    lines = []
    expected = []
    for name, structure in STRUCTURES.items():
        lines.append(f'printf("%zu\\n", sizeof(struct {name}));')
        expected.append(ctypes.sizeof(structure))
        for field, *_ in structure._fields_:
            lines.append(f'printf("%zu\\n", offsetof(struct {name}, {field}));')
            expected.append(getattr(structure, field).offset)
    for name, value in CONSTANTS.items():
        lines.append(f'printf("%d\\n", (int){name});')
        expected.append(value)
    source = tmp_path / "structures.c"
    source.write_text(
        "#include <stdio.h>\n#include <unspool.h>\nint main(void) {\n" + "\n".join(lines) + "\nreturn 0;\n}\n", encoding="utf-8"
    )
    output = subprocess.run([compile_c(source)], capture_output=True, text=True, check=True, timeout=60).stdout
    assert expected == [int(line) for line in output.split()]


@pytest.mark.parametrize("compiler", ["gcc", "g++"])
def test_the_installed_header_stands_alone(compiler: str, tmp_path: Path) -> None:
    """In C and in C++."""
    source = tmp_path / ("alone.c" if compiler == "gcc" else "alone.cc")
    source.write_text("#include <unspool.h>\nint main() { return UNSPOOL_API_VERSION - 1; }\n", encoding="utf-8")
    command = [compiler, "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{ROOT / 'native'}", "-fsyntax-only", str(source)]
    subprocess.run(command, check=True, timeout=60)
