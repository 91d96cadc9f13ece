"""The files /tmp/perf-PID.map, in which a program describes the code that it makes at run time."""

from __future__ import annotations

import os
import time

from unspool.capture.beneath import open_in_root
from unspool.capture.proc import read_file
from unspool.capture.processes import Process
from unspool.formats.perf_map import MAX_SIZE

AGAIN_NS = 10**9
"""How long the answer "no" is believed: a runtime may start its map late."""


def inner_pid(pid: int) -> int:
    """The process's id in its own PID namespace, which is the one in its file's name; `pid` itself when it is gone."""
    for line in (read_file(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"NSpid:"):
            return int(line.split()[-1])
    return pid


def open_perf_map(pid: int) -> int | None:
    """A descriptor of the process's perf map, None when it has none, or one that a stranger may have written.

    The file must belong to the process's user or to root, and have no second name: /tmp is everybody's.
    """
    path = f"/tmp/perf-{inner_pid(pid)}.map"  # noqa: S108 (the name is perf's)
    descriptor = open_in_root(f"/proc/{pid}/root", path, follow=False)
    if descriptor is None:
        return None
    try:
        status, owner = os.fstat(descriptor), os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 (one call)
    except OSError:
        os.close(descriptor)
        return None
    if status.st_uid not in {0, owner} or status.st_nlink != 1:
        os.close(descriptor)
        return None
    return descriptor


class PerfMaps:
    """The maps of processes, kept open from the first look on, so that they can be read when their processes are gone."""

    def __init__(self) -> None:
        """No map yet."""
        self._descriptors: dict[int, int] = {}
        self._looked: dict[int, int] = {}

    def has(self, process: Process) -> bool:
        """Whether the process has one, asked at most once a second."""
        if process.pid in self._descriptors:
            return True
        now = time.monotonic_ns()
        if now - self._looked.get(process.pid, -AGAIN_NS) < AGAIN_NS:
            return False
        self._looked[process.pid] = now
        descriptor = open_perf_map(process.pid)
        if descriptor is None:
            return False
        self._descriptors[process.pid] = descriptor
        # What was looked up so far was taken for memory that nobody describes.
        process.program.forget()
        return True

    def read(self, pid: int) -> bytes | None:
        """The text of that process's map, None when there is none."""
        descriptor = self._descriptors.get(pid)
        if descriptor is None:
            return None
        try:
            return os.pread(descriptor, MAX_SIZE, 0)
        except OSError:
            return None

    def close(self) -> None:
        """Close all maps."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
