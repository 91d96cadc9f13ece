"""Parquet (zstd): one row a sample, for data frames. Every column says in its name what it holds; docs/formats.md lists them.

Lost: addresses, trust, inlining marks. `functions` and `modules` are lists of the same length, innermost call first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.export.options import Options, stack_labels
from unspool.export.pieces import Pieces
from unspool.profile.columns import NONE, Profile, Task
from unspool.profile.filters import MODES
from unspool.profile.paths import paths

if TYPE_CHECKING:
    import duckdb

BLOCK = 1 << 20
STACKS = 20_000
"""How many stacks are text at one time, on their way to DuckDB."""

COLUMNS = {
    "time": "make_timestamp_ns(r.time_ns)::TIMESTAMP_NS",
    "pid": "r.pid",
    "tid": "r.tid",
    "process": "r.process",
    "thread": "r.thread",
    "exe": "nullif(r.exe, '')",
    "cpu": "nullif(r.cpu, -1)::INTEGER",
    "trigger": "r.trigger",
    "detail": "nullif(r.detail, '')",
    "weight": "r.weight",
    "verdict": "r.verdict",
    "ending": "r.ending",
    "stop": "r.stop",
    "stop_module": "nullif(r.stop_module, '')",
    "reason": "nullif(r.reason, '')",
    "functions": "list_select(getvariable('functions'), r.calls)",
    "modules": "list_select(getvariable('modules'), r.calls)",
    "guest": "nullif(r.guest, '')",
    "generation": "nullif(r.generation, 0)::INTEGER",
    "guest_kernel": "nullif(r.kernel, '')",
    "vcpu": "nullif(r.vcpu, -1)::INTEGER",
    "cgroup": "nullif(r.cgroup, '')",
    "mode": "r.mode",
}
"""Each column of the file, and what it is made of."""
ROWS = """
    SELECT s.time_ns, s.cpu, s.vcpu, s.weight, t.* EXCLUDE (task), e.* EXCLUDE (event), k.* EXCLUDE (stack)
    FROM samples s JOIN tasks t USING (task) JOIN events e USING (event) JOIN stacks k USING (stack) ORDER BY s.place
"""


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The file."""
    import duckdb

    del options
    with tempfile.TemporaryDirectory(prefix="unspool-") as directory, duckdb.connect() as connection:
        _register(connection, profile)
        file = Path(directory, "samples.parquet")
        chosen = ", ".join(f'{expression} AS "{name}"' for name, expression in COLUMNS.items())
        # Calls are numbers until a row is written: names in the sort would be the text of every sample.
        connection.execute(f"COPY (SELECT {chosen} FROM ({ROWS}) r) TO '{file}' (FORMAT parquet, COMPRESSION zstd)")  # noqa: S608
        with file.open("rb") as content:
            while block := content.read(BLOCK):
                yield block


def _register(connection: duckdb.DuckDBPyConnection, profile: Profile) -> None:
    import numpy as np

    timed, about = profile.timed, profile.about
    assert timed is not None, "this format needs the time of single samples"
    names = ("cpu", "vcpu", "task", "event", "stack", "weight")
    moments = timed.time_ns - about.monotonic_ns + about.started_ns
    order = np.arange(len(timed), dtype=np.int64)
    connection.register("samples", {"place": order, "time_ns": moments, **{name: getattr(timed, name) for name in names}})
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
    _table(connection, "names", "place BIGINT, function VARCHAR, module VARCHAR", _names(profile))
    for column in ("function", "module"):
        connection.execute(f"SET VARIABLE {column}s = (SELECT coalesce(list({column} ORDER BY place), []) FROM names)")  # noqa: S608
    found = paths(profile)
    modes = [MODES[is_kernel] for is_kernel in profile.stacks.is_kernel.tolist()]
    labels = [(number, *_values(entry), mode) for number, (entry, mode) in enumerate(zip(stack_labels(profile), modes, strict=True))]
    words = "verdict VARCHAR, ending VARCHAR, stop VARCHAR, stop_module VARCHAR, reason VARCHAR, mode VARCHAR"
    _table(connection, "labels", f"stack BIGINT, {words}", labels)
    connection.execute("CREATE TEMP TABLE calls (stack BIGINT, calls INTEGER[])")
    # DuckDB counts from 1.
    texts = Pieces(found.start, profile.entries.function[found.entries], [str(number + 1) for number in range(len(profile.functions))])
    for stacks in np.array_split(np.arange(len(profile.stacks)), len(profile.stacks) // STACKS + 1):
        lists = np.array([",".join(numbers) for numbers in texts.of(stacks)], dtype=object)
        connection.register("incoming", {"stack": stacks, "calls": lists})
        split = "CASE calls WHEN '' THEN [] ELSE string_split(calls, ',')::INTEGER[] END"
        connection.execute(f"INSERT INTO calls SELECT stack, {split} FROM incoming")  # noqa: S608 - our own words
        connection.unregister("incoming")
    connection.execute("CREATE TEMP VIEW stacks AS SELECT labels.*, calls.calls FROM labels JOIN calls USING (stack)")


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
