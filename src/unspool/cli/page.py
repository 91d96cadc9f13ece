"""What every command that shows the page has in common: where it listens, and how the browser gets there."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.errors import BadRequest

if TYPE_CHECKING:
    from unspool.web.serving import Place


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """The options of the server."""
    parser.add_argument("--port", type=int, default=0, metavar="N", help="the port to listen on (default: one that is free)")
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--allow-remote", action="store_true", help="let --bind name an address that other machines can reach; not encrypted"
    )
    parser.add_argument("--unix-socket", type=Path, metavar="PATH", help="listen on a Unix socket instead, for `ssh -L 8080:PATH`")
    parser.add_argument("--no-open", action="store_true", help="do not start a browser")


def place(arguments: argparse.Namespace) -> Place:
    """Where to listen; BadRequest for a port that is none."""
    from unspool.web.serving import Place

    if not 0 <= arguments.port < 2**16:
        raise BadRequest("--port takes a number from 0 to 65535")
    return Place(arguments.bind, arguments.port, arguments.unix_socket, arguments.allow_remote)


def show(link: str, arguments: argparse.Namespace) -> None:
    """Print the address, and start the desktop's browser, if there is a desktop."""
    sys.stdout.write(f"{link}\n")
    sys.stdout.flush()
    opener = shutil.which("xdg-open")
    has_desktop = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if arguments.no_open or arguments.unix_socket is not None or opener is None or not has_desktop:
        return
    with contextlib.suppress(OSError):
        subprocess.Popen(
            [opener, link], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )


def owner() -> tuple[int, int] | None:
    """The user and group who called sudo, None when nobody did."""
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    return (int(uid), int(gid)) if uid.isdecimal() and gid.isdecimal() and int(uid) else None
