"""The man page is made of the parsers, complete, and without a fault that groff knows of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unspool.cli.main import COMMANDS, parser_for

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, made as the wheel's build makes it, with the completions beside it."""
    share = tmp_path_factory.mktemp("share")
    subprocess.run([sys.executable, str(ROOT / "scripts" / "shell_files.py"), str(share)], check=True, timeout=60)
    written = sorted(str(path.relative_to(share)) for path in share.rglob("*") if path.is_file())
    shells = ["bash-completion/completions/unspool", "fish/vendor_completions.d/unspool.fish", "zsh/site-functions/_unspool"]
    assert sorted([*shells, "man/man1/unspool.1"]) == written
    return share / "man" / "man1" / "unspool.1"


@pytest.fixture(scope="module")
def shown(page: Path) -> str:
    """The page as a reader sees it, every run of spaces one."""
    env = {**os.environ, "MANWIDTH": "200", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["man", "--warnings=w", "-l", str(page)], check=True, capture_output=True, text=True, timeout=60, env=env)
    assert "" == done.stderr
    return " ".join(done.stdout.split())


def test_groff_has_no_warning(page: Path) -> None:
    command = ["groff", "-ww", "-k", "-man", "-Tutf8", "-z", str(page)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert ("", "") == (done.stdout, done.stderr)


def test_its_name_can_be_found(page: Path) -> None:
    """`apropos` reads the line of NAME: one program, a dash, one line (lexgrog(1))."""
    done = subprocess.run(["lexgrog", str(page)], check=True, capture_output=True, text=True, timeout=60)
    assert "unspool - whole call stacks" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_and_example_is_there(command: str, shown: str) -> None:
    parser = parser_for(command)
    part = shown[shown.index(f" unspool {command} unspool {command} ") :]
    for action in parser._actions:
        if action.option_strings and action.help and action.help != "==SUPPRESS==" and "--help" not in action.option_strings:
            assert f"{', '.join(action.option_strings)} " in part
    for line in (parser.epilog or "").splitlines():
        assert " ".join(line.split()) in part
