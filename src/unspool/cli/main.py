"""`unspool`: chooses the command, and turns every UnspoolError into a sentence and a hint."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

import unspool
from unspool.cli.output import say, silence
from unspool.errors import UnspoolError

COMMANDS = {
    "record": "record whole stacks of running programs",
    "top": "show what runs now, made anew every second",
    "report": "where the time goes in a recording, and how complete that picture is",
    "query": "run SQL on a recording",
    "serve": "show recordings as a web page",
    "diff": "what changed between two recordings",
    "export": "write a recording in another format",
    "import": "make a recording of another program's profile",
    "push": "send a recording, or what runs now, to an OpenTelemetry collector",
    "stack": "print every thread's stack of a live process",
    "live": "tell whether a function is on any thread's stack",
    "audit": "what a file gives a reliable unwinder",
    "sframe": "show, check, make, compare and count the SFrame data of files",
    "guest": "find the virtual machines of this host, and how to look into them",
    "doctor": "try what this machine can do",
    "completions": "print completions of bash, zsh or fish",
}
"""Each command's name (its module in this package) and its line of help; the module's docstring is the rest of the help."""

FAILED = 1
USAGE = 2
INTERRUPTED = 130
NOT_WRITTEN = 74
"""EX_IOERR of sysexits.h."""

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def load(command: str) -> ModuleType:
    """The command's module: `add_arguments(parser)`, `run(arguments) -> int`, and optionally EXAMPLES."""
    return importlib.import_module(f"unspool.cli.{command.replace('-', '_')}")


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in two lines: the usage of `record` alone has twenty."""

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        self.exit(USAGE, f"{self.prog}: error: {message}\nhint: `{self.prog} --help` shows the options and examples.\n")


def parser_for(command: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    module = load(command)
    parser = Parser(
        prog=f"unspool {command}",
        description=module.__doc__,
        epilog=getattr(module, "EXAMPLES", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


def usage() -> str:
    """What `unspool --help` prints."""
    width = max(len(name) for name in COMMANDS) + 2
    lines = ["usage: unspool COMMAND [OPTIONS]", "", (unspool.__doc__ or "").splitlines()[0], "", "commands:"]
    lines += [f"  {name:<{width}}{help_line}" for name, help_line in COMMANDS.items()]
    lines += ["", "`unspool COMMAND --help` shows a command's options and examples.", ""]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is the command's, 1 for an error, 2 for wrong usage, 74 when the output found no room."""
    open_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return chosen(arguments)
        finally:
            # Here, where its failure can be told, and not at the interpreter's exit.
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output went away (`unspool report | head`): nothing is left to say.
        silence(sys.stdout)
        return FAILED
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        silence(sys.stdout)
        say(f"unspool: the output cannot be written: {error.strerror}")
        return NOT_WRITTEN


def open_streams() -> None:
    """Give the process the standard streams that it was started without: a recording's file must not become its stderr."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The kernel gives the lowest number that is free: this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (it stays open)


def chosen(arguments: list[str]) -> int:
    """Run the command that the first argument names, or say what there is."""
    if arguments[:1] == ["help"] and arguments[1:2]:
        arguments = [arguments[1], "--help"]
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        sys.stdout.write(usage())
        return 0 if arguments else USAGE
    if arguments[0] in {"-V", "--version"}:
        sys.stdout.write(f"unspool {unspool.__version__}\n")
        return 0
    if arguments[0] not in COMMANDS:
        sys.stderr.write(f"unspool: there is no command {arguments[0]!r}\nhint: `unspool --help` lists them.\n")
        return USAGE
    return run(arguments[0], arguments[1:])


def run(command: str, arguments: Sequence[str]) -> int:
    """Run a command's module and report its errors as a user can act on them."""
    try:
        parsed = parser_for(command).parse_args(arguments)
        return int(load(command).run(parsed))
    except UnspoolError as error:
        say(f"unspool {command}: {error}")
        if error.hint:
            say(f"hint: {error.hint}")
        return int(getattr(error, "exit_status", FAILED))
    except KeyboardInterrupt:
        return INTERRUPTED
