"""A walk that stops at every page that is not there, and is resumed, gives what an undisturbed one gives."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent


def test_a_resumed_walk_is_the_undisturbed_walk(compile_c: Callable[..., Path]) -> None:
    """The kernel's deferred walk does this: pages are absent at first, and may be taken away again."""
    program = compile_c(HERE / "resume.c", "-O1", "-g", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=120)
    assert 0 == done.returncode, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert 3 == len(lines)
    # 200 frames of half a page, and the unwind data of three files.
    assert all(int(line.split()[-2]) > 100 for line in lines), lines
