"""Try what this machine and this user can do, and say what mends the rest. The exit status is 1 when recording is impossible."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence

from unspool.capture.features import Check, can_record, checks
from unspool.cli.printable import printable

EXAMPLES = """examples:
  unspool doctor            what works, what does not, and the command that mends it
  unspool doctor --json     the same for programs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One switch."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the checks; 1 when recording is impossible."""
    found = list(checks())
    if arguments.json:
        json.dump(as_json(found), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(found))
    return 0 if can_record(found) else 1


def as_json(found: Sequence[Check]) -> dict[str, object]:
    """The checks as JSON shows them."""
    machine = os.uname()
    rows = [dataclasses.asdict(check) | {"mend": check.mend or None} for check in found]
    return {"can_record": can_record(list(found)), "kernel": machine.release, "arch": machine.machine, "uid": os.geteuid(), "checks": rows}


def lines(found: Sequence[Check]) -> Iterator[str]:
    """A line for each check, a second one for what mends it, and the answer."""
    width = max(len(check.name) for check in found)
    for check in found:
        word = "ok" if check.works else "MISSING" if check.needed else "absent"
        first, *more = check.found.splitlines() or [""]
        yield f"{word:<8}{check.name:<{width}}  {printable(first)}"
        yield from (f"{'':<{width + 10}}{printable(line)}" for line in more)
        if not check.works and check.mend:
            yield f"{'':<8}{'':<{width}}  -> {printable(check.mend)}"
    yield ""
    missing = [check.name for check in found if check.needed and not check.works]
    if missing:
        yield f"Recording is impossible here: {', '.join(missing)}."
    else:
        yield "This machine can record."
