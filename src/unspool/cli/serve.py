"""Show recordings as a web page: flame graph, table, callers and callees, timeline, data quality, and what changed between two.

The server listens on this machine only. The address it prints holds a token; whoever has it can read the recordings. Started as root, it
reads the recordings and then becomes who called sudo, or nobody. Every view is JSON too, below /api/.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from unspool.errors import BadRequest

EXAMPLES = """examples:
  unspool serve host.unspool                       open it in the browser
  unspool serve before.unspool after.unspool       and what changed from one to the other
  unspool serve --no-open --port 8080 host.unspool for `ssh -L 8080:localhost:8080`
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", nargs="+", type=Path, metavar="FILE", help="a recording")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="the port to listen on (default: one that is free)")
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--allow-remote", action="store_true", help="let --bind name an address that other machines can reach; not encrypted"
    )
    parser.add_argument("--unix-socket", type=Path, metavar="PATH", help="listen on a Unix socket instead, for `ssh -L 8080:PATH`")
    parser.add_argument("--no-open", action="store_true", help="do not start a browser")


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from unspool.web.opened import Opened
    from unspool.web.serving import Place, serve

    if not 0 <= arguments.port < 2**16:
        raise BadRequest("--port takes a number from 0 to 65535")
    place = Place(arguments.bind, arguments.port, arguments.unix_socket, arguments.allow_remote)
    opened = [Opened.of(path) for path in arguments.file]

    def ready(link: str) -> None:
        sys.stdout.write(f"{link}\n")
        sys.stdout.flush()
        sys.stderr.write("serving; end it with Ctrl-C\n")
        if not arguments.no_open and arguments.unix_socket is None:
            open_browser(link)

    with contextlib.suppress(KeyboardInterrupt):
        serve(opened, place, owner(), ready)
    return 0


def owner() -> tuple[int, int] | None:
    """The user and group who called sudo, None when nobody did."""
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    return (int(uid), int(gid)) if uid.isdecimal() and gid.isdecimal() and int(uid) else None


def open_browser(link: str) -> None:
    """Start the desktop's browser, if there is a desktop."""
    opener = shutil.which("xdg-open")
    if opener is None or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    with contextlib.suppress(OSError):
        subprocess.Popen(
            [opener, link], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
