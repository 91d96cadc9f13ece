"""The built page is the one of its sources, and small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from unspool.web.app import page_files

ROOT = Path(__file__).parents[2]
MOST_BYTES = 1_000_000
SPEEDSCOPE = "/speedscope/"
"""Somebody else's program; what it may ask is held by its content security policy (test_speedscope.py)."""


def test_the_built_page_is_the_one_of_its_sources() -> None:
    """`make ui` builds it; a machine without node serves what was built."""
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "page_stamp.py")], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)


def test_the_page_is_small() -> None:
    assert MOST_BYTES > sum(len(content) for _, content, _ in page_files())


def test_the_page_asks_nobody_else() -> None:
    """No address of another site in it; the namespaces of SVG and MathML, which Preact names, are none."""
    found = b"".join(content for path, content, _ in page_files() if not path.startswith(SPEEDSCOPE)).replace(b"http://www.w3.org/", b"")
    assert b"http://" not in found.replace(b"https://", b"http://")
