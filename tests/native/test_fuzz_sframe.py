"""The C reader of SFrame under AddressSanitizer and UndefinedBehaviorSanitizer, on damaged sections of real programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unspool.cli.main import main

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "native"
ROUNDS = 4000


@pytest.mark.parametrize("program", ["/usr/bin/ls", "/usr/bin/bash"])
def test_damaged_sections_give_rows_or_stops(program: str, tmp_path: Path) -> None:
    """No read behind a buffer, no undefined arithmetic, no endless search; damaged sections are dropped, sound rows are found."""
    fuzzer, file = tmp_path / "fuzz", tmp_path / "file"
    sanitizers = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [HERE / "fuzz_sframe.c", NATIVE / "library.c"]
    subprocess.run(["gcc", "-std=gnu17", *sanitizers, f"-I{NATIVE}", "-o", fuzzer, *sources], check=True, capture_output=True)
    assert 0 == main(["sframe", "make", program, "-o", str(file)])
    done = subprocess.run([fuzzer, file, str(ROUNDS), "1"], capture_output=True, text=True, check=False, timeout=300)
    assert 0 == done.returncode, done.stdout + done.stderr
