"""C programs of these tests, compiled once a session."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """A function that compiles a C file against native/ and gives the program's path."""
    folder = tmp_path_factory.mktemp("c")

    def build(source: Path, *flags: str) -> Path:
        target = folder / source.stem
        command = ["gcc", "-std=gnu17", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'native'}", str(source), "-o", str(target), *flags]
        subprocess.run(command, check=True, timeout=300)
        return target

    return build
