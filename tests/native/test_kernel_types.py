"""The types that the programs name are enough: relocated by them, the programs are the same as by all types of the kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from unspool.capture.kernel import OBJECT

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "native"


@pytest.mark.live
def test_programs_are_the_same_by_the_types_that_they_name(compile_c: Callable[..., Path]) -> None:
    """Also under the sanitizers."""
    sanitizers = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = compile_c(HERE / "kernel_types.c", str(NATIVE / "kernel_types.c"), *sanitizers, "-lbpf")
    done = subprocess.run([program, OBJECT], capture_output=True, text=True, timeout=300, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    named, total = (int(word) for word in done.stdout.split()[:3:2])
    assert 0 < named < total / 10
    assert "instructions are the same, 0 differ" in done.stdout
