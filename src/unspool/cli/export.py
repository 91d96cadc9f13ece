"""Write a recording in the format of another program.

The suffix of the output's name chooses the format, or --format does. Every format says of each stack whether it is whole and why not:
as a label where the format has labels, else as a frame next to the root (--no-marks leaves it out).
docs/formats.md says what each format loses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from unspool.cli.filters import add_filter_arguments, filter_of
from unspool.cli.output import write_bytes, write_file
from unspool.errors import BadRequest
from unspool.export.formats import FORMATS, format_of
from unspool.export.options import Options
from unspool.profile.tree import GROUPINGS
from unspool.store.load import load
from unspool.store.reader import open_recording

EXAMPLES = """examples:
  unspool export host.unspool -o host.html                       a flame graph for the browser
  unspool export host.unspool --format folded -o - | grep nginx  a line a call path
  unspool export host.unspool --comm nginx -o nginx.pb.gz        for `go tool pprof`

formats:
""" + "".join(f"  {name:<14}{', '.join(entry.suffixes):<42}{entry.says}\n" for name, entry in FORMATS.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", metavar="FILE", help="a recording")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="where to write; - is stdout")
    parser.add_argument("--format", choices=list(FORMATS), help="the format (default: by the suffix of the output's name)")
    parser.add_argument("--by", choices=GROUPINGS, default="comm", help="what the root branches into")
    parser.add_argument("--no-marks", dest="marks", action="store_false", help="no frame that says why a stack is not whole")
    parser.add_argument("--title", default="", help="title of a picture (default: the command that was recorded)")
    add_filter_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    chosen = FORMATS[arguments.format] if arguments.format else format_of(arguments.output)
    output = None if arguments.output == "-" else Path(arguments.output)
    if output and output.exists() and output.samefile(arguments.file):
        raise BadRequest("the output is the recording itself", hint="Choose another name with -o.")
    with open_recording(arguments.file) as recording:
        profile = load(recording, filter_of(arguments), timed=chosen.timed)
    chunks = chosen.chunks(profile, Options(marks=arguments.marks, by=arguments.by, title=arguments.title))
    if output is None:
        write_bytes(chunks)
    else:
        write_file(output, chunks)
    return 0
