"""`record --live`: the options, and the page beside the recording."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.cli import page
from unspool.cli.output import say

if TYPE_CHECKING:
    from unspool.session.live_recording import LivePage
    from unspool.session.recording import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--live, and where its page listens."""
    parser.add_argument("--live", action="store_true", help="show the recording as a web page while it is made")
    page.add_arguments(parser.add_argument_group("the page of --live"))


@contextlib.contextmanager
def live_page(arguments: argparse.Namespace, output: Path) -> Iterator[LivePage | None]:
    """The page of a recording that goes to `output`; None without --live."""
    if not arguments.live:
        yield None
        return
    from unspool.session.live_recording import LivePage

    def ready(link: str) -> None:
        page.show(link, arguments)

    with LivePage(output.name, page.place(arguments), page.owner(), ready) as shown:
        yield shown


def linger(shown: LivePage | None, progress: Progress) -> None:
    """Keep the page of a recording that ended by itself."""
    if shown is not None and progress.why != "interrupted":
        say("the page stays; end it with Ctrl-C")
        shown.linger()
