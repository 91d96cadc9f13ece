"""Make a recording of another program's profile: folded stacks, pprof, or the text of perf script.

What the profile does not say stays unknown: unless it was written by `unspool export`, nobody can tell whether its stacks are whole.
"""

# ruff: noqa: N999 - the module has the name of its command, and is never imported by a statement
from __future__ import annotations

import argparse
from pathlib import Path

from unspool.cli.output import say
from unspool.errors import BadRequest
from unspool.session.importing import SOURCES, import_profile, source_of

EXAMPLES = """examples:
  perf script | unspool import --format perf-script - -o perf.unspool
  unspool import profile.pb.gz -o profile.unspool
  unspool import stacks.folded -o stacks.unspool
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", metavar="FILE", help="the profile; - is stdin")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the recording to make")
    parser.add_argument("--format", choices=list(SOURCES), help="the format (default: by the suffix of the profile's name)")


def run(arguments: argparse.Namespace) -> int:
    """Write the recording."""
    if arguments.output == "-":
        raise BadRequest("a recording is a database, and cannot be written to stdout", hint="Name a file with -o.")
    path = Path("/dev/stdin" if arguments.file == "-" else arguments.file)
    source = SOURCES[arguments.format] if arguments.format else source_of(path)
    samples = import_profile(path, source, Path(arguments.output))
    say(f"{samples:,} samples are in {arguments.output}")
    return 0
