"""What happens to processes while they are sampled: mappings, exec, fork and exit, from one plain perf ring a CPU.

The rings carry no samples. They tell what a process maps, with the file's build id: an address has a file also when its process is gone.
Layouts: include/uapi/linux/perf_event.h, `enum perf_event_type` and `struct perf_event_mmap_page`.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self

from unspool.capture.perf_event import EventAttributes, open_event

RING_PAGES = 128
"""Data pages of a CPU's ring: 512 KB, which (with its header page) is also what /proc/sys/kernel/perf_event_mlock_kb grants by default."""

MISC_COMM_EXEC = 1 << 13
MISC_MMAP_BUILD_ID = 1 << 14

_LOST, _COMM, _EXIT, _FORK, _MMAP2 = 2, 3, 4, 7, 10
_HEADER = struct.Struct("<IHH")
_TIME = struct.Struct("<Q")
_COMM_BODY = struct.Struct("<II")
_TASK_BODY = struct.Struct("<IIIIQ")
_LOST_BODY = struct.Struct("<QQ")
_MMAP2_BODY = struct.Struct("<IIQQQ24sII")
_MMAP2_FILE = struct.Struct("<IIQQ")
_DATA_HEAD, _DATA_TAIL = 1024, 1032
_DELETED = b" (deleted)"


class Mapped(NamedTuple):
    """A process mapped executable memory: `[start, start + size)` shows the file from byte `offset` on.

    Either `build_id` (lower-case hexadecimal) or `device` and `inode` name the file: the kernel has room for one of them.
    """

    time_ns: int
    pid: int
    start: int
    size: int
    offset: int
    path: str
    build_id: str
    device: tuple[int, int]
    inode: int
    deleted: bool


class Named(NamedTuple):
    """A thread got a name; `exec` says that its process started a new program, so that all its earlier mappings are gone."""

    time_ns: int
    pid: int
    tid: int
    name: str
    exec: bool


class Forked(NamedTuple):
    """A process (or, with `pid` equal to `parent`, a thread) was made."""

    time_ns: int
    pid: int
    parent: int
    tid: int
    parent_tid: int


class Exited(NamedTuple):
    """A thread ended; it is the process's first thread when `tid` equals `pid`."""

    time_ns: int
    pid: int
    parent: int
    tid: int


Event = Mapped | Named | Forked | Exited


class Batch(NamedTuple):
    """What one drain gave: events in no order between CPUs, and how many the kernel could not write."""

    events: list[Event]
    lost: int


def parse_records(data: bytes) -> Batch:
    """The events of a ring's bytes (whole records, as PERF_SAMPLE_TIME with sample_id_all writes them).

    A record that is too short for its type, or has no size, ends the parse: the kernel writes no such record.
    """
    events: list[Event] = []
    lost = 0
    offset, end = 0, len(data)
    while offset + _HEADER.size <= end:
        kind, misc, size = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size or offset + size > end:
            break
        body = data[offset + _HEADER.size : offset + size]
        offset += size
        try:
            if kind == _MMAP2:
                events.append(_mapped(body, misc))
            elif kind == _COMM:
                events.append(_named(body, misc))
            elif kind == _FORK:
                pid, parent, tid, parent_tid, time_ns = _TASK_BODY.unpack_from(body)
                events.append(Forked(time_ns, pid, parent, tid, parent_tid))
            elif kind == _EXIT:
                pid, parent, tid, _, time_ns = _TASK_BODY.unpack_from(body)
                events.append(Exited(time_ns, pid, parent, tid))
            elif kind == _LOST:
                lost += _LOST_BODY.unpack_from(body)[1]
        except struct.error:
            break
    return Batch(events, lost)


def _mapped(body: bytes, misc: int) -> Mapped:
    pid, _, start, size, offset, file, _, _ = _MMAP2_BODY.unpack_from(body)
    (time_ns,) = _TIME.unpack_from(body, len(body) - _TIME.size)
    name = _text(body[_MMAP2_BODY.size : -_TIME.size])
    deleted = name.endswith(_DELETED)
    path = os.fsdecode(name.removesuffix(_DELETED))
    if misc & MISC_MMAP_BUILD_ID:
        # A length over the 20 bytes of room cannot be; the slice keeps it harmless.
        build_id = file[4 : 4 + min(file[0], 20)].hex()
        return Mapped(time_ns, pid, start, size, offset, path, build_id, (0, 0), 0, deleted)
    major, minor, inode, _ = _MMAP2_FILE.unpack(file)
    return Mapped(time_ns, pid, start, size, offset, path, "", (major, minor), inode, deleted)


def _named(body: bytes, misc: int) -> Named:
    pid, tid = _COMM_BODY.unpack_from(body)
    (time_ns,) = _TIME.unpack_from(body, len(body) - _TIME.size)
    name = _text(body[_COMM_BODY.size : -_TIME.size]).decode("utf-8", "replace")
    return Named(time_ns, pid, tid, name, bool(misc & MISC_COMM_EXEC))


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


class Ring:
    """One CPU's ring; closing it closes the perf event."""

    def __init__(self, cpu: int, *, pages: int = RING_PAGES) -> None:
        """Open and map it; NotPermitted or Unsupported as `open_event` says."""
        attributes = EventAttributes(
            flags=("mmap", "mmap2", "build_id", "comm", "comm_exec", "task", "sample_id_all", "use_clockid", "watermark"),
            # Nobody polls: the reader comes by 20 times a second, and each wake-up would be an interrupt on the CPU that is watched.
            wakeup=pages * mmap.PAGESIZE,
        )
        self._fd = open_event(attributes, cpu=cpu)
        self._size = pages * mmap.PAGESIZE
        self._map = mmap.mmap(self._fd, mmap.PAGESIZE + self._size)
        self._words = memoryview(self._map).cast("Q")
        self._fence = threading.Lock()

    def drain(self) -> bytes:
        """All whole records written since the last call."""
        head = self._words[_DATA_HEAD // 8]
        # The kernel asks for smp_rmb() after reading data_head: taking a lock is the full barrier that Python has.
        with self._fence:
            tail = self._words[_DATA_TAIL // 8]
        data = self._between(tail, head)
        # ... and smp_mb() between reading the data and giving its room back.
        with self._fence:
            self._words[_DATA_TAIL // 8] = head
        return data

    def _between(self, tail: int, head: int) -> bytes:
        first, last = tail % self._size, head % self._size
        base = mmap.PAGESIZE
        if head == tail:
            return b""
        if first < last:
            return self._map[base + first : base + last]
        return self._map[base + first : base + self._size] + self._map[base : base + last]

    def close(self) -> None:
        """Unmap the ring and close its event."""
        self._words.release()
        self._map.close()
        os.close(self._fd)


class Sideband:
    """The rings of all CPUs. `drain` after the samples were drained: then every event older than such a sample is in it."""

    def __init__(self, cpus: Iterable[int] | None = None) -> None:
        """Open one ring a CPU (default: each CPU that is online)."""
        self.lost = 0
        self._rings: list[Ring] = []
        try:
            for cpu in online_cpus() if cpus is None else cpus:
                self._rings.append(Ring(cpu))
        except BaseException:
            self.close()
            raise

    def drain(self) -> list[Event]:
        """All events since the last drain, by time; `lost` grows by what the kernel could not write."""
        events: list[Event] = []
        for ring in self._rings:
            data = ring.drain()
            if data:
                batch = parse_records(data)
                events += batch.events
                self.lost += batch.lost
        events.sort(key=_time)
        return events

    def close(self) -> None:
        """Close every ring."""
        while self._rings:
            self._rings.pop().close()

    def __enter__(self) -> Self:
        """Give the open rings."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close them."""
        self.close()


def _time(event: Event) -> int:
    return event.time_ns


def online_cpus() -> list[int]:
    """The CPUs that are online (/sys/devices/system/cpu/online)."""
    try:
        with open("/sys/devices/system/cpu/online", encoding="ascii") as file:  # noqa: PTH123 (pathlib costs 5 ms of start-up)
            return parse_cpu_list(file.read())
    except OSError:
        return list(range(os.cpu_count() or 1))


def parse_cpu_list(text: str) -> list[int]:
    """The numbers of a kernel CPU list.

    >>> parse_cpu_list("0-2,5")
    [0, 1, 2, 5]
    """
    cpus: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            cpus += range(int(first), int(last or first) + 1)
    return cpus
