"""Recordings made by tests: the command line as a user calls it, and SQL on what it wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from target_programs import wait_until

from unspool.store.place import wal_of

PROGRAM = [sys.executable, "-c", "import sys; from unspool.cli.main import main; sys.exit(main())"]
PATIENCE = 180


def record(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """A recording from start to end; what it printed and its exit status."""
    command = [*PROGRAM, "record", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE, **options)


def started(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A recording that goes on."""
    return subprocess.Popen([*PROGRAM, "record", *map(str, arguments)], stderr=subprocess.PIPE, text=True, **options)


def committed(path: Path) -> None:
    """Wait until the recording at that path has put samples on disk: its log has grown since it was made."""
    log = wal_of(path)
    wait_until(lambda: log.exists() and log.stat().st_size > 0, "the recording's log", PATIENCE)
    made = log.stat().st_size
    wait_until(lambda: log.stat().st_size > made, "the first commit", PATIENCE)


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """The answer of a recording to SQL."""
    import duckdb

    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def stacks(path: Path, comm: str) -> list[tuple[str, list[str]]]:
    """For each sample of the programs with that name how its stack ends, and its user functions, innermost first; by time."""
    found: list[tuple[str, list[str]]] = []
    names = dict(rows(path, "SELECT frame, arg_max(function, depth) FROM symbols GROUP BY frame"))
    sql = f"""
        SELECT k.stop, k.frames[k.kernel_frames + 1:] FROM samples s JOIN processes p USING (process) JOIN stacks k USING (stack)
        WHERE p.comm = '{comm[:15]}' ORDER BY s.time_ns
    """
    for stop, frames in rows(path, sql):
        found.append((stop, [names.get(frame, "?") for frame in frames]))
    return found


def counters(path: Path) -> dict[str, int]:
    """The recording's counters."""
    return dict(rows(path, "SELECT name, value FROM counters"))
