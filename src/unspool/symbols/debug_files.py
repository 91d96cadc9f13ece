"""Separate debug files: where distributions put them, by build id or by the name that a file gives (gdb manual, "Separate Debug Files")."""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterator

from unspool.symbols.files import OpenFile, open_in_root

FOLDER = "/usr/lib/debug"
_BUILD_ID = re.compile(r"[0-9a-f]{4,128}")


def debug_files(file: OpenFile, build_id: str, link: str) -> Iterator[OpenFile]:
    """Every candidate that exists, best first; whether one belongs to `file` (build id, checksum) is for the parser to say.

    `link` is the name in .gnu_debuglink, "" for none. In the program's root folder first, then in ours by build id only.
    """
    by_id = _build_id_path(build_id)
    paths = [by_id] if by_id else []
    folder = posixpath.dirname(file.path)
    if link and "/" not in link and folder.startswith("/"):
        paths += [f"{folder}/{link}", f"{folder}/.debug/{link}", f"{FOLDER}{folder}/{link}"]
    for path in paths:
        if path != file.path:
            yield from _opened(file.root, path)
    if file.root is not None and by_id:
        yield from _opened(None, by_id)


def _build_id_path(build_id: str) -> str:
    return f"{FOLDER}/.build-id/{build_id[:2]}/{build_id[2:]}.debug" if _BUILD_ID.fullmatch(build_id) else ""


def _opened(root: int | None, path: str) -> Iterator[OpenFile]:
    with contextlib.suppress(OSError):
        yield OpenFile(open_in_root(root, path), path)
