"""The writer of a recording: identities by memory, rows buffered, one insert a table and commit."""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from unspool.errors import RecordingError
from unspool.model.guest import Guest
from unspool.model.module import ModuleKind
from unspool.model.symbol import Named, Unnamed
from unspool.model.verdict import Judgement, Stop, Trust, Verdict
from unspool.profile.columns import UNKNOWN, ending_of
from unspool.store import place
from unspool.store.batch import Batch, text, update
from unspool.store.header import Header
from unspool.store.interrupts import interrupts
from unspool.store.schema import SCHEMA, TABLES

if TYPE_CHECKING:
    import duckdb

CONFIG: dict[str, str | bool | int | float | list[str]] = {
    # One thread: a recorder must leave the CPUs to what it records.
    "threads": "1",
    "memory_limit": "1GB",
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}

BUSY_SECONDS = 3.0
"""How long a reader may keep the file that was just made from us: shorter than what the kernel's ring has room for."""
BUSY_STEP_SECONDS = 0.01

REMEMBERED_STACKS = 100_000
"""How many stacks are remembered: an hour of recording must not fill the memory. One that was forgotten gets a second number."""


def prepare() -> Iterator[None]:
    """Load what a commit needs (0.2 s), step by step: between two of them the caller can do what must not wait so long."""
    importlib.import_module("numpy")
    yield
    importlib.import_module("duckdb")
    yield
    place.empty_recording()


class Writer:
    """A recording that grows. Every method but `commit` and `finish` only buffers; nothing is on disk before `commit()`.

    A method that names a thing (process, module, frame, stack, ...) returns its identity: the same arguments give the same number.
    Use one writer from one thread at a time. As a context manager it finishes on the way out, also after an error.
    """

    def __init__(self, path: str | Path, header: Header | None = None, *, replace: bool = False, later: bool = False) -> None:
        """Create the file (mode 0600); RecordingError when it exists, unless `replace` is set and it is a recording.

        With `later` it stays empty until the first commit, so that DuckDB is not needed before that.
        """
        self.path = Path(path)
        self.header = header or Header.here()
        self._reserved: int | None = place.reserve(self.path, replace=replace)
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._batches = {table: Batch(table) for table in TABLES}
        self._add = {table: batch.rows.append for table, batch in self._batches.items()}
        self._add_sample = self._add["samples"]
        self._machine: dict[str, str] = {}
        self._guests: dict[tuple[str, str, int, int, int], int] = {}
        self._guest_rows: dict[int, Guest] = {}
        self._guests_changed = False
        self._processes: dict[tuple[int, int, str, str | None, int | None], int] = {}
        self._threads: dict[tuple[int, int, str], int] = {}
        self._modules: dict[tuple[str, str, str, int | None], int] = {}
        self._frames: dict[tuple[int | None, int, str, Trust | None], int] = {}
        self._stacks: dict[tuple[Any, ...], int] = {}
        self._last_stack = 0
        self._named: set[int] = set()
        self._states: dict[int, str] = {}
        self._exits: dict[int, int] = {}
        self._counters: dict[str, int] = {}
        self._counters_changed = False
        self._started_later = False
        self._begin(later=later)

    def machine(self, properties: Mapping[str, str]) -> None:
        """Note properties of the machine; a key keeps its first value."""
        for key, value in properties.items():
            if key not in self._machine:
                self._machine[key] = value
                self._add["machine"]((text(key), text(value)))

    def guest(self, guest: Guest) -> int:
        """The guest between two boots; what is said of its kernel and of how it was read may change, and the last word stays."""
        key = (guest.name, guest.uuid, guest.vmm_pid, guest.vmm_start_ns, guest.generation)
        known = self._guests.setdefault(key, len(self._guests) + 1)
        if self._guest_rows.get(known) != guest:
            self._guest_rows[known] = guest
            self._guests_changed = True
        return known

    def process(  # noqa: PLR0913 - a row
        self,
        pid: int,
        start_ns: int,
        comm: str,
        exe: str | None = None,
        parent: int | None = None,
        *,
        guest: int | None = None,
        cgroup: str | None = None,
    ) -> int:
        """The process that runs this program; another comm or exe is another row. `guest` is what `guest()` gave, None for this host."""
        key = (pid, start_ns, comm, exe, guest)
        known = self._processes.get(key)
        if known is None:
            known = self._processes[key] = len(self._processes) + 1
            row = (known, pid, start_ns, text(comm), exe and text(exe), parent, None, guest, cgroup and text(cgroup))
            self._add["processes"](row)
        return known

    def exited(self, process: int, exit_ns: int) -> None:
        """Note when a process ended (CLOCK_MONOTONIC)."""
        self._exits[process] = exit_ns

    def thread(self, process: int, tid: int, comm: str) -> int:
        """The thread of that process."""
        key = (process, tid, comm)
        known = self._threads.get(key)
        if known is None:
            known = self._threads[key] = len(self._threads) + 1
            self._add["threads"]((known, process, tid, text(comm)))
        return known

    def module(self, path: str, build_id: str = "", kind: ModuleKind = "file", *, guest: int | None = None) -> int:
        """The file (or vDSO, kernel, anonymous code) behind addresses; the same path with another build id is another module.

        Without a build id a path of one machine says nothing of the same path on another: `guest` tells them apart then.
        """
        key = (path, build_id, kind, None if build_id else guest)
        known = self._modules.get(key)
        if known is None:
            known = self._modules[key] = len(self._modules) + 1
            self._add["modules"]((known, text(path), build_id, kind))
        return known

    def frame(self, module: int | None, address: int, offset: int | None, space: str, trust: Trust | None) -> int:
        """The frame at that place. In a file it is known by its offset, so that processes share it wherever the file is mapped.

        `trust` is None for an imported frame, of which nobody knows how it was found.
        """
        key = (module, address if offset is None else offset, space, trust)
        known = self._frames.get(key)
        if known is None:
            known = self._frames[key] = len(self._frames) + 1
            self._add["frames"]((known, module, address, offset, space, UNKNOWN if trust is None else trust.label, None))
        return known

    def name(self, frame: int, named: Named) -> None:
        """Note a frame's names, innermost inlined call first, or why it has none. The first answer stays."""
        if frame in self._named:
            return
        self._named.add(frame)
        self._states[frame] = (text(named.reason) or "unknown") if isinstance(named, Unnamed) else "named"
        if isinstance(named, Unnamed):
            return
        add = self._add["symbols"]
        for depth, symbol in enumerate(named):
            file = symbol.file and text(symbol.file)
            add((frame, depth, text(symbol.function), symbol.offset, file, symbol.line, symbol.inlined))

    def stack(
        self,
        frames: tuple[int, ...],
        kernel_frames: int,
        stop: Stop,
        stop_module: int | None,
        judgement: Judgement,
        *,
        kernel_whole: bool | None = None,
    ) -> int:
        """The stack of those frames, innermost first, kernel frames before user frames.

        `kernel_whole` says whether the kernel's part leads to its entry, None where that is not known or it has none.
        """
        key = (frames, kernel_frames, stop, stop_module, judgement, kernel_whole)
        known = self._stacks.get(key)
        if known is None:
            if len(self._stacks) >= REMEMBERED_STACKS:
                self._stacks.clear()
            self._last_stack += 1
            known = self._stacks[key] = self._last_stack
            reason = judgement.reason.label if judgement.verdict is Verdict.UNRELIABLE else None
            end = (ending_of(stop), stop.label, stop_module)
            verdict = (judgement.verdict.label, reason, judgement.first_bad_frame)
            kernel_ending = None if kernel_whole is None else "whole" if kernel_whole else "cut"
            self._add["stacks"]((known, list(frames), kernel_frames, *end, *verdict, kernel_ending))
        return known

    def sample(  # noqa: PLR0913, PLR0917 - a row
        self,
        time_ns: int,
        process: int,
        thread: int,
        cpu: int,
        trigger: str,
        detail: str,
        weight: int,
        stack: int,
        *,
        vcpu: int | None = None,
    ) -> None:
        """Note one sample; the meaning of each value is its column's in schema.py."""
        self._add_sample((time_ns, process, thread, cpu, trigger, text(detail), weight, stack, vcpu))

    def counter(self, name: str, value: int) -> None:
        """Set a counter to its total since the start."""
        if self._counters.get(name) != value:
            self._counters[name] = value
            self._counters_changed = True

    def starts_now(self) -> None:
        """The recording starts at this moment, and not when its file was made: its times count from here."""
        self.header = replace(self.header, started_ns=time.time_ns(), monotonic_ns=time.monotonic_ns())
        self._started_later = True

    def commit(self) -> None:
        """Put everything buffered on disk, in one transaction: after this it survives SIGKILL."""
        self._transact()

    def finish(self, duration_ns: int | None = None) -> None:
        """Commit, mark the recording finished, and close it: one file is left, without a log beside it. Does nothing when called again."""
        if self._connection is None and self._reserved is None:
            return
        length = time.monotonic_ns() - self.header.monotonic_ns if duration_ns is None else duration_ns
        self._transact(length)
        with place.private_files(), self._errors():
            connection = self._connected()
            connection.execute("CHECKPOINT")
            connection.close()
        self._connection = None

    def abandon(self) -> None:
        """Close without another commit: what was committed can be read, and before the first one no file is left."""
        if self._reserved is not None:
            place.give_up(self.path, self._reserved)
            self._reserved = None
        if self._connection is not None:
            with place.private_files():
                self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish."""
        self.finish()

    def _begin(self, *, later: bool) -> None:
        header = self.header
        names = ("started_ns", "monotonic_ns", None, "hostname", "kernel", "arch", "cpus", "frequency", "trigger", "command")
        values = [None if name is None else getattr(header, name) for name in names]
        cleaned = [text(value) if isinstance(value, str) else value for value in values]
        self._add["recording"]((SCHEMA, header.unspool_version, *cleaned, False))
        if later:
            return
        try:
            self._transact()
        except BaseException:
            self.abandon()
            raise

    def _connected(self) -> duckdb.DuckDBPyConnection:
        """The open file; the first call makes a recording of what was reserved."""
        if self._connection is None:
            if self._reserved is None:
                raise RecordingError(f"{self.path} is finished")
            place.fill(self._reserved)
            # Before DuckDB has it: closing a descriptor gives up all locks that the process has on the file (fcntl_locking(2)).
            os.close(self._reserved)
            self._reserved = None
            self._connection = _opened(self.path)
        return self._connection

    def _transact(self, duration_ns: int | None = None) -> None:
        with place.private_files(), self._errors(), _rolled_back(self._connected()) as connection:
            connection.execute("BEGIN")
            self._fill_states()
            for batch in self._batches.values():
                batch.insert(connection)
            update(connection, "frames", "symbol_state", self._states)
            update(connection, "processes", "exit_ns", self._exits)
            if self._counters_changed:
                connection.execute("DELETE FROM counters")
                self._batches["counters"].rows[:] = [(text(name), value) for name, value in self._counters.items()]
                self._batches["counters"].insert(connection)
            if self._guests_changed:
                connection.execute("DELETE FROM guests")
                self._batches["guests"].rows[:] = [_guest_row(number, guest) for number, guest in self._guest_rows.items()]
                self._batches["guests"].insert(connection)
            if self._started_later:
                start = [self.header.started_ns, self.header.monotonic_ns]
                connection.execute("UPDATE recording SET started_ns = ?, monotonic_ns = ?", start)
            if duration_ns is not None:
                connection.execute("UPDATE recording SET duration_ns = ?, finished = true", [duration_ns])
            connection.execute("COMMIT")
        self._forget()

    def _fill_states(self) -> None:
        """Put what is known by now into rows that are not on disk yet; what stays in `_states` is about rows that are."""
        rows = self._batches["frames"].rows
        rows[:] = [(*row[:-1], self._states.pop(row[0], row[-1])) for row in rows]

    def _forget(self) -> None:
        for batch in self._batches.values():
            batch.rows.clear()
        self._states.clear()
        self._exits.clear()
        self._counters_changed = False
        self._guests_changed = False
        self._started_later = False

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what DuckDB or the kernel says about the disk into an error of ours."""
        import duckdb

        try:
            with interrupts():
                yield
        except (duckdb.Error, OSError) as error:
            first_line = str(error).splitlines()[0]
            raise RecordingError(
                f"{self.path} cannot be written: {first_line}", hint="Is the disk full? What was committed is kept."
            ) from error


def _opened(path: Path) -> duckdb.DuckDBPyConnection:
    """The file that was just made: who watches for it (a report, a page) may have it locked for a moment before we do."""
    import duckdb

    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return duckdb.connect(str(path), config=CONFIG)
        except duckdb.Error as error:
            if not place.is_busy(error) or time.monotonic() >= deadline:
                raise
        time.sleep(BUSY_STEP_SECONDS)


def _guest_row(number: int, guest: Guest) -> tuple[Any, ...]:
    head = (number, text(guest.name), text(guest.uuid), guest.vmm_pid, guest.vmm_start_ns, guest.generation)
    rest = (guest.kernel_release, guest.kernel_build_id, guest.accel, guest.registers_by, guest.memory_by)
    return (*head, *map(text, rest))


@contextlib.contextmanager
def _rolled_back(connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """Undo the transaction when anything ends it early, Ctrl-C too: the rows are still buffered, and the next commit takes them."""
    import duckdb

    try:
        yield connection
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise
