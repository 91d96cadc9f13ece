"""Completions, asked of the real shells."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from terminals import terminal

from unspool.cli.completions import SHELLS, completions
from unspool.cli.main import COMMANDS, main

# What bash does when Tab is pressed: bash(1), "Programmable Completion".
ASK_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_shtab_unspool
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each shell's file, in a folder with one recording."""
    folder = tmp_path_factory.mktemp("completions")
    names = {"bash": "unspool.bash", "zsh": "_unspool", "fish": "unspool.fish"}
    for shell in SHELLS:
        (folder / names[shell]).write_text(completions(shell), encoding="utf-8")
    (folder / "host.unspool").touch()
    return {shell: folder / name for shell, name in names.items()}


def bash(scripts: dict[str, Path], *words: str) -> set[str]:
    script = scripts["bash"]
    command = ["bash", "--norc", "-c", ASK_BASH, "bash", str(script), *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, cwd=script.parent)
    assert "" == done.stderr
    return set(done.stdout.split())


def fish(scripts: dict[str, Path], line: str) -> set[str]:
    command = ["fish", "--no-config", "-c", f"source {scripts['fish']}; complete -C '{line}'"]
    env = {**os.environ, "HOME": str(scripts["fish"].parent)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, cwd=scripts["fish"].parent, env=env)
    assert "" == done.stderr
    return {answer.partition("\t")[0] for answer in done.stdout.splitlines()}


def test_bash_completes_commands(scripts: dict[str, Path]) -> None:
    assert set(COMMANDS) <= bash(scripts, "unspool", "")
    assert {"record", "report"} == bash(scripts, "unspool", "re")


@pytest.mark.parametrize("command", COMMANDS)
def test_bash_completes_every_commands_options(command: str, scripts: dict[str, Path]) -> None:
    assert "--help" in bash(scripts, "unspool", command, "--")


def test_bash_completes_values(scripts: dict[str, Path]) -> None:
    assert {"cpu", "syscalls"} <= bash(scripts, "unspool", "record", "--on", "")
    assert {"reliable"} == bash(scripts, "unspool", "report", "--verdict", "rel")
    assert {"no-mapping"} == bash(scripts, "unspool", "report", "--stop", "no-m")
    assert {"check", "compare"} == bash(scripts, "unspool", "sframe", "c")
    assert {"zsh"} == bash(scripts, "unspool", "completions", "z")


@pytest.mark.parametrize("words", [("report",), ("diff", "host.unspool"), ("record", "-o"), ("serve",), ("sframe", "check"), ("push",)])
def test_bash_completes_files(words: tuple[str, ...], scripts: dict[str, Path]) -> None:
    assert {"host.unspool"} == bash(scripts, "unspool", *words, "h")


@pytest.mark.parametrize("words", [("stack",), ("record", "-p"), ("live", "-p")])
def test_bash_completes_processes(words: tuple[str, ...], scripts: dict[str, Path]) -> None:
    assert str(os.getpid()) in bash(scripts, "unspool", *words, str(os.getpid())[:1])


def test_fish_completes_commands_values_and_files(scripts: dict[str, Path]) -> None:
    assert {"record", "report"} == fish(scripts, "unspool re")
    assert {"cpu", "syscalls"} <= fish(scripts, "unspool record --on ")
    assert {"host.unspool"} == fish(scripts, "unspool report h")


def test_bash_in_a_terminal(scripts: dict[str, Path]) -> None:
    with terminal("bash", "--norc", "--noprofile", "-i", env={"PS1": "ready> ", "INPUTRC": "/dev/null"}) as shell:
        shell.wait_for("ready> ")
        shell.type(f"source {scripts['bash']}; unspool() {{ echo \"got <$*>\"; }}; PS1='sour''ced> '\r")
        shell.wait_for("sourced> ")
        shell.type("unspool rep\t\r")
        shell.wait_for("got <report>")


def test_zsh_in_a_terminal(scripts: dict[str, Path]) -> None:
    with terminal("zsh", "-f", "-i", env={"PS1": "ready> "}) as shell:
        shell.wait_for("ready> ")
        load = f"fpath=({scripts['zsh'].parent} $fpath); autoload -U compinit; compinit -u -D"
        shell.type(f"{load}; unspool() {{ echo \"got <$*>\"; }}; PS1='load''ed> '\r")
        shell.wait_for("loaded> ")
        shell.type("unspool rep\t\r")
        shell.wait_for("got <report>")


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in SHELLS:
        assert 0 == main(["completions", shell])
        assert completions(shell) == capsys.readouterr().out
