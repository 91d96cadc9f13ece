"""Imports point down: the table of who may import whom, and the proof that the tree follows it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src" / "unspool"

EVERYTHING = {"capture", "errors", "export", "formats", "model", "native", "profile"} | {
    *("sandbox", "session", "store", "symbols", "targets", "toolkit", "unwind", "web"),
}

ALLOWED: dict[str, set[str]] = {
    "model": set(),
    "errors": set(),
    "formats": {"model", "errors"},
    "native": {"model", "errors"},
    "unwind": {"model", "formats", "native", "errors"},
    "targets": {"model", "formats", "errors"},
    "sandbox": {"errors"},
    "symbols": {"model", "formats", "sandbox", "errors"},
    "capture": {"model", "formats", "native", "unwind", "targets", "sandbox", "errors"},
    "profile": {"model"},
    "store": {"model", "profile", "errors"},
    "export": {"model", "profile", "errors"},
    "toolkit": {"model", "formats", "native", "unwind", "errors"},
    "web": {"model", "profile", "export", "store", "errors"},
    "session": EVERYTHING,
    "cli": EVERYTHING,
}
"""Each package and those it may import; docs/architecture.md shows the same table."""


def imported(path: Path) -> Iterator[str]:
    """The packages of ours that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"unspool.{alias.name}" for alias in node.names] if node.module == "unspool" else [node.module or ""]
        for name in names:
            parts = name.split(".")
            if parts[0] == "unspool" and len(parts) > 1 and parts[1] != "__version__":
                yield parts[1]


def files() -> list[Path]:
    return sorted(path for path in SOURCES.rglob("*.py") if path != SOURCES / "__init__.py")


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    package = path.relative_to(SOURCES).parts[0].removesuffix(".py")
    assert package in ALLOWED, f"{package} has no line in the table"
    above = {name for name in imported(path) if name != package and name not in ALLOWED[package]}
    assert set() == above


def test_no_import_is_relative() -> None:
    for path in files():
        relative = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom) and n.level]
        assert [] == relative, path
