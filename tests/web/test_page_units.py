"""The page's own unit tests and types, run by node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UI = Path(__file__).parents[2] / "ui"


def node_major() -> int:
    """The version of node, 0 when there is none."""
    node = shutil.which("node")
    if node is None:
        return 0
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.lstrip("v").partition(".")[0])


@pytest.mark.skipif(node_major() < 20, reason="Vite needs node 20")
@pytest.mark.parametrize("script", ["check", "test"])
def test_the_page_passes_its_own_tests(script: str) -> None:
    """ui/test, and TypeScript's strict check of ui/src; `make setup-tests` has installed what they need."""
    done = subprocess.run(["npm", "run", "--silent", script], cwd=UI, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    if script == "test":
        assert "\n# fail 0\n" in done.stdout
        assert "\n# tests 0\n" not in done.stdout
