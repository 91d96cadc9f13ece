"""Recordings opened for reading: finished ones, those of a killed recorder, and a consistent copy of one that is being written."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from unspool.errors import RecordingError
from unspool.store.interrupts import interrupts
from unspool.store.place import MAGIC, MAGIC_OFFSET, check_name, is_busy, wal_of
from unspool.store.schema import SCHEMA, TABLES, tables_of, view_statements

if TYPE_CHECKING:
    import duckdb

# A recording may come from somebody else: SQL on it must not reach other files, nor load extensions.
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "lock_configuration": "true",
}
COPY_ATTEMPTS = 20
LOST = "lost"
_NO_ACCESS = {
    FileNotFoundError: "`unspool record -o FILE` makes a recording.",
    PermissionError: "A recording is for its owner alone; its owner, or root, can read it.",
}
DAMAGED = "The recording is damaged. Was it copied whole?"
"""The hint where a part of the file cannot be read."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The row of table `recording`, with the duration known also while it is unfinished (seconds)."""

    schema: int
    unspool_version: str
    started_ns: int
    monotonic_ns: int
    duration_s: float
    hostname: str
    kernel: str
    arch: str
    cpus: int
    frequency: float
    trigger: str
    command: str
    finished: bool


class Recording:
    """An open recording. `connection` is DuckDB's, read-only and without access to other files; close it with `with`."""

    def __init__(
        self, path: Path, connection: duckdb.DuckDBPyConnection, directory: tempfile.TemporaryDirectory[str] | None = None
    ) -> None:
        """Take an open database; `directory` holds the copy that is read, if one was made."""
        self.path = path
        self.connection = connection
        self._directory = directory

    @property
    def is_copy(self) -> bool:
        """Whether this is a copy of a recording that is still being written."""
        return self._directory is not None

    def overview(self) -> Overview:
        """When, where and how it was made."""
        names = ", ".join(f'"{column.name}"' for column in TABLES["recording"])
        row = self.rows(f"SELECT {names} FROM recording")[0]  # noqa: S608 - names of the schema
        values = dict(zip((column.name for column in TABLES["recording"]), row, strict=True))
        duration = values.pop("duration_ns")
        if duration is None:
            duration = self.rows("SELECT coalesce(max(time_ns), 0) FROM samples")[0][0] - values["monotonic_ns"]
        return Overview(duration_s=max(duration, 0) / 1e9, **values)

    def machine(self) -> dict[str, str]:
        """Properties of the machine."""
        return dict(self.rows("SELECT key, value FROM machine ORDER BY key"))

    def counters(self) -> dict[str, int]:
        """What was counted, by name."""
        return dict(self.rows("SELECT name, value FROM counters ORDER BY name"))

    def lost(self) -> int:
        """How many samples could not be kept."""
        return sum(value for name, value in self.counters().items() if name == LOST or name.startswith(LOST + "-"))

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query that this program wrote; RecordingError when the file is damaged where it looks."""
        import duckdb

        try:
            with interrupts():
                return self.connection.execute(sql, list(parameters)).fetchall()
        except duckdb.Error as error:
            if not is_damage(error):
                raise
            raise RecordingError(f"{self.path} cannot be read: {str(error).splitlines()[0]}", hint=DAMAGED) from error

    def close(self) -> None:
        """Let go of the file; remove the copy if there is one."""
        self.connection.close()
        if self._directory is not None:
            self._directory.cleanup()

    def __enter__(self) -> Self:
        """The recording itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()


def open_recording(path: str | Path) -> Recording:
    """Open a recording to read; RecordingError when it is none, is newer than this program, or cannot be read."""
    path = Path(path)
    check_file(path)
    recording = _open_or_copy(path)
    try:
        _check_schema(recording)
    except BaseException:
        recording.close()
        raise
    return recording


def check_file(path: Path) -> None:
    """RecordingError unless the file can be read and begins as a recording does; nothing else of it is looked at."""
    check_name(path)
    try:
        with path.open("rb") as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            head = file.read(MAGIC_OFFSET + len(MAGIC)) if is_file else b""
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}", hint=_NO_ACCESS.get(type(error))) from None
    if head[MAGIC_OFFSET:] != MAGIC:
        raise RecordingError(f"{path} is not a recording", hint="`unspool import` reads other programs' profiles.")


def _open_or_copy(path: Path) -> Recording:
    import duckdb

    try:
        return Recording(path, duckdb.connect(str(path), read_only=True, config=CONFIG))
    except duckdb.Error as error:
        if not is_busy(error):
            raise _unreadable(path, error) from error
    directory = tempfile.TemporaryDirectory(prefix="unspool-")
    try:
        copy = copy_of(path, Path(directory.name))
        return Recording(path, duckdb.connect(str(copy), read_only=True, config=CONFIG), directory)
    except duckdb.Error as error:
        directory.cleanup()
        raise _unreadable(path, error) from error
    except BaseException:
        directory.cleanup()
        raise


def is_damage(error: Exception) -> bool:
    """Whether DuckDB found the file unreadable, and not the query wrong: a checksum (a plain Error), an end too early, its own asserts."""
    import duckdb

    return type(error) is duckdb.Error or isinstance(error, (duckdb.IOException, duckdb.FatalException, duckdb.InternalException))


def _unreadable(path: Path, error: Exception) -> RecordingError:
    first_line = str(error).splitlines()[0]
    return RecordingError(f"{path} cannot be read: {first_line}", hint="Was it copied without its .wal file, or made by a newer Unspool?")


def copy_of(path: Path, directory: Path) -> Path:
    """A consistent copy of a database that is being written.

    The main file changes at checkpoints only, and between them the log only grows; a log cut short holds all transactions before the cut.
    So a copy of both is consistent when no checkpoint fell between.
    """
    copy = directory / "copy.unspool"
    for _ in range(COPY_ATTEMPTS):
        before = _mark(path)
        shutil.copyfile(path, copy)
        with contextlib.suppress(FileNotFoundError):
            wal_of(copy).unlink()
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(wal_of(path), wal_of(copy))
        if before == _mark(path):
            return copy
    raise RecordingError(f"{path} is being written faster than it can be copied", hint="Stop the recorder, or copy the file with its .wal.")


def _mark(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return (state.st_mtime_ns, state.st_size, state.st_ino)


def _check_schema(recording: Recording) -> None:
    import duckdb

    try:
        rows = recording.rows("SELECT schema FROM recording")
        # information_schema.columns is a view of the same that takes ten times as long.
        found = set(recording.rows("SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal"))
    except duckdb.Error:
        rows, found = [], set()
    schema = rows[0][0] if len(rows) == 1 else None
    names = {table for table, _, _ in found}
    if not isinstance(schema, int) or schema < 1 or not names >= set(tables_of(1)):
        raise RecordingError(f"{recording.path} is a DuckDB database but not a recording", hint="`duckdb FILE` opens it.")
    if schema > SCHEMA:
        message = f"{recording.path} has schema {schema}; this Unspool reads up to {SCHEMA}"
        raise RecordingError(message, hint="Read it with the Unspool that made it, or a newer one.")
    missing = [
        f"{table}.{column.name}"
        for table, columns in tables_of(schema).items()
        for column in columns
        if (table, column.name, column.type) not in found
    ]
    if missing:
        raise RecordingError(f"{recording.path} is damaged: it has no {', '.join(missing[:3])} as schema {schema} wants it")
    if schema < SCHEMA:
        database = recording.rows("SELECT current_database()")[0][0]
        for statement in view_statements(schema, database):
            recording.connection.execute(statement)
