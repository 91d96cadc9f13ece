"""Parquet (zstd): one row a sample, for data frames. Every column says in its name what it holds; docs/formats.md lists them.

Lost: addresses, trust, inlining marks. `functions` and `modules` are lists of the same length, innermost call first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.export.options import Options, stack_labels
from unspool.profile.columns import NONE, Profile, Task
from unspool.profile.filters import MODES
from unspool.profile.paths import paths

if TYPE_CHECKING:
    import duckdb

BLOCK = 1 << 20

COLUMNS = {
    "time": "make_timestamp_ns(s.time_ns)::TIMESTAMP_NS",
    "pid": "t.pid",
    "tid": "t.tid",
    "process": "t.process",
    "thread": "t.thread",
    "exe": "nullif(t.exe, '')",
    "cpu": "nullif(s.cpu, -1)::INTEGER",
    "trigger": "e.trigger",
    "detail": "nullif(e.detail, '')",
    "weight": "s.weight",
    "verdict": "k.verdict",
    "ending": "k.ending",
    "stop": "k.stop",
    "stop_module": "nullif(k.stop_module, '')",
    "reason": "nullif(k.reason, '')",
    "functions": "k.functions",
    "modules": "k.modules",
    "guest": "nullif(t.guest, '')",
    "generation": "nullif(t.generation, 0)::INTEGER",
    "guest_kernel": "nullif(t.kernel, '')",
    "vcpu": "nullif(s.vcpu, -1)::INTEGER",
    "cgroup": "nullif(t.cgroup, '')",
    "mode": "k.mode",
}
"""Each column of the file, and what it is made of."""


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The file."""
    import duckdb

    del options
    with tempfile.TemporaryDirectory(prefix="unspool-") as directory, duckdb.connect() as connection:
        _register(connection, profile)
        file = Path(directory, "samples.parquet")
        chosen = ", ".join(f'{expression} AS "{name}"' for name, expression in COLUMNS.items())
        joined = "FROM samples s JOIN tasks t USING (task) JOIN events e USING (event) JOIN stacks k USING (stack) ORDER BY s.time_ns"
        connection.execute(f"COPY (SELECT {chosen} {joined}) TO '{file}' (FORMAT parquet, COMPRESSION zstd)")
        with file.open("rb") as content:
            while block := content.read(BLOCK):
                yield block


def _register(connection: duckdb.DuckDBPyConnection, profile: Profile) -> None:
    import numpy as np

    timed, about = profile.timed, profile.about
    assert timed is not None, "this format needs the time of single samples"
    names = ("cpu", "vcpu", "task", "event", "stack", "weight")
    moments = timed.time_ns - about.monotonic_ns + about.started_ns
    connection.register("samples", {"time_ns": moments, **{name: getattr(timed, name) for name in names}})
    _table(
        connection,
        "tasks",
        "task BIGINT, pid INTEGER, tid INTEGER, process VARCHAR, thread VARCHAR, exe VARCHAR, cgroup VARCHAR,"
        " guest VARCHAR, generation BIGINT, kernel VARCHAR",
        [(number, *_task(profile, task)) for number, task in enumerate(profile.tasks)],
    )
    _table(
        connection,
        "events",
        "event BIGINT, trigger VARCHAR, detail VARCHAR",
        [(number, event.trigger, event.detail) for number, event in enumerate(profile.events)],
    )
    _table(connection, "names", "entry BIGINT, function VARCHAR, module VARCHAR", _names(profile))
    found = paths(profile)
    stack_of = np.repeat(np.arange(len(profile.stacks), dtype=np.int64), found.lengths)
    place = np.arange(len(found.entries), dtype=np.int64)
    connection.register("calls", {"stack": stack_of, "place": place, "entry": profile.entries.function[found.entries]})
    modes = [MODES[is_kernel] for is_kernel in profile.stacks.is_kernel.tolist()]
    labels = [(number, *_values(entry), mode) for number, (entry, mode) in enumerate(zip(stack_labels(profile), modes, strict=True))]
    words = "verdict VARCHAR, ending VARCHAR, stop VARCHAR, stop_module VARCHAR, reason VARCHAR, mode VARCHAR"
    _table(connection, "labels", f"stack BIGINT, {words}", labels)
    connection.execute("""
        CREATE TEMP TABLE stacks AS
        SELECT labels.*, coalesce(c.functions, []::VARCHAR[]) AS functions, coalesce(c.modules, []::VARCHAR[]) AS modules
        FROM labels LEFT JOIN (
            SELECT stack, list(function ORDER BY place) AS functions, list(module ORDER BY place) AS modules
            FROM calls JOIN names USING (entry) GROUP BY stack
        ) c USING (stack)
    """)


def _task(profile: Profile, task: Task) -> tuple[int | str, ...]:
    guest = profile.guest_of(task)
    machine = (guest.title, guest.generation, guest.kernel_release) if guest else ("", 0, "")
    return (task.pid, task.tid, task.process, task.thread, task.exe, task.cgroup, *machine)


def _values(entry: Any) -> tuple[str, str, str, str, str]:  # noqa: ANN401
    return (entry.verdict, entry.ending, entry.stop, entry.stop_module, entry.reason)


def _names(profile: Profile) -> list[tuple[int, str, str]]:
    paths_of = [module.path for module in profile.modules]
    return [
        (number, function.name, "" if function.module == NONE else paths_of[function.module])
        for number, function in enumerate(profile.functions)
    ]


def _table(connection: duckdb.DuckDBPyConnection, name: str, columns: str, rows: list[tuple[Any, ...]]) -> None:
    """A table of those rows: an insert of NumPy columns, because row by row takes milliseconds each."""
    import numpy as np

    connection.execute(f"CREATE TEMP TABLE {name} ({columns})")
    if not rows:
        return
    kinds = ["int64" if isinstance(value, int) else "object" for value in rows[0]]
    numbered = enumerate(zip(zip(*rows, strict=True), kinds, strict=True))
    values = {f"c{place}": np.array(column, dtype=kind) for place, (column, kind) in numbered}
    connection.register("incoming", values)
    chosen = ", ".join(f"c{place}::VARCHAR" if kind == "object" else f"c{place}" for place, kind in enumerate(kinds))
    connection.execute(f"INSERT INTO {name} SELECT {chosen} FROM incoming")  # noqa: S608 - our own words
    connection.unregister("incoming")
