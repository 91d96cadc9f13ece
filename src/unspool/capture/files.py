"""Executable files that were seen: opened at first sight and kept open, to be read when they and their processes are gone."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass

from unspool.capture.beneath import open_in_root, open_regular
from unspool.capture.regions import FileIdentity, Region
from unspool.errors import BadInput
from unspool.formats.elf.file import Elf

MAX_OPEN = 8192
_SPARE_DESCRIPTORS = 256


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file that was mapped: `fd` is open for reading, or None and `reason` says why; `build_id` is "" when none is known."""

    path: str
    build_id: str
    fd: int | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A file's bytes by offset, as `model.memory.Memory`."""

    fd: int

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes from `address` on, None when they do not all exist."""
        if address < 0 or size < 0:
            return None
        try:
            data = os.pread(self.fd, size, address)
        except (OSError, OverflowError):
            return None
        return data if len(data) == size else None


class Files:
    """Kept files by identity, and the descriptors they hold."""

    def __init__(self, *, limit: int = MAX_OPEN) -> None:
        """Keep at most `limit` files open, and fewer when the process may not have that many descriptors."""
        self._limit = min(limit, _raise_descriptor_limit() - _SPARE_DESCRIPTORS)
        self._open = 0
        self._by_identity: dict[FileIdentity, KeptFile] = {}
        self._by_build_id: dict[tuple[str, str], KeptFile] = {}

    def keep(self, identity: FileIdentity, region: Region, *, pid: int, parent: int = 0) -> KeptFile:
        """The file behind a region of that process, opened when it is new.

        A file that could not be opened is tried again with the next process that maps it: the first may have been gone.
        """
        known = self._by_identity.get(identity)
        if known is not None and (known.fd is not None or self._open >= self._limit):
            return known
        if identity.build_id:
            same = self._by_build_id.get((identity.path, identity.build_id))
            if same is not None:
                self._by_identity[identity] = same
                return same
        kept = self._opened(identity, region, pid, parent)
        self._by_identity[identity] = kept
        if kept.build_id and kept.fd is not None:
            twin = self._by_build_id.setdefault((kept.path, kept.build_id), kept)
            if twin is not kept:
                os.close(kept.fd)
                self._by_identity[identity] = twin
                return twin
        self._open += kept.fd is not None
        return kept

    def known(self, identity: FileIdentity) -> KeptFile | None:
        """The file as it was kept, None when it was not seen."""
        return self._by_identity.get(identity)

    def close(self) -> None:
        """Close every file."""
        for kept in set(self._by_identity.values()) | set(self._by_build_id.values()):
            if kept.fd is not None:
                os.close(kept.fd)
        self._by_identity.clear()
        self._by_build_id.clear()
        self._open = 0

    def _opened(self, identity: FileIdentity, region: Region, pid: int, parent: int) -> KeptFile:
        if self._open >= self._limit:
            return KeptFile(identity.path, identity.build_id, None, "too many open files")
        reason = "the file could not be reached: its process was gone, and no file of that path has its build id"
        for descriptor, by_kernel in _candidates(identity, region, pid, parent):
            build_id = build_id_of(descriptor)
            if _is_same(identity, descriptor, build_id, by_kernel=by_kernel):
                return KeptFile(identity.path, build_id or identity.build_id, descriptor)
            reason = "the file was replaced since it was mapped"
            os.close(descriptor)
        return KeptFile(identity.path, identity.build_id, None, reason)


def _candidates(identity: FileIdentity, region: Region, pid: int, parent: int) -> Iterator[tuple[int, bool]]:
    """Open descriptors of what may be the file, best first, and whether it was the kernel that led there, not a path.

    The caller tells whether it is the one, and closes the others.
    """
    path = identity.path
    by_path = path.startswith("/") and not identity.deleted
    places = [
        (f"/proc/{pid}/root", by_path),
        (f"/proc/{pid}/map_files/{region.start:x}-{region.end:x}", False),
        (f"/proc/{pid}/exe", False),
        # The process is gone: its parent most likely has the same root directory. Our own comes last, and the build id decides.
        (f"/proc/{parent}/root", by_path and parent > 0),
        ("/", by_path),
    ]
    for place, in_root in places:
        descriptor = None
        if in_root:
            descriptor = open_in_root(place, path)
        elif not place.endswith(("/root", "/")):
            descriptor = open_regular(place)
        if descriptor is not None:
            yield descriptor, not in_root


def build_id_of(descriptor: int) -> str:
    """The GNU build id of an open file, "" when it has none or is no ELF file."""
    try:
        return Elf(Descriptor(descriptor)).build_id
    except BadInput:
        return ""


def _is_same(identity: FileIdentity, descriptor: int, build_id: str, *, by_kernel: bool) -> bool:
    if identity.build_id:
        return build_id == identity.build_id
    status = os.fstat(descriptor)
    # Of a file on btrfs or an overlay /proc/PID/maps and stat() name different devices; the kernel's own link needs no such proof.
    same_device = by_kernel or (os.major(status.st_dev), os.minor(status.st_dev)) == identity.device
    return status.st_ino == identity.inode and same_device


def _raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; the limit that holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft
    return hard
