"""What changed between two recordings: each function's share of the time, before and after.

Both are normalised: a share of 10 % is 10 % of that recording's samples, however many it has. Filters hold for both.
The shares of whole stacks stand above the functions: where they differ much, the functions cannot be compared well.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from unspool.cli.filters import add_filter_arguments, filter_of
from unspool.cli.output import write_lines
from unspool.cli.printable import printable
from unspool.profile.columns import Profile
from unspool.profile.difference import Change, difference
from unspool.profile.quality import quality
from unspool.store.load import load
from unspool.store.reader import open_recording

EXAMPLES = """examples:
  unspool diff before.unspool after.unspool
  unspool diff before.unspool after.unspool --sort total --comm nginx
"""
TOP = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("before", metavar="BEFORE", help="a recording")
    parser.add_argument("after", metavar="AFTER", help="the recording to compare it with")
    parser.add_argument("--sort", choices=["self", "total"], default="self", help="which change comes first (default: self)")
    parser.add_argument("-n", "--top", metavar="N", type=int, default=TOP, help=f"how many functions (default: {TOP})")
    parser.add_argument("--json", action="store_true", help="print JSON with every function")
    add_filter_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the changes."""
    profiles = []
    for file in (arguments.before, arguments.after):
        with open_recording(file) as recording:
            profiles.append(load(recording, filter_of(arguments)))
    before, after = profiles
    changes = difference(before, after)
    if arguments.sort == "total":
        changes.sort(key=lambda change: -abs(change.total))
    if arguments.json:
        json.dump({"before": _side(before), "after": _side(after), "functions": [_change(change) for change in changes]}, sys.stdout)
        sys.stdout.write("\n")
        sys.stdout.flush()
        return 0
    shown = [change for change in changes if abs(change.own) > 0 or abs(change.total) > 0][: max(arguments.top, 0)]
    write_lines(lines(before, after, shown))
    return 0


def lines(before: Profile, after: Profile, changes: list[Change]) -> Iterator[str]:
    """Both sides, and the changes in points of percent."""
    for name, profile in (("before", before), ("after", after)):
        found = quality(profile)
        whole = f"{100 * found.stack_share(found.whole):.1f} % of user stacks whole"
        yield f"{name:<8}{found.samples:>9,} samples, {whole}, {profile.about.lost:,} lost"
    yield ""
    yield "    self  before   after     total  before   after  function"
    for change in changes:
        own = f"{100 * change.own:>+8.2f} {100 * change.own_before:>7.2f} {100 * change.own_after:>7.2f}"
        total = f"{100 * change.total:>+8.2f} {100 * change.total_before:>7.2f} {100 * change.total_after:>7.2f}"
        module = f"  ({printable(change.module)})" if change.module else ""
        yield f"{own}  {total}  {printable(change.name)}{module}"
    if not changes:
        yield "nothing changed"


def _side(profile: Profile) -> dict[str, object]:
    found = quality(profile)
    return {
        "samples": found.samples,
        "weight": profile.weight,
        "whole": found.whole,
        "cut": found.cut,
        "none": found.none,
        "lost": profile.about.lost,
    }


def _change(change: Change) -> dict[str, object]:
    return {
        "function": change.name,
        "module": change.module,
        "self": {"before": change.own_before, "after": change.own_after, "change": change.own},
        "total": {"before": change.total_before, "after": change.total_after, "change": change.total},
    }
