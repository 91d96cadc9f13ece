"""Tell whether a function is on the stack of any thread of a process: whether it would be safe to replace it.

Exit status 0: no. Every thread's stack is reliable, and neither FUNCTION nor an inlined copy of it is on one.
Exit status 1: yes, on the stacks that are listed.
Exit status 2: it cannot be known, for the reasons that are listed.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from unspool.cli.printable import printable
from unspool.errors import UnspoolError
from unspool.session.live import Answer, Doubt, Outcome, Question, Sighting, is_live

EXAMPLES = """examples:
  unspool live SSL_read -p 1234                     is SSL_read on any stack?
  unspool live SSL_read -p 1234 -m libssl.so.3      only that library's
  unspool live parse -p 1234 --wait 10 && patch     wait until it is safe
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("function", metavar="FUNCTION", help="its name, mangled or not; without parameters it means all overloads")
    parser.add_argument("-p", "--pid", metavar="PID", type=int, required=True, help="the process")
    parser.add_argument("-m", "--module", metavar="FILE", help="only the function of this file: its path, or the last part of it")
    parser.add_argument("--wait", metavar="SECONDS", type=float, default=0.0, help="ask again until it is safe, at most so long")
    parser.add_argument("--not-inlined", action="store_true", help="you know that no caller inlined it: debug information is not needed")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the answer; its number is the exit status, 2 also where the question cannot be asked."""
    question = Question(arguments.function, arguments.module, inlined=not arguments.not_inlined)
    try:
        answer = is_live(arguments.pid, question, wait=arguments.wait)
    except UnspoolError as error:
        doubt = Doubt("error", f"{error}. {error.hint}".rstrip())
        answer = Answer(Outcome.UNKNOWN, arguments.pid, arguments.function, 0, (), (), (doubt,))
    except Exception:  # noqa: BLE001 (Python's exit status for a fault of ours is 1, which would be an answer)
        traceback.print_exc()
        return int(Outcome.UNKNOWN)
    if arguments.json:
        json.dump(as_json(answer), sys.stdout)
        sys.stdout.write("\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(answer))
    return int(answer.outcome)


def as_json(answer: Answer) -> dict[str, Any]:
    """What --json prints; docs/live.md says what each field means."""
    return {
        "function": answer.function,
        "pid": answer.pid,
        "answer": answer.outcome.label,
        "threads": answer.threads,
        "looks": answer.looks,
        "definitions": [
            {
                "module": definition.module,
                "ranges": [[hex(start), hex(end)] for start, end in definition.ranges],
                "shows_inlined": definition.shows_inlined,
            }
            for definition in answer.definitions
        ],
        "live": [_sighting_as_json(sighting) for sighting in answer.sightings],
        "reasons": [{"reason": doubt.reason, "sentence": doubt.sentence, "tid": doubt.tid} for doubt in answer.doubts],
    }


def _sighting_as_json(sighting: Sighting) -> dict[str, Any]:
    return {
        "tid": sighting.tid,
        "name": sighting.name,
        "frame": sighting.index,
        "ip": hex(sighting.ip),
        "function": sighting.function,
        "inlined": sighting.inlined,
    }


def lines(answer: Answer) -> Iterator[str]:
    """What the command prints, line by line."""
    function = printable(answer.function)
    if answer.outcome is Outcome.SAFE:
        yield f"{function} is on none of the {answer.threads} stacks of process {answer.pid}; all of them are reliable."
        return
    if answer.outcome is Outcome.LIVE:
        yield f"{function} is live in process {answer.pid}:"
    for sighting in answer.sightings:
        inlined = ", inlined" if sighting.inlined else ""
        place = f"thread {sighting.tid} {printable(sighting.name)}, frame #{sighting.index}"
        yield f"  {place}: {printable(sighting.function)}{inlined}"
    if answer.outcome is Outcome.UNKNOWN:
        yield f"It cannot be known whether {function} is live in process {answer.pid}:"
        for doubt in answer.doubts:
            thread = f"thread {doubt.tid}: " if doubt.tid is not None else ""
            yield f"  {thread}{printable(doubt.sentence)} ({doubt.reason})"
        if any(doubt.reason == "inlining-unknown" for doubt in answer.doubts):
            yield "  hint: install the debug information of that file, or give --not-inlined if you know how it was built."
