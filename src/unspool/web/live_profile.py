"""A profile that grows: rows as the recorder commits them are appended to columns, and a picture of them is a `Profile` like any other.

Nothing is counted twice: a batch of samples is merged into what was counted before, a name that comes later changes one frame's row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from unspool.errors import BadInput
from unspool.model.guest import Guest, told_apart
from unspool.model.module import ModuleKind
from unspool.model.verdict import Stop, Trust, Verdict
from unspool.profile.arrays import spans
from unspool.profile.columns import NO_OFFSET, NONE, About, Counted, Entries, Event, Frames, Module, Profile, Stacks, Task, Timed
from unspool.profile.filters import EVERYTHING
from unspool.store.batch import MISSING
from unspool.store.tables import Names
from unspool.store.wire import Columns
from unspool.web.live_columns import Growing, Tally
from unspool.web.selection import select

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

KINDS = frozenset({"file", "vdso", "jit", "anon", "kernel"})
LOST = "lost"
_STOPS = {stop.label: int(stop) for stop in Stop}
_VERDICTS = {verdict.label: int(verdict) for verdict in Verdict}
_TRUSTS = {trust.label: int(trust) for trust in Trust}
_KERNEL_ENDS = {"whole": 1, "cut": 0}
_NULL = MISSING["BIGINT"]
BITS = {"task": 19, "event": 10, "vcpu": 9, "stack": 25}
"""Of each index in the number that counts a sample; more threads, events or stacks than that are counted anew for each picture."""


@dataclass(frozen=True, slots=True)
class State:
    """What the recorder says besides rows. `recorded_s` is the time since the start, paused or not."""

    started_ns: int = 0
    monotonic_ns: int = 0
    recorded_s: float = 0.0
    sampling: bool = False
    finished: bool = False


class LiveProfile:
    """Rows in, profiles out. `add` checks what comes: BadInput for rows that refer to nothing."""

    def __init__(self) -> None:
        """No row has come."""
        self.state = State()
        self.samples = 0
        self._about = About(finished=False)
        self._machine: dict[str, str] = {}
        self._counters: dict[str, int] = {}
        self._modules: list[Module] = []
        self._guests: tuple[Guest, ...] = ()
        self._processes: list[dict[str, Any]] = []
        self._tasks: list[Task] = []
        self._events: dict[tuple[str, str], int] = {}
        self._names = Names()
        self._frames = {name: Growing("uint64" if name in {"address", "offset"} else "int64") for name in FRAME_COLUMNS}
        self._entries = {name: Growing("bool" if name == "inlined" else "int64") for name in Entries.__slots__}
        self._stacks = {name: Growing() for name in STACK_COLUMNS}
        self._stacks["start"].append(_one(0))
        self._timed = {name: Growing() for name in Timed.__slots__}
        self._tally: Tally | None = Tally()

    def add(self, rows: Columns) -> None:
        """Append the rows of one commit."""
        for table, take in (
            ("recording", self._take_recording),
            ("machine", self._take_machine),
            ("counters", self._take_counters),
            ("guests", self._take_guests),
            ("modules", self._take_modules),
            ("processes", self._take_processes),
            ("threads", self._take_threads),
            ("frames", self._take_frames),
            ("symbols", self._take_symbols),
            ("stacks", self._take_stacks),
            ("samples", self._take_samples),
        ):
            if table in rows:
                take(rows[table])

    def profile(self) -> Profile:
        """The picture of now."""
        timed = self._in_order()
        frames, entries = self._calls()
        profile = Profile(
            about=self._now(),
            modules=tuple(self._modules),
            functions=tuple(self._names.functions),
            files=tuple(self._names.files),
            tasks=tuple(self._tasks),
            events=tuple(Event(*names) for names in self._events),
            frames=frames,
            entries=entries,
            stacks=Stacks(**{name: self._stacks[name].values for name in STACK_COLUMNS}),
            counted=self._counted(),
            timed=timed,
            guests=self._guests,
        )
        return profile if self._tally is not None else select(profile, EVERYTHING)

    def _counted(self) -> Counted:
        tally = self._tally or Tally()
        keys, columns = tally.keys, {}
        for name in reversed(BITS):
            columns[name] = keys & (1 << BITS[name]) - 1
            # Not in place: these keys are the tally's own.
            keys = keys >> BITS[name]
        columns["vcpu"] -= 1
        return Counted(**columns, count=tally.count, weight=tally.weight)

    def _now(self) -> About:
        state = self.state
        lost = sum(value for name, value in self._counters.items() if name == LOST or name.startswith(f"{LOST}-"))
        return replace(
            self._about,
            started_ns=state.started_ns or self._about.started_ns,
            monotonic_ns=state.monotonic_ns or self._about.monotonic_ns,
            duration_s=state.recorded_s,
            finished=state.finished,
            lost=lost,
            counters=dict(self._counters),
            machine=dict(self._machine),
        )

    def _in_order(self) -> Timed:
        import numpy as np

        columns = {name: column.values for name, column in self._timed.items()}
        times = columns["time_ns"]
        # A deferred walk's sample comes after younger ones.
        if len(times) and (times[1:] < times[:-1]).any():
            order = np.argsort(times, kind="stable")
            columns = {name: values[order] for name, values in columns.items()}
        return Timed(**columns)

    def _calls(self) -> tuple[Frames, Entries]:
        """The calls of each frame one after the other, as a profile has them; here they stand in the order in which names came."""
        import numpy as np

        columns = {name: column.values for name, column in self._frames.items()}
        places = spans(columns["first"], columns["calls"])
        starts = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(columns["calls"])))
        frames = Frames(columns["address"], columns["offset"], columns["module"], columns["trust"], starts)
        return frames, Entries(**{name: column.values[places] for name, column in self._entries.items()})

    def _take_recording(self, rows: dict[str, Any]) -> None:
        (row,) = _dicts({name: column[:1] for name, column in rows.items()})
        names = ("hostname", "kernel", "arch", "cpus", "started_ns", "monotonic_ns", "frequency", "trigger", "command")
        self._about = About(**{name: row[name] for name in names}, finished=False)

    def _take_machine(self, rows: dict[str, Any]) -> None:
        self._machine.update(zip(_words(rows["key"]), _words(rows["value"]), strict=True))

    def _take_counters(self, rows: dict[str, Any]) -> None:
        self._counters = dict(zip(_words(rows["name"]), rows["value"].tolist(), strict=True))

    def _take_modules(self, rows: dict[str, Any]) -> None:
        _follows(rows["module"], len(self._modules))
        for path, build_id, kind in zip(_words(rows["path"]), _words(rows["build_id"]), rows["kind"], strict=True):
            if kind not in KINDS:
                raise BadInput("a module of no kind")
            self._modules.append(Module(path, build_id, cast("ModuleKind", kind)))

    def _take_guests(self, rows: dict[str, Any]) -> None:
        # All of them come again when one changed.
        _follows(rows["guest"], 0)
        guests = [{name: value for name, value in row.items() if name != "guest"} for row in _dicts(rows)]
        self._guests = told_apart(Guest(**row) for row in guests)

    def _take_processes(self, rows: dict[str, Any]) -> None:
        _follows(rows["process"], len(self._processes))
        _places_or_none(rows["guest"], len(self._guests))
        self._processes += _dicts(rows)

    def _take_threads(self, rows: dict[str, Any]) -> None:
        _follows(rows["thread"], len(self._tasks))
        owners = _places(rows["process"], len(self._processes)).tolist()
        for owner, tid, comm in zip(owners, rows["tid"].tolist(), _words(rows["comm"]), strict=True):
            process = self._processes[owner]
            guest = NONE if process["guest"] == _NULL else process["guest"] - 1
            self._tasks.append(Task(process["pid"], tid, process["comm"], comm, process["exe"], process["cgroup"], guest))

    def _take_frames(self, rows: dict[str, Any]) -> None:
        import numpy as np

        before = len(self._frames["module"])
        _follows(rows["frame"], before)
        module = _places_or_none(rows["module"], len(self._modules))
        # A frame without a name is one call, named after its place.
        shown = zip(module.tolist(), rows["offset"].tolist(), strict=True)
        functions = np.array([self._names.place(self._modules, *place) for place in shown], dtype=np.int64)
        first = len(self._entries["function"]) + np.arange(len(module))
        self._append_entries(functions, len(functions))
        columns = {"address": rows["address"], "offset": rows["offset"], "module": module, "first": first, "calls": module * 0 + 1}
        columns["trust"] = _labels(rows["trust"], _TRUSTS, NONE)
        for name, values in columns.items():
            self._frames[name].append(values)

    def _append_entries(self, function: Ints, size: int, **others: NDArray[Any]) -> None:
        import numpy as np

        columns = {"file": np.full(size, NONE), "line": np.zeros(size), "offset": np.zeros(size), "inlined": np.zeros(size), **others}
        for name, values in {"function": function, **columns}.items():
            self._entries[name].append(values)

    def _take_symbols(self, rows: dict[str, Any]) -> None:
        import numpy as np

        frames = _places(rows["frame"], len(self._frames["module"]))
        heads = np.flatnonzero(rows["depth"] == 0)
        counts = np.diff(np.append(heads, len(frames)))
        if not len(heads) or heads[0] or (np.repeat(frames[heads], counts) != frames).any():
            raise BadInput("names of no frame")
        first = len(self._entries["function"]) + heads
        modules = self._frames["module"].values[frames].tolist()
        functions = [self._names.function(name, module) for name, module in zip(_words(rows["function"]), modules, strict=True)]
        files = [self._names.file(name) for name in _words(rows["file"])]
        lines = np.where(rows["line"] == MISSING["INTEGER"], 0, rows["line"])
        self._append_entries(
            np.array(functions, dtype=np.int64),
            len(functions),
            file=np.array(files, dtype=np.int64),
            line=lines,
            offset=rows["offset"],
            inlined=rows["inlined"],
        )
        self._frames["first"].change(frames[heads], first)
        self._frames["calls"].change(frames[heads], counts)

    def _take_stacks(self, rows: dict[str, Any]) -> None:
        import numpy as np

        _follows(rows["stack"], len(self._stacks["stop"]))
        lengths, flat = rows["frames"]
        self._stacks["start"].append(int(self._stacks["start"].values[-1]) + np.cumsum(lengths))
        self._stacks["frames"].append(_places(flat, len(self._frames["module"])))
        first_bad = rows["first_bad_frame"].astype(np.int64)
        columns = {
            "kernel_frames": rows["kernel_frames"],
            "stop": _labels(rows["stop"], _STOPS, 0),
            "stop_module": _places_or_none(rows["stop_module"], len(self._modules)),
            "verdict": _labels(rows["verdict"], _VERDICTS, 0),
            "reason": _labels(rows["reason"], _STOPS, 0),
            "bad": np.where(first_bad == MISSING["INTEGER"], NONE, first_bad),
            "kernel_end": _labels(rows["kernel_ending"], _KERNEL_ENDS, NONE),
        }
        for name, values in columns.items():
            self._stacks[name].append(values)

    def _take_samples(self, rows: dict[str, Any]) -> None:
        import numpy as np

        task, stack = _places(rows["thread"], len(self._tasks)), _places(rows["stack"], len(self._stacks["stop"]))
        pairs = zip(_words(rows["trigger"]), _words(rows["detail"]), strict=True)
        event = np.array([self._events.setdefault(pair, len(self._events)) for pair in pairs], dtype=np.int64)
        vcpu = np.where(rows["vcpu"] == MISSING["INTEGER"], NONE, rows["vcpu"]).astype(np.int64)
        places = {"task": task, "event": event, "vcpu": vcpu, "stack": stack}
        weight = rows["weight"].astype(np.int64)
        for name, values in {**places, "time_ns": rows["time_ns"], "cpu": rows["cpu"], "weight": weight}.items():
            self._timed[name].append(values)
        self._count({**places, "vcpu": vcpu + 1}, weight)
        self.samples += len(task)

    def _count(self, places: dict[str, Ints], weight: Ints) -> None:
        import numpy as np

        if any(int(column.max()) >> BITS[name] or int(column.min()) < 0 for name, column in places.items()):
            self._tally = None
        if self._tally is not None:
            keys = np.zeros(len(weight), dtype=np.int64)
            for name, bits in BITS.items():
                keys = keys << bits | places[name]
            self._tally.add(keys, weight)


FRAME_COLUMNS = ("address", "offset", "module", "trust", "first", "calls")
STACK_COLUMNS = Stacks.__slots__


def _one(value: int) -> Ints:
    import numpy as np

    return np.array([value], dtype=np.int64)


def _words(column: list[str | None]) -> list[str]:
    return [word or "" for word in column]


def _dicts(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows by column; a text that is NULL is empty."""
    columns = [column.tolist() if hasattr(column, "tolist") else _words(column) for column in rows.values()]
    return [dict(zip(rows, row, strict=True)) for row in zip(*columns, strict=True)]


def _follows(identities: Ints, known: int) -> None:
    """The writer numbers the rows of a table from 1 on."""
    import numpy as np

    if (identities != known + 1 + np.arange(len(identities))).any():
        raise BadInput("rows that do not follow each other")


def _places(identities: Ints, known: int) -> Ints:
    import numpy as np

    if len(identities) and not 0 < int(identities.min()) <= int(identities.max()) <= known:
        raise BadInput("something refers to a row that did not come")
    return identities.astype(np.int64) - 1


def _places_or_none(identities: Ints, known: int) -> Ints:
    import numpy as np

    is_null = identities == _NULL
    return np.where(is_null, NONE, _places(np.where(is_null, 1, identities), max(known, 1)))


def _labels(words: list[str | None], known: dict[str, int], other: int) -> Ints:
    import numpy as np

    get: Callable[[str, int], int] = known.get
    return np.array([get(word or "", other) for word in words], dtype=np.int64)


assert MISSING["UBIGINT"] == NO_OFFSET, "a frame without an offset is one in a profile too"
