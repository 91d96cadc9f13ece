"""Record whole stacks of running programs, unwound inside the kernel: one command, some processes, or the whole machine.

A recording goes on until Ctrl-C, the command's end, the end of the processes, or its time (-d). The exit status is the command's.
A second Ctrl-C aborts: what was committed until then can be read, without names.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

from unspool.cli import live_page
from unspool.cli.guest_options import add_guest_arguments, guest_plan
from unspool.cli.output import say, write_stderr
from unspool.cli.sampling_options import add_duration, add_everything, add_frequency, add_pid, numbers
from unspool.errors import BadRequest
from unspool.model.verdict import PROOFS, Trust

EXAMPLES = """examples:
  unspool record -- ./server --port 80         a command, from its first instruction
  unspool record -p 1234,1240 -d 10            two processes for ten seconds
  unspool record -a -F 499 -o host.unspool     the whole machine until Ctrl-C
  unspool record --on syscalls:openat -- make  who opens files
  unspool record --guest all -d 10             every virtual machine, without an agent in it
  unspool record --live -a                     and watch it as a web page

Then: unspool report FILE
"""

METHODS = {"auto": PROOFS, "sframe": frozenset({Trust.SFRAME}), "cfi": frozenset({Trust.CFI})}
"""What --call-graph takes. perf's name for CFI, dwarf, is understood too."""
METHODS["dwarf"] = METHODS["cfi"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Hands know most of them from perf, samply and py-spy."""
    add_pid(parser)
    parser.add_argument("-t", "--tid", type=numbers, action="extend", default=[], metavar="TID[,TID]", help="these threads only")
    add_everything(parser)
    add_frequency(parser)
    add_duration(parser, "end after that long: 10, 10s, 500ms, 2m (default: no end)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the recording (default: NAME-DATE.unspool); replaces a recording"
    )
    parser.add_argument(
        "--on", default="cpu", metavar="TRIGGER", help="what takes a sample: cpu, syscalls, syscalls:NAME,... (default cpu)"
    )
    parser.add_argument("--as-root", action="store_true", help="under sudo, run the command as root too, and not as who called sudo")
    parser.add_argument(
        *("--call-graph", "--unwind"),
        choices=sorted(METHODS),
        default="auto",
        dest="methods",
        help="the unwind data that may be used: auto is SFrame where a file has it, else .eh_frame (default auto)",
    )
    live_page.add_arguments(parser)
    add_guest_arguments(parser, several=True)
    # perf asks for call graphs with it; here every sample has one.
    parser.add_argument("-g", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ARGS", help="start a command and record it")


def run(arguments: argparse.Namespace) -> int:
    """Record; the exit status is the command's, else 0."""
    from unspool.capture.triggers import parse_trigger
    from unspool.cli.recording_summary import progress_line, summary
    from unspool.session.recording import Plan, Progress, record

    plan = Plan(
        output=arguments.output or default_output(arguments),
        pids=tuple(arguments.pid),
        tids=tuple(arguments.tid),
        everything=arguments.everything,
        command=checked_command(arguments),
        as_root=arguments.as_root,
        frequency=arguments.frequency,
        seconds=arguments.duration,
        trigger=parse_trigger(arguments.on),
        methods=METHODS[arguments.methods],
        replace=arguments.output is not None,
        guests=guest_plan(arguments),
    )
    screen = Screen()

    def show(stage: str, progress: Progress) -> None:
        screen.line(progress_line(stage, progress))

    with live_page.live_page(arguments, plan.output) as page:
        try:
            if screen.live and not plan.command and plan.seconds is None:
                say("recording; end it with Ctrl-C")
            progress = record(plan, show, page.make if page else None)
        finally:
            screen.clear()
        for line in summary(progress):
            say(line)
        if not progress.samples and plan.on_host and plan.trigger.kind == "cpu":
            say("hint: A short program needs a higher rate (-F 4999); one that waits has samples by --on syscalls.")
        live_page.linger(page, progress)
    return progress.exit_status or 0


def checked_command(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The command without the "--" before it; BadRequest when nothing can be recorded, or two things exclude each other."""
    if arguments.output == Path("-"):
        raise BadRequest(
            "a recording is a database, and cannot be written to stdout", hint="Name a file with -o; `unspool export` writes to stdout."
        )
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    targets = [bool(arguments.pid or arguments.tid), arguments.everything]
    if not command and not any(targets) and arguments.guest is None:
        hint = "Give a command after --, processes with -p, threads with -t, the whole machine with -a, or virtual machines with --guest."
        raise BadRequest("nothing to record", hint=hint)
    if all(targets):
        raise BadRequest("-a records every process, so -p and -t have no place beside it", hint="Leave one of them out.")
    if arguments.tid and (arguments.pid or command):
        raise BadRequest("-t records threads alone, so -p and a command have no place beside it", hint="Leave one of them out.")
    return tuple(command)


def default_output(arguments: argparse.Namespace) -> Path:
    """A name that says what was recorded and when, in this folder."""
    command = [word for word in arguments.command if word != "--"]
    name = "machine"
    if command:
        name = os.path.basename(command[0])  # noqa: PTH119 (text, not a file)
    elif arguments.pid or arguments.tid:
        name = str((arguments.pid or arguments.tid)[0])
    elif arguments.guest and not arguments.everything:
        name = "guests" if arguments.guest == "all" else re.sub(r"[^\w.-]", "_", arguments.guest.partition(",")[0])
    return Path(f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.unspool")


class Screen:
    """One line at the bottom of the terminal that is written again and again; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self.live = sys.stderr.isatty()
        self._shown = False

    def line(self, text: str) -> None:
        """Show this line in place of the last."""
        if self.live:
            write_stderr(f"\r\x1b[K{text}")
            self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            write_stderr("\r\x1b[K")
            self._shown = False
