"""A live recording for tests, and what can be asked of its processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from web.serving import PATIENCE, Server, running

BUSY = "import sys\ndef spin_here():\n    return sum(range(2000))\nwhile True: spin_here()"


@contextlib.contextmanager
def busy() -> Iterator[int]:
    """A program that keeps a CPU busy."""
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def recording(output: Path, *options: str) -> Iterator[Server]:
    """A live recording of such a program."""
    with busy() as pid, running("record", "--live", "--no-open", "-o", str(output), *options, "-p", str(pid)) as (server, _):
        yield server


def descriptors(pid: int, kind: str) -> int:
    """How many open files of that kind a process has."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += kind in str(entry.readlink())
    return found


def page_of(server: Server) -> int:
    """The page's process: the recorder's child that listens."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    (found,) = [
        int(pid) for pid in children if "Uid:\t65534" in Path(f"/proc/{pid}/status").read_text() and descriptors(int(pid), "socket:") >= 2
    ]
    return found


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it holds."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return found


def names(server: Server) -> set[str]:
    """The functions that have names by now."""
    found = server.view("functions")
    pairs = zip(found["name"], found["module"], strict=True)
    return {name for name, module in pairs if module and "+0x" not in name and name != "[unknown]"}


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
