"""Print completions of a shell, made from the commands' own options: names of commands, options, files, triggers, processes.

A wheel installs those of bash, zsh and fish where the shells look for them below its prefix (share/). Else put what is printed there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from unspool.errors import BadRequest
from unspool.model.verdict import Stop, Verdict

EXAMPLES = """examples:
  unspool completions bash > unspool.bash      then: source unspool.bash
  unspool completions zsh > _unspool           into a folder of $fpath
  unspool completions fish > unspool.fish      into ~/.config/fish/completions
"""

SHELLS = ("bash", "zsh", "fish")

_PIDS = {
    "bash": "_unspool_processes",
    "zsh": "_pids",
    "fish": "(__fish_complete_pids)",
}
_PREAMBLE = {
    "bash": """
_unspool_processes() {
  compgen -W "$(cd /proc && printf '%s ' [0-9]*)" -- "$1"
}
""",
}

_FILES = {"FILE", "CORE", "BEFORE", "AFTER", "OUT", "PATH"}
"""What an argument is called that names a file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(arguments: argparse.Namespace) -> int:
    """Print them."""
    sys.stdout.write(completions(arguments.shell))
    return 0


def completions(shell: str) -> str:
    """The text that a shell reads."""
    try:
        import shtab
    except ModuleNotFoundError:
        raise BadRequest("the package shtab is not installed", hint="pip install shtab") from None
    return str(shtab.complete(whole_parser(shtab.FILE), shell, preamble=_PREAMBLE.get(shell, "")))


def whole_parser(files: object) -> argparse.ArgumentParser:
    """All commands as one parser; `files` is what completes a file in each shell."""
    from unspool.cli.main import COMMANDS, load

    parser = argparse.ArgumentParser(prog="unspool")
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    commands = parser.add_subparsers()
    for name, help_line in COMMANDS.items():
        command = commands.add_parser(name, help=help_line, description=help_line)
        load(name).add_arguments(command)
        _annotate(command, files)
    return parser


def _annotate(parser: argparse.ArgumentParser, files: object) -> None:
    """Say what the values of options are, where the parser itself does not."""
    for action in parser._actions:  # noqa: SLF001 (argparse has no other way to ask for them)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                _annotate(command, files)
        elif action.choices is None and action.nargs != 0:
            _annotate_value(action, files)


def _annotate_value(action: argparse.Action, files: object) -> None:
    words = _words(action.dest)
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if words:
        action.choices = words
    elif action.nargs == argparse.REMAINDER or action.type is Path or metavar in _FILES:
        action.complete = files  # type: ignore[attr-defined]
    elif metavar.startswith("PID") or action.dest in {"pid", "target"}:
        action.complete = _PIDS  # type: ignore[attr-defined]


def _words(dest: str) -> list[str]:
    """The values that an option takes, by its name; none when they cannot be listed."""
    from unspool.capture.triggers import TriggerKind

    match dest:
        case "on":
            return list(get_args(TriggerKind))
        case "verdict":
            return [verdict.label for verdict in Verdict]
        case "ending":
            return ["whole", "cut", "none", "unknown"]
        case "stop":
            return [stop.label for stop in Stop if stop is not Stop.NONE]
    return []
