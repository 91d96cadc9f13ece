"""Mutated unwind data and memory under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIBRARIES = ["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib/x86_64-linux-gnu/libm.so.6"]


@pytest.mark.slow
def test_any_bytes_give_a_marked_stack_in_bounded_time(compile_c: Callable[..., Path]) -> None:
    """No crash, no undefined behaviour, no endless loop; never `reliable` without an accepted end."""
    libraries = [library for library in LIBRARIES if Path(library).exists()]
    assert libraries
    program = compile_c(HERE / "fuzz.c", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    done = subprocess.run([program, "1", "3000", *libraries], capture_output=True, text=True, check=False, timeout=600)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert len(libraries) == len(done.stdout.splitlines())
