"""Opening files whose paths somebody hostile may have chosen: below a given root, regular, never blocking, never driving a device."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from dataclasses import dataclass, field

MAX_SIZE = 4 << 30
"""Bytes of a file that is still parsed."""

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10


class NotRegular(OSError):
    """The path leads to a folder, device, FIFO or socket, or to a file that is too large."""


class _OpenHow(ctypes.Structure):
    """struct open_how (include/uapi/linux/openat2.h)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@dataclass(slots=True)
class OpenFile:
    """An open file to take names from; who holds it closes it.

    `path` is as the program saw it, `build_id` what the file must have ("" for any), `root` a descriptor of the program's root folder,
    None for our own.
    """

    descriptor: int
    path: str = ""
    build_id: str = ""
    root: int | None = field(default=None)

    @classmethod
    def of_bytes(cls, data: bytes, name: str) -> OpenFile:
        """A file in memory only, as for the vDSO."""
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        with os.fdopen(os.dup(descriptor), "wb") as writer:
            writer.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return cls(descriptor, name)

    def close(self) -> None:
        """Close its descriptors; again is harmless."""
        for descriptor in (self.descriptor, self.root):
            if descriptor is not None and descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self.descriptor, self.root = -1, None


def open_in_root(root: int | None, path: str, *, follow: bool = True, max_size: int = MAX_SIZE) -> int:
    """A descriptor of the regular file at `path`, where "/" and ".." stay below the folder `root` (None: our own root).

    OSError when there is none; NotRegular when it is anything else than a regular file of at most `max_size` bytes.
    """
    flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    if root is not None:
        return reopened(_openat2(root, path, flags), max_size=max_size)
    own = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return reopened(_openat2(own, path, flags), max_size=max_size)
    finally:
        os.close(own)


def reopened(handle: int, *, max_size: int = MAX_SIZE) -> int:
    """A readable descriptor for an O_PATH one, which is closed. It asks what the file is before it opens it: opening a device drives it."""
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegular("not a regular file")
        if status.st_size > max_size:
            raise NotRegular(f"{status.st_size} bytes")
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(handle)


def _openat2(folder: int, path: str, flags: int) -> int:
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise NotRegular("a path with a zero byte")
    how = _OpenHow(flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    descriptor = libc.syscall(
        ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(folder), ctypes.c_char_p(raw), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(descriptor)
