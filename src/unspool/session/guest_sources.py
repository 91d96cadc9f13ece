"""Where the names of a guest's programs come from: its memory, or a folder that the user gives; never a file that the guest names."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from unspool.capture.guest_wire import GuestModule
from unspool.model.symbol import Unnamed
from unspool.symbols.files import OpenFile, open_in_root
from unspool.symbols.reasons import Reason


def source_of(described: GuestModule, kept: int | None, sysroot: Path | None, *, whole: bool) -> OpenFile | Unnamed:
    """The bytes `kept` out of the guest's memory when they are the whole file, else the sysroot's file, else what there is.

    `kept` is a descriptor that is taken over, None when nothing is there.
    """
    if kept is None or not whole:
        file = _in_sysroot(described, sysroot)
        if file is not None:
            if kept is not None:
                os.close(kept)
            return file
    if kept is not None:
        return OpenFile(kept, described.path, described.build_id, _debug_folder(sysroot))
    if described.kind != "file":
        return Reason.ANONYMOUS.because()
    return Reason.FILE_UNREACHABLE.because("it is not in the guest's memory; --sysroot says where a copy of it is")


def _in_sysroot(described: GuestModule, sysroot: Path | None) -> OpenFile | None:
    if sysroot is None or described.kind != "file":
        return None
    root = _debug_folder(sysroot)
    try:
        return OpenFile(open_in_root(root, described.path), described.path, described.build_id, root)
    except OSError:
        os.close(root)
        return None


def _debug_folder(sysroot: Path | None) -> int:
    """The folder below which debug files are looked for. A guest must not name a file of this host: without a sysroot an empty one."""
    if sysroot is not None:
        return os.open(sysroot, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    folder = tempfile.mkdtemp(prefix="unspool-")
    try:
        return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        # A folder that is gone stays empty.
        Path(folder).rmdir()
