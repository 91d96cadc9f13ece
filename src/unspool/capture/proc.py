"""What /proc says of a process that runs now: its start, names and executable mappings. Everything may vanish while it is read."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

from unspool.errors import BadInput
from unspool.formats.proc_maps import parse_maps
from unspool.model.module import Mapping

NS = 10**9
# Only these lines are of interest, and a program may have 60,000 others.
_EXECUTABLE_LINE = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ [r-][w-]x.*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Found:
    """A process as /proc showed it: `time_ns` is taken before the first read, all times are CLOCK_MONOTONIC nanoseconds."""

    pid: int
    time_ns: int
    start_ns: int
    parent: int
    comm: str
    exe: str
    mappings: tuple[Mapping, ...]


def read_process(pid: int) -> Found | None:
    """The process with its executable mappings, None when it is gone; without mappings when they may not be read or there are none."""
    now = time.monotonic_ns()
    stat = read_stat(pid)
    if stat is None:
        return None
    return Found(pid, now, stat.start_ns, stat.parent, stat.comm, _exe(pid), _mappings(pid))


@dataclass(frozen=True, slots=True)
class Stat:
    """Some fields of /proc/PID/stat; `start_ns` is rounded down to a clock tick (10 ms)."""

    comm: str
    state: str
    parent: int
    start_ns: int


def read_stat(pid: int) -> Stat | None:
    """The fields, None when the process is gone."""
    data = read_file(f"/proc/{pid}/stat")
    if not data:
        return None
    # The name stands in parentheses and may hold some itself: the last one closes it (proc_pid_stat(5)).
    name, _, rest = data.rpartition(b")")
    fields = rest.split()
    try:
        ticks, parent, state = int(fields[19]), int(fields[1]), fields[0].decode("ascii")
    except (IndexError, ValueError):
        return None
    start = ticks * NS // os.sysconf("SC_CLK_TCK") - suspended_ns()
    return Stat(name.partition(b"(")[2].decode("utf-8", "replace"), state, parent, start)


def suspended_ns() -> int:
    """How much of the time since boot CLOCK_MONOTONIC does not count; the start time in /proc/PID/stat does."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def _exe(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115 (called for every process)
    except OSError:
        return ""


def _mappings(pid: int) -> tuple[Mapping, ...]:
    text = read_file(f"/proc/{pid}/maps")
    if not text:
        return ()
    try:
        return parse_maps(b"".join(_EXECUTABLE_LINE.findall(text)), file=f"/proc/{pid}/maps").mappings
    except BadInput:
        return ()


def read_file(path: str) -> bytes | None:
    """A file of /proc, None when it (or its process) is gone or may not be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (called for every process of the machine)
            return file.read()
    except OSError:
        return None


def running() -> list[int]:
    """The ids of all processes that run now."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 (names, not paths)
    except OSError:
        return []


def control_group(pid: int) -> str | None:
    """The process's control group, None when the process is gone.

    Where both versions of control groups are mounted the more specific path is the answer (cgroups(7)).
    """
    data = read_file(f"/proc/{pid}/cgroup")
    if data is None:
        return None
    lines = [line.split(":", 2) for line in data.decode("utf-8", "backslashreplace").splitlines()]
    paths = {number: path.removesuffix(" (deleted)") for number, _, path in (line for line in lines if len(line) == 3)}
    unified = paths.get("0", "/")
    return unified if unified != "/" else max(paths.values(), key=len, default="/")


def thread_name(pid: int, tid: int) -> str | None:
    """The thread's name, None when it is gone."""
    data = read_file(f"/proc/{pid}/task/{tid}/comm")
    return None if data is None else data.rstrip(b"\n").decode("utf-8", "replace")
