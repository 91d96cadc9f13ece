"""Show recordings as a web page: flame graph, table, callers and callees, timeline, data quality, and what changed between two.

The server listens on this machine only. The address it prints holds a token; whoever has it can read the recordings. Started as root, it
becomes who called sudo, or nobody, before it reads a recording. Every view is JSON too, below /api/.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from unspool.cli import page

EXAMPLES = """examples:
  unspool serve host.unspool                       open it in the browser
  unspool serve before.unspool after.unspool       and what changed from one to the other
  unspool serve --no-open --port 8080 host.unspool  for `ssh -L 8080:localhost:8080`
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", nargs="+", type=Path, metavar="FILE", help="a recording")
    page.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from unspool.symbols.uploaded import UploadedFile
    from unspool.web.lent import Lent
    from unspool.web.serving import serve, user_without_root

    place, owner = page.place(arguments), page.owner()
    lent = Lent(arguments.file, user_without_root(owner))

    def ready(link: str) -> None:
        page.show(link, arguments)
        sys.stderr.write("serving; end it with Ctrl-C\n")

    with contextlib.suppress(KeyboardInterrupt):
        serve(lent.opened, place, owner, ready, UploadedFile)
    return 0
