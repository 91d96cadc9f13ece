"""The example of docs/c-library.md is a program that works."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from unspool.native import LIBRARY

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "c-library.md"
HEADER = ROOT / "native" / "unspool.h"


@pytest.mark.parametrize("optimization", ["-O0", "-O2"])
def test_the_example_prints_its_own_reliable_stack(optimization: str, tmp_path: Path) -> None:
    (source,) = re.findall(r"```c\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    file, program = tmp_path / "example.c", tmp_path / "example"
    file.write_text(source, encoding="utf-8")
    flags = ["-Wall", "-Wextra", "-Werror", optimization, "-fno-optimize-sibling-calls"]
    link = [str(LIBRARY), f"-Wl,-rpath,{LIBRARY.parent}"]
    subprocess.run(["gcc", *flags, f"-I{HEADER.parent}", str(file), *link, "-o", str(program)], check=True, timeout=120)
    lines = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert "end-process-entry, reliable" == lines[-1]
    # print_stack, main, two of libc, _start; and as many calls of recurse as the compiler left.
    assert len(lines) > 5
    assert [f"#{index}" for index in range(len(lines) - 1)] == [line.split()[0] for line in lines[:-1]]


def test_the_page_names_every_function_of_the_header() -> None:
    functions = set(re.findall(r"\b(unspool_\w+)\(", HEADER.read_text(encoding="utf-8"))) - {"unspool_api_version", "unspool_version"}
    page = PAGE.read_text(encoding="utf-8")
    assert set() == {name for name in functions if name not in page}
