"""Show what runs now: functions by the time they take, with the share of their stacks that is proved, and threads.

The table is made anew every second from the samples of the last ten; + and - change that. Press ? for the keys, q to leave.
Where stdout is no terminal, or with --once, one table is printed as text. Without -p and --guest it is the whole machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.cli.guest_options import add_guest_arguments, guest_plan
from unspool.cli.output import write_lines
from unspool.cli.printable import printable
from unspool.cli.sampling_options import add_duration, add_everything, add_frequency, add_pid
from unspool.errors import BadRequest, Unsupported
from unspool.model.guest import HOST
from unspool.model.percent import percent

if TYPE_CHECKING:
    from unspool.session.recording import Plan
    from unspool.session.top import FunctionLine, Share, Table, ThreadLine

EXAMPLES = """examples:
  unspool top                      the whole machine
  unspool top -p 1234 -F 499       one process and its children, more often
  unspool top --guest web          what a virtual machine does, without an agent in it
  unspool top -a --guest all       this host and all its guests
  unspool top --once -d 5 -n 20    twenty lines of text after five seconds
"""

ONCE_SECONDS = 5.0
TOP = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_everything(parser, "every process (the default without -p and --guest)")
    add_pid(parser)
    add_frequency(parser)
    add_duration(parser, "end after that long (default: no end; 5s with --once)")
    parser.add_argument("--once", action="store_true", help="print one table as text")
    parser.add_argument("-n", "--top", type=int, default=TOP, metavar="N", help=f"how many functions the text has (default {TOP})")
    add_guest_arguments(parser, several=True)


def run(arguments: argparse.Namespace) -> int:
    """Show the table until the user leaves."""
    from unspool.session.recording import Plan
    from unspool.session.top import LiveSource, once

    if arguments.everything and arguments.pid:
        raise BadRequest("-a shows every process, so -p has no place beside it", hint="Leave one of them out.")
    guests = guest_plan(arguments)
    plan = Plan(
        Path(os.devnull),
        pids=tuple(arguments.pid),
        everything=arguments.everything or not (arguments.pid or guests),
        frequency=arguments.frequency,
        seconds=arguments.duration,
        guests=guests,
    )
    if arguments.once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        write_lines(lines(once(plan, arguments.duration or ONCE_SECONDS), max(arguments.top, 0)))
        return 0
    try:
        from unspool.cli.top_screen import Top
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in {"textual", "rich"}:
            raise
        hint = "pip install 'unspool[tui]', or pip install textual; `unspool top --once` prints a table without it."
        raise Unsupported("the package textual is not installed, and the screen is made with it", hint=hint) from None
    source = LiveSource(plan)
    try:
        source.start()
        Top(source, what=what(plan), seconds=plan.seconds).run()
    finally:
        source.close()
    if source.failed is not None:
        raise source.failed
    return 0


def what(plan: Plan) -> str:
    """What is watched, in words."""
    pids, parts = plan.pids, []
    if pids:
        parts.append(f"process {pids[0]}" if len(pids) == 1 else f"{len(pids)} processes")
    elif plan.on_host:
        parts.append("the machine")
    if plan.guests is not None:
        parts.append("all guests" if plan.guests.wanted == "all" else f"guest {plan.guests.wanted}")
    return ", ".join(parts)


def lines(table: Table, top: int) -> Iterator[str]:
    """A table as text."""
    total = table.total
    yield f"{total.samples:,} samples in {table.seconds:.1f} s, {proof(total)}, {table.lost:,} lost"
    if table.note:
        yield f"note: {printable(table.note)}"
    if not total.samples:
        yield "nothing of what was asked for ran on a CPU"
        return
    yield ""
    yield f"{'self':>8}  {'total':>8}  reliable  {'cut':>8}  function"
    for line in table.functions[:top]:
        module = f"  ({printable(line.module)})" if line.module and "+0x" not in line.name else ""
        cells = "  ".join(f"{cell:>8}" for cell in figures(line, total.samples))
        yield f"{cells}  {printable(line.name)}{module}"
    yield ""
    yield f"{'share':>8}  reliable  {'cut':>8}  {'pid':>7}  {'tid':>7}  thread"
    for thread in table.threads[: min(top, 10)]:
        own = thread.total
        shares = (percent(own.samples, total.samples), percent(own.reliable, own.stacks), percent(own.cut, own.stacks))
        yield f"{'  '.join(f'{share:>8}' for share in shares)}  {thread.pid:>7}  {thread.tid:>7}  {printable(named(thread))}"


def figures(line: FunctionLine, samples: int) -> tuple[str, str, str, str]:
    """A function's numbers: its share of the time itself and in all, and what is known of the stacks that it is on."""
    total = line.total
    of_stacks = percent(total.reliable, total.stacks), percent(total.cut, total.stacks)
    return percent(line.own, samples), percent(total.samples, samples), *of_stacks


def named(line: ThreadLine) -> str:
    """A thread's name with its process's, when they differ; in a guest behind the guest's."""
    name = line.process if line.process == line.thread else f"{line.process}: {line.thread}"
    return name if line.guest == HOST else f"guest:{line.guest} {name}"


def proof(total: Share) -> str:
    """What is known of the stacks, in words."""
    if not total.stacks:
        return "no user stacks"
    return f"{percent(total.whole, total.stacks)} whole, {percent(total.reliable, total.stacks)} reliable"
