"""Files of other processes, opened against hostile names: inside a root, regular files only, without side effects."""

from __future__ import annotations

import ctypes
import os
import stat
import struct

_SYS_OPENAT2 = 437
"""openat2's number, the same on every architecture (kernel 5.6)."""

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_HOW = struct.Struct("<QQQ")
_O_PATH = os.O_PATH | os.O_CLOEXEC


def open_in_root(root: str, path: str, *, follow: bool = True) -> int | None:
    """A descriptor of the regular file at `path`, with `root` as its root directory also for links and ".."; None when there is none.

    `root` is a directory's name, mostly /proc/PID/root. Without `follow`, a link at the end of the path is refused.
    """
    try:
        directory = os.open(root, _O_PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        found = _openat2(directory, path, _O_PATH | (0 if follow else os.O_NOFOLLOW))
    finally:
        os.close(directory)
    return None if found is None else _readable(found)


def open_regular(path: str) -> int | None:
    """A descriptor of the regular file behind a link of /proc (`exe`, `map_files/...`), None when there is none or it may not be read."""
    try:
        found = os.open(path, _O_PATH)
    except OSError:
        return None
    return _readable(found)


def _openat2(directory: int, path: str, flags: int) -> int | None:
    libc = ctypes.CDLL(None, use_errno=True)
    how = _HOW.pack(flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path)
    if b"\0" in name:
        return None
    found = libc.syscall(_SYS_OPENAT2, directory, ctypes.c_char_p(name), ctypes.c_char_p(how), ctypes.c_size_t(_HOW.size))
    return int(found) if found >= 0 else None


def _readable(found: int) -> int | None:
    """Open for reading what an O_PATH descriptor found, if it is a regular file: opening a device or a FIFO can have effects."""
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return None
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    finally:
        os.close(found)
