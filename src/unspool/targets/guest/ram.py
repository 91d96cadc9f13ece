"""A machine's memory by guest-physical address: from the file or memfd that holds it, or out of the VMM's address space.

What the guest never touched is no memory to us: it is found with SEEK_DATA (files) or /proc/PID/pagemap (processes) and never read, because
reading it through a mapping would make the host allocate it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Protocol, Self

from unspool.errors import BadInput, NoSuchTarget, NotPermitted, Unsupported
from unspool.formats.proc_maps import parse_maps
from unspool.model.module import Mapping
from unspool.targets import procfs
from unspool.targets.guest.layout import Extent, joined
from unspool.targets.guest.sockets import descriptors

LONGEST_READ = 64 << 20
"""No table of a kernel is longer; a length that hostile bytes made up must not allocate memory."""
_PAGE = 4096
_PAGEMAP_CHUNK = 1 << 17
_THERE = 3 << 62  # Documentation/admin-guide/mm/pagemap.rst: bit 63 present, bit 62 swapped


class Source(Protocol):
    """Where the bytes come from, by position."""

    def read(self, position: int, size: int) -> bytes | None:
        """The bytes, None when any of them was never touched or cannot be read."""

    def touched(self, position: int, size: int) -> Iterator[tuple[int, int]]:
        """The ranges (position, size) in it that hold data, in order."""

    def close(self) -> None:
        """Let go of the descriptors."""


class Ram:
    """A `Memory` of guest-physical addresses; `kind` is "memfd", "file" or "process".

    `fd` is the file that holds all of the memory, or None: with it and `extents()` another process can make the same (`of_file`).
    """

    def __init__(self, kind: str, source: Source, extents: Sequence[Extent], fd: int | None = None) -> None:
        """`open_ram` finds the parts."""
        self.kind = kind
        self.fd = fd
        self._source = source
        self._extents = joined(extents)
        self._starts = [extent.start for extent in self._extents]

    @classmethod
    def of_file(cls, fd: int, extents: Sequence[Extent], kind: str = "file") -> Self:
        """The memory in an open file, which is closed with it; positions are offsets."""
        return cls(kind, _File(fd), extents, fd)

    @classmethod
    def of_process(cls, pid: int, extents: Sequence[Extent]) -> Self:
        """The memory in a process; positions are its addresses. NotPermitted, NoSuchTarget."""
        return cls("process", _Process(pid), extents)

    @property
    def size(self) -> int:
        """The bytes of memory that the machine has."""
        return sum(extent.size for extent in self._extents)

    def extents(self) -> tuple[Extent, ...]:
        """What memory there is, by address."""
        return self._extents

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes at a guest-physical address, None when any of them is no memory or was never touched."""
        if not 0 <= size <= LONGEST_READ:
            return None
        parts: list[bytes] = []
        while True:
            index = bisect_right(self._starts, address) - 1
            extent = self._extents[index] if index >= 0 else None
            inside = -1 if extent is None else address - extent.start
            if extent is None or inside >= extent.size:
                return b"" if size == 0 and not parts else None
            length = min(size, extent.size - inside)
            data = self._source.read(extent.position + inside, length)
            if data is None or (length == size and not parts):
                return data
            parts.append(data)
            address, size = address + length, size - length
            if not size:
                return b"".join(parts)

    def touched(self, start: int = 0, end: int = 1 << 52) -> Iterator[tuple[int, int]]:
        """The ranges (guest-physical start, size) that hold data: the only ones a search should read."""
        for extent in self._extents:
            first, last = max(start, extent.start), min(end, extent.end)
            if first < last:
                shift = extent.start - extent.position
                for position, size in self._source.touched(first - shift, last - first):
                    yield position + shift, size

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        self._source.close()
        self.fd = None


class _File:
    """A memfd, a file of hugetlbfs, or any file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, position: int, size: int) -> bytes | None:
        try:
            if 0 < size <= _PAGE - position % _PAGE:
                # A page that shows anything was touched; SEEK_HOLE may look at every page behind it. pread allocates nothing.
                data = os.pread(self._fd, size, position)
                # (Compared, which ends at the first byte that is not 0: this is done for every page of a guest that is held.)
                if len(data) == size and data != bytes(size):
                    return data
            if not size or self._after(position, os.SEEK_DATA) != position or self._after(position, os.SEEK_HOLE) < position + size:
                return None if size else b""
            data = os.pread(self._fd, size, position)
        except OSError:
            return None
        return data if len(data) == size else None

    def touched(self, position: int, size: int) -> Iterator[tuple[int, int]]:
        end = position + size
        with contextlib.suppress(OSError):
            while position < end:
                start = self._after(position, os.SEEK_DATA)
                stop = min(self._after(start, os.SEEK_HOLE), end)
                if start >= stop:
                    return
                yield start, stop - start
                position = stop

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _after(self, position: int, whence: int) -> int:
        try:
            return os.lseek(self._fd, position, whence)
        except OSError as error:
            if error.errno == errno.EINVAL:
                # A file system without holes.
                return position if whence == os.SEEK_DATA else os.fstat(self._fd).st_size
            raise


class _Process:
    """A VMM's own memory. Both files stay bound to that very address space, so that a process that gets the same number is never read."""

    def __init__(self, pid: int) -> None:
        self._files: list[int] = []
        try:
            self._files += [os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("mem", "pagemap")]
        except PermissionError:
            raise NotPermitted(f"the memory of process {pid} is not ours to read", hint="Run as root, or grant CAP_SYS_PTRACE.") from None
        except OSError:
            raise NoSuchTarget(f"there is no process {pid}") from None

    def read(self, position: int, size: int) -> bytes | None:
        if not size:
            return b""
        first, last = position // _PAGE, (position + size - 1) // _PAGE
        try:
            entries = os.pread(self._files[1], 8 * (last - first + 1), 8 * first)
            if len(entries) != 8 * (last - first + 1) or not all(entry & _THERE for (entry,) in struct.iter_unpack("=Q", entries)):
                return None
            data = os.pread(self._files[0], size, position)
        except (OSError, OverflowError, IndexError):
            return None
        return data if len(data) == size else None

    def touched(self, position: int, size: int) -> Iterator[tuple[int, int]]:
        page, end = position // _PAGE, -(-(position + size) // _PAGE)
        start: int | None = None
        while page < end:
            try:
                entries = os.pread(self._files[1], min(_PAGEMAP_CHUNK, 8 * (end - page)), 8 * page)
            except (OSError, OverflowError, IndexError):
                break
            if not entries:
                break
            for (entry,) in struct.iter_unpack("=Q", entries[: len(entries) // 8 * 8]):
                if entry & _THERE and start is None:
                    start = page
                elif not entry & _THERE and start is not None:
                    yield _clipped(start, page, position, size)
                    start = None
                page += 1
        if start is not None:
            yield _clipped(start, page, position, size)

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())


def _clipped(start: int, stop: int, position: int, size: int) -> tuple[int, int]:
    first, last = max(start * _PAGE, position), min(stop * _PAGE, position + size)
    return first, last - first


def mappings_of(pid: int) -> Sequence[Mapping]:
    """The process's mappings; NotPermitted or NoSuchTarget."""
    try:
        return parse_maps(procfs.read_file(f"/proc/{pid}/maps")).mappings
    except PermissionError:
        raise NotPermitted(f"the mappings of process {pid} are not ours to see", hint="Run as root, or grant CAP_SYS_PTRACE.") from None
    except (OSError, BadInput):
        raise NoSuchTarget(f"process {pid} is gone") from None


def open_at(pid: int, extents: Sequence[Extent]) -> Ram:
    """The memory at those addresses of the VMM: read from its file when one shared file holds all of it, else from the process."""
    parts = _in_mappings(mappings_of(pid), joined(extents))
    kind = _kind(parts)
    fd = _descriptor_of(pid, parts[0][1]) if kind != "process" else None
    if fd is None:
        return Ram.of_process(pid, extents)
    return Ram.of_file(fd, [Extent(one.start, one.size, one.position - at.start + at.offset) for one, at in parts], kind)


def kind_at(mappings: Sequence[Mapping], extents: Sequence[Extent]) -> str:
    """How memory at those addresses of a process with those mappings is read: "memfd", "file" or "process"; Unsupported."""
    return _kind(_in_mappings(mappings, joined(extents)))


def _kind(parts: Sequence[tuple[Extent, Mapping]]) -> str:
    files = {(mapping.device, mapping.inode) if mapping.shared and mapping.inode else None for _, mapping in parts}
    if len(files) != 1 or None in files:
        return "process"
    return "memfd" if parts[0][1].path.startswith("/memfd:") else "file"


def _in_mappings(mappings: Sequence[Mapping], extents: Sequence[Extent]) -> list[tuple[Extent, Mapping]]:
    """Each extent, cut at the mappings' borders, with its mapping; Unsupported when a part of it is not mapped."""
    starts = [mapping.start for mapping in mappings]
    parts = []
    for extent in extents:
        position, end = extent.position, extent.position + extent.size
        while position < end:
            index = bisect_right(starts, position) - 1
            mapping = mappings[index] if index >= 0 else None
            if mapping is None or position >= mapping.end or not mapping.readable:
                raise Unsupported(f"the machine's memory is not at {position:#x} of its process", hint="Check the layout that was given.")
            stop = min(end, mapping.end)
            parts.append((Extent(extent.start + position - extent.position, stop - position, position), mapping))
            position = stop
    return parts


def _descriptor_of(pid: int, mapping: Mapping) -> int | None:
    """The mapped file, opened for reading through the descriptor that the process holds; None when it holds none."""
    for number, link in descriptors(pid):
        if link.removesuffix(" (deleted)") != mapping.path:
            continue
        with contextlib.suppress(OSError):
            path = f"/proc/{pid}/fd/{number}"
            # Opened first and compared then: what the descriptor leads to may change. A device or a FIFO is not opened.
            if stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 of the file, not of the link
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                found = os.fstat(fd)
                if (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino) == (*mapping.device, mapping.inode):
                    return fd
                os.close(fd)
    return None
