"""The tables of a recording, column by column: what the writer creates, the reader expects and docs/recording.md shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA = 2
"""The number in `recording.schema`. A reader opens files of this number and below; a column is added, never given another meaning."""

ColumnType = Literal["BIGINT", "UBIGINT", "INTEGER", "DOUBLE", "BOOLEAN", "VARCHAR", "BIGINT[]"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its SQL type, whether it can be NULL, what it says, and the first schema that has it."""

    name: str
    type: ColumnType
    says: str
    nullable: bool = False
    since: int = 1

    @property
    def sql(self) -> str:
        """The column's part of CREATE TABLE."""
        return f'"{self.name}" {self.type}' if self.nullable else f'"{self.name}" {self.type} NOT NULL'


TABLES: dict[str, tuple[Column, ...]] = {
    "recording": (
        Column("schema", "INTEGER", "version of this schema; a reader refuses a number above its own"),
        Column("unspool_version", "VARCHAR", "version of the recorder"),
        Column("started_ns", "BIGINT", "start of the recording, nanoseconds since 1970 (CLOCK_REALTIME)"),
        Column("monotonic_ns", "BIGINT", "the same moment on the clock of `samples.time_ns` (CLOCK_MONOTONIC)"),
        Column("duration_ns", "BIGINT", "length of the recording; NULL until it is finished", nullable=True),
        Column("hostname", "VARCHAR", "the machine's name"),
        Column("kernel", "VARCHAR", "release of its kernel, as `uname -r`"),
        Column("arch", "VARCHAR", "its architecture, as `uname -m`"),
        Column("cpus", "INTEGER", "number of CPUs online at the start"),
        Column("frequency", "DOUBLE", "samples a second and CPU that were asked for; 0 when the trigger counts events instead"),
        Column("trigger", "VARCHAR", "what took samples, as given to `record --on`"),
        Column("command", "VARCHAR", "the command that was started, empty when none was"),
        Column("finished", "BOOLEAN", "false when the recorder is still running or was killed: the last second may be missing"),
    ),
    "machine": (
        Column("key", "VARCHAR", "a property of the machine, for example `cpu-model`"),
        Column("value", "VARCHAR", "its value"),
    ),
    "counters": (
        Column("name", "VARCHAR", "what was counted; names that are `lost` or begin with `lost-` are samples that could not be kept"),
        Column("value", "BIGINT", "how often, since the start"),
    ),
    "processes": (
        Column("process", "BIGINT", "identity, used by `samples` and `threads`; a process that runs another program (exec) gets a new row"),
        Column("pid", "INTEGER", "process id in the recorder's PID namespace"),
        Column("start_ns", "BIGINT", "start of the process in nanoseconds since boot; 0 when it is not known"),
        Column("comm", "VARCHAR", "the name the kernel shows"),
        Column("exe", "VARCHAR", "path of the program; NULL when it could not be read", nullable=True),
        Column("parent", "INTEGER", "process id of the parent; NULL when it is not known", nullable=True),
        Column("exit_ns", "BIGINT", "when it ended, CLOCK_MONOTONIC; NULL while it lived", nullable=True),
        Column("guest", "BIGINT", "the guest it runs in, its ids being those of that guest; NULL on this host", nullable=True, since=2),
        Column("cgroup", "VARCHAR", "its control group when it was first seen; NULL when it is not known", nullable=True, since=2),
    ),
    "threads": (
        Column("thread", "BIGINT", "identity, used by `samples`"),
        Column("process", "BIGINT", "its process"),
        Column("tid", "INTEGER", "thread id in the recorder's PID namespace"),
        Column("comm", "VARCHAR", "the thread's name"),
    ),
    "modules": (
        Column("module", "BIGINT", "identity, used by `frames` and `stacks`"),
        Column(
            "path",
            "VARCHAR",
            "the file's path as the process saw it; `[vdso]`, `[kernel]`, `[guest.kernel]` and kernel modules in brackets",
        ),
        Column("build_id", "VARCHAR", "the file's GNU build id in hexadecimal; NULL when it has none", nullable=True),
        Column("kind", "VARCHAR", "`file`, `vdso`, `jit`, `anon` or `kernel`"),
    ),
    "frames": (
        Column("frame", "BIGINT", "identity, used by `stacks.frames` and `symbols`"),
        Column("module", "BIGINT", "the module the address lies in; NULL when nothing was mapped there", nullable=True),
        Column("address", "UBIGINT", "the address in the process that showed it first: the pc, or the return address of a caller"),
        Column("offset", "UBIGINT", "the byte of the module's file at that address; NULL without a file", nullable=True),
        Column("space", "VARCHAR", "`user` or `kernel`"),
        Column(
            "trust",
            "VARCHAR",
            "found by: `registers`, `cfi`, `sframe`, `orc`, `frame-pointer`, `scan`, `kernel`, or `unknown` (imported)",
        ),
        Column("symbol_state", "VARCHAR", "`named`, or why there is no name; NULL when none was looked for", nullable=True),
    ),
    "symbols": (
        Column("frame", "BIGINT", "the frame that is named"),
        Column("depth", "INTEGER", "0 is the innermost inlined call; the highest is the function that was compiled"),
        Column("function", "VARCHAR", "name, demangled"),
        Column("offset", "BIGINT", "bytes from the function's start"),
        Column("file", "VARCHAR", "source file; NULL when it is not known", nullable=True),
        Column("line", "INTEGER", "source line; NULL when it is not known", nullable=True),
        Column("inlined", "BOOLEAN", "whether this call was inlined into the next depth"),
    ),
    "stacks": (
        Column("stack", "BIGINT", "identity, used by `samples`"),
        Column("frames", "BIGINT[]", "frames, innermost first; kernel frames stand before user frames"),
        Column("kernel_frames", "INTEGER", "how many of them are the kernel's"),
        Column(
            "ending",
            "VARCHAR",
            "`whole`, `cut`, `none` (no user stack), or `unknown` (imported, and not said)",
        ),
        Column("stop", "VARCHAR", "why the stack ends: a name of docs/stop-reasons.md"),
        Column("stop_module", "BIGINT", "the module that caused the stop; NULL when none did", nullable=True),
        Column("verdict", "VARCHAR", "`reliable`, `unreliable` or `none`"),
        Column("reason", "VARCHAR", "why it is unreliable: a stop name; NULL otherwise", nullable=True),
        Column(
            "first_bad_frame",
            "INTEGER",
            "index of the first frame not to believe, 0 = innermost user frame, in a guest innermost frame; NULL when there is none",
            nullable=True,
        ),
        Column(
            "kernel_ending",
            "VARCHAR",
            "in a guest's kernel, whether that part leads to the kernel's entry: `whole` or `cut`; NULL in user mode and on this host",
            nullable=True,
            since=2,
        ),
    ),
    "samples": (
        Column("time_ns", "BIGINT", "when, CLOCK_MONOTONIC"),
        Column("process", "BIGINT", "whose"),
        Column("thread", "BIGINT", "of which thread"),
        Column("cpu", "INTEGER", "on which CPU of this host; -1 when it is not known"),
        Column("trigger", "VARCHAR", "what took it: `cpu`, `syscalls`, ..."),
        Column("detail", "VARCHAR", "what exactly, for example the system call's name; empty when the trigger says all"),
        Column("weight", "BIGINT", "how much it counts: 1, or what the trigger measured"),
        Column("stack", "BIGINT", "its stack"),
        Column("vcpu", "INTEGER", "on which virtual CPU of its guest; NULL on this host", nullable=True, since=2),
    ),
    "guests": (
        Column("guest", "BIGINT", "identity, used by `processes`; a guest that boots again gets a new row", since=2),
        Column("name", "VARCHAR", "what its VMM calls it", since=2),
        Column("uuid", "VARCHAR", "its UUID; NULL when it has none", nullable=True, since=2),
        Column("vmm_pid", "INTEGER", "process id of its VMM on this host", since=2),
        Column("vmm_start_ns", "BIGINT", "start of the VMM in nanoseconds since boot; 0 when it is not known", since=2),
        Column("generation", "INTEGER", "1 for the boot that was seen first, 2 after a reboot, ...", since=2),
        Column(
            "kernel_release",
            "VARCHAR",
            "release of its kernel, as `uname -r` inside; NULL when it could not be read",
            nullable=True,
            since=2,
        ),
        Column("kernel_build_id", "VARCHAR", "build id of its kernel in hexadecimal; NULL when it is not known", nullable=True, since=2),
        Column("accel", "VARCHAR", "what runs its code: `kvm` or `tcg`; NULL when it is not known", nullable=True, since=2),
        Column("registers_by", "VARCHAR", "how the registers of its vCPUs were read; NULL when they were not", nullable=True, since=2),
        Column("memory_by", "VARCHAR", "how its memory was read; NULL when it was not", nullable=True, since=2),
    ),
}
"""Every table's columns in order."""


def create_statements() -> list[str]:
    """The SQL that makes an empty recording's tables."""
    return [f"CREATE TABLE {table} ({', '.join(column.sql for column in columns)})" for table, columns in TABLES.items()]


def tables_of(schema: int) -> dict[str, tuple[Column, ...]]:
    """The tables and columns that a file of that schema holds."""
    held = {table: tuple(column for column in columns if column.since <= schema) for table, columns in TABLES.items()}
    return {table: columns for table, columns in held.items() if columns}


def view_statements(schema: int, database: str) -> list[str]:
    """The SQL that makes a file of an older schema look like one of this: what it lacks is NULL, or a table without rows."""
    held, quoted = tables_of(schema), '"' + database.replace('"', '""') + '"'
    statements = []
    for table, columns in TABLES.items():
        lacking = ", ".join(f'NULL::{column.type} AS "{column.name}"' for column in columns if column.since > schema)
        if table not in held:
            statements.append(f"CREATE TEMP VIEW {table} AS SELECT {lacking} WHERE false")
        elif lacking:
            statements.append(f"CREATE TEMP VIEW {table} AS SELECT *, {lacking} FROM {quoted}.main.{table}")  # noqa: S608 - names of the schema
    return statements
