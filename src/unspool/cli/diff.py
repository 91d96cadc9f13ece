"""What changed between two recordings: each function's share of the time, before and after.

Both are normalised: a share of 10 % is 10 % of that recording's samples, however many it has. Filters hold for both.
Changes are in points of percent. A ~ stands before one that is less than two standard errors: the same program twice differs as much.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from unspool.cli.filters import add_filter_arguments, filter_of
from unspool.cli.output import write_lines
from unspool.cli.printable import printable
from unspool.model.percent import percent
from unspool.profile.columns import Profile
from unspool.profile.difference import Change, difference
from unspool.profile.quality import Quality, quality
from unspool.store.load import load
from unspool.store.reader import open_recording

EXAMPLES = """examples:
  unspool diff before.unspool after.unspool
  unspool diff before.unspool after.unspool --sort total --comm nginx
"""
TOP = 30
NAME_WIDTH = 100
CHANCE = 2.0
"""Standard errors below which a change says nothing: one of twenty changes that are none is larger."""

COMPARABLE = 0.05
"""How far the shares of whole stacks may differ without a note."""


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
    qualities = [quality(profile) for profile in (before, after)]
    for name, profile, found in zip(("before", "after"), (before, after), qualities, strict=True):
        yield f"{name:<8}{_measured(profile, found)}"
    whole = [found.stack_share(found.whole) for found in qualities]
    if abs(whole[0] - whole[1]) > COMPARABLE:
        yield "note: the shares of whole stacks differ much, so that the totals of callers cannot be compared well"
    if not changes:
        yield "nothing changed"
        return
    yield ""
    yield f"{'self':>8}{'':18}{'total':>8}"
    yield "  change  before   after    change  before   after  function"
    for change in changes:
        own = f"{_points(change.own, change.own_error)} {100 * change.own_before:>7.2f} {100 * change.own_after:>7.2f}"
        total = f"{_points(change.total, change.total_error)} {100 * change.total_before:>7.2f} {100 * change.total_after:>7.2f}"
        name = printable(change.name)
        if len(name) > NAME_WIDTH:
            name = name[: NAME_WIDTH - 3] + "..."
        module = f"  ({printable(change.module)})" if change.module else ""
        yield f"{own}  {total}  {name}{module}{_only(change)}"


def _measured(profile: Profile, found: Quality) -> str:
    """How much was measured, in words."""
    about = profile.about
    parts = [f"{found.samples:>9,} samples in {about.duration_s:.1f} s"]
    if about.period_ns:
        parts.append(f"{profile.weight * about.period_ns / 1e9:.2f} s of CPU time")
    parts += [f"{percent(found.stack_share(found.whole))} of user stacks whole", f"{about.lost:,} lost"]
    return ", ".join(parts) + (f"  {printable(about.command)}" if about.command else "")


def _points(change: float, error: float) -> str:
    """A change in points of percent, eight wide."""
    mark = "~" if change and abs(change) < CHANCE * error else ""
    return f"{f'{mark}{100 * change:+.2f}':>8}"


def _only(change: Change) -> str:
    """Whether only one side has the function."""
    if not change.total_before:
        return "  new"
    return "" if change.total_after else "  gone"


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
        "self": {"before": change.own_before, "after": change.own_after, "change": change.own, "error": change.own_error},
        "total": {"before": change.total_before, "after": change.total_after, "change": change.total, "error": change.total_error},
    }
