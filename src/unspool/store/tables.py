"""The tables of a recording that samples point into, with identities turned into places in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unspool.errors import RecordingError
from unspool.model.guest import Guest, told_apart
from unspool.model.verdict import Trust
from unspool.profile.columns import NO_OFFSET, NONE, Entries, Frames, Function, Module, Task
from unspool.store.interrupts import interrupts
from unspool.store.reader import Recording

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


UNKNOWN = "[unknown]"


class Places:
    """Where each identity of a table stands in the columns made of it."""

    def __init__(self, table: str, identities: Ints) -> None:
        """Take the table's identities, ascending."""
        self.table = table
        self.identities = identities

    def of(self, identities: Ints) -> Ints:
        """The places of those identities; NONE for NONE; RecordingError for one that the table does not hold."""
        import numpy as np

        if not len(self.identities):
            places = np.zeros(len(identities), dtype=np.int64)
            known = np.zeros(len(identities), dtype=bool)
        else:
            places = np.minimum(np.searchsorted(self.identities, identities), len(self.identities) - 1)
            known = self.identities[places] == identities
        if not (known | (identities == NONE)).all():
            raise RecordingError(f"the recording is damaged: something refers to a row that table {self.table} does not hold")
        return np.where(known, places, NONE)


def columns(recording: Recording, sql: str, parameters: list[object] | None = None) -> dict[str, Any]:
    """A query's columns as NumPy arrays; the query leaves no NULL in numbers."""
    import duckdb
    import numpy as np

    try:
        with interrupts():
            found = recording.connection.execute(sql, parameters or []).fetchnumpy()
    except duckdb.Error as error:
        raise RecordingError(f"{recording.path} cannot be read: {str(error).splitlines()[0]}", hint="The recording is damaged.") from error
    return {name: np.ma.getdata(column) if column.dtype != object else column for name, column in found.items()}


class Tables:
    """Modules, frames, names, guests and threads of a recording."""

    def __init__(self, recording: Recording) -> None:
        """Read them."""
        self._recording = recording
        self.modules, self.module_places = self._modules()
        self.guests, self.guest_places = self._guests()
        self.tasks, self.task_places = self._tasks()
        frames = columns(recording, FRAMES)
        self.frame_places = Places("frames", frames["frame"])
        module = self.module_places.of(frames["module"])
        self.functions, self.files, self.entries, starts = self._entries(frames, module)
        self.frames = Frames(frames["address"], frames["offset"], module, frames["trust"].astype("int64"), starts)

    def _modules(self) -> tuple[tuple[Module, ...], Places]:
        import numpy as np

        rows = self._recording.rows("SELECT module, path, coalesce(build_id, ''), kind FROM modules ORDER BY module")
        return tuple(Module(*row[1:]) for row in rows), Places("modules", np.array([row[0] for row in rows], dtype=np.int64))

    def _guests(self) -> tuple[tuple[Guest, ...], Places]:
        import numpy as np

        rows = self._recording.rows(GUESTS)
        return told_apart(Guest(*row[1:]) for row in rows), Places("guests", np.array([row[0] for row in rows], dtype=np.int64))

    def _tasks(self) -> tuple[tuple[Task, ...], Places]:
        import numpy as np

        rows = self._recording.rows(TASKS)
        guests = self.guest_places.of(np.array([row[-1] for row in rows], dtype=np.int64)).tolist()
        tasks = tuple(Task(*values) for values in ((*row[1:-1], guest) for row, guest in zip(rows, guests, strict=True)))
        return tasks, Places("threads", np.array([row[0] for row in rows], dtype=np.int64))

    def _entries(self, frames: dict[str, Any], modules: Ints) -> tuple[tuple[Function, ...], tuple[str, ...], Entries, Ints]:
        """The calls behind every frame; a frame without a name is one call, named after its place."""
        import numpy as np

        symbols = columns(self._recording, SYMBOLS)
        owners = self.frame_places.of(symbols["frame"])
        named = np.bincount(owners, minlength=len(modules))
        lengths = np.maximum(named, 1)
        starts = np.concatenate(([0], np.cumsum(lengths)))
        total = int(starts[-1])
        # Where the rows of `symbols` go: they are in the order of frames, and unnamed frames between them take one place each.
        spots = np.arange(len(owners)) + (np.cumsum(lengths - named) - (lengths - named))[owners]
        names = Names()
        function = np.zeros(total, dtype=np.int64)
        pairs = zip(symbols["function"].tolist(), modules[owners].tolist(), strict=True)
        function[spots] = [names.function(name, module) for name, module in pairs]
        bare = np.flatnonzero(named == 0)
        places = zip(modules[bare].tolist(), frames["offset"][bare].tolist(), strict=True)
        function[starts[bare]] = [names.place(self.modules, *place) for place in places]
        file, line, offset = (np.full(total, value, dtype=np.int64) for value in (NONE, 0, 0))
        inlined = np.zeros(total, dtype=bool)
        file[spots] = [names.file(name) for name in symbols["file"].tolist()]
        line[spots], offset[spots], inlined[spots] = symbols["line"], symbols["offset"], symbols["inlined"]
        return tuple(names.functions), tuple(names.files), Entries(function, file, line, offset, inlined), starts


class Names:
    """Functions and files by what identifies them: the same arguments give the same number."""

    def __init__(self) -> None:
        """None is known."""
        self.functions: list[Function] = []
        self.files: list[str] = []
        self._functions: dict[tuple[str, int, bool], int] = {}
        self._files: dict[str, int] = {}

    def function(self, name: str, module: int, *, named: bool = True) -> int:
        """The number of a function."""
        number = self._functions.setdefault((name, module, named), len(self.functions))
        if number == len(self.functions):
            self.functions.append(Function(name, module, named))
        return number

    def place(self, modules: Sequence[Module], module: int, offset: int) -> int:
        """What stands for a frame without a name: module+offset; without a file one word for all, or each address would be a function."""
        if module == NONE or offset == NO_OFFSET:
            return self.function(UNKNOWN, module, named=False)
        return self.function(f"{modules[module].name}+{offset:#x}", module, named=False)

    def file(self, name: str) -> int:
        """The number of a source file, NONE for no name."""
        if not name:
            return NONE
        number = self._files.setdefault(name, len(self.files))
        if number == len(self.files):
            self.files.append(name)
        return number


_TRUST = " ".join(f"WHEN '{trust.label}' THEN {int(trust)}" for trust in Trust)
FRAMES = f"""
    SELECT frame, coalesce(module, {NONE}) AS module, address, coalesce("offset", {NO_OFFSET}::UBIGINT) AS "offset",
        CASE trust {_TRUST} ELSE {NONE} END AS trust
    FROM frames ORDER BY frame
"""  # noqa: S608 - numbers and names of enums
SYMBOLS = """
    SELECT frame, function, "offset", coalesce(file, '') AS file, coalesce(line, 0) AS line, inlined FROM symbols ORDER BY frame, depth
"""
TASKS = f"""
    SELECT thread, p.pid, tid, p.comm, t.comm, coalesce(exe, ''), coalesce(cgroup, ''), coalesce(guest, {NONE})
    FROM threads t JOIN processes p USING (process) ORDER BY thread
"""  # noqa: S608 - a number
GUESTS = """
    SELECT guest, name, vmm_pid, vmm_start_ns, generation, coalesce(uuid, ''), coalesce(kernel_release, ''), coalesce(kernel_build_id, ''),
        coalesce(accel, ''), coalesce(registers_by, ''), coalesce(memory_by, '')
    FROM guests ORDER BY guest
"""
