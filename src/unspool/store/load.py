"""A recording's samples as a profile: SQL counts, NumPy holds the columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.model.verdict import Stop, Verdict
from unspool.profile.columns import NONE, About, Counted, Event, Profile, Stacks, Timed
from unspool.profile.filters import EVERYTHING, Filter
from unspool.store.reader import Recording
from unspool.store.tables import Places, Tables, columns
from unspool.store.where import matching_modules, where

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


def load(recording: Recording, only: Filter = EVERYTHING, *, timed: bool = False) -> Profile:
    """The profile of the samples that pass the filter; `timed` keeps single samples too."""
    tables = Tables(recording)
    stacks, stack_places = _stacks(recording, tables)
    events = tuple(Event(*row) for row in recording.rows("SELECT DISTINCT trigger, detail FROM samples ORDER BY ALL"))
    known = about(recording)
    rows = _Rows(recording, only, tables, stack_places, known.kernel)
    profile = Profile(
        about=known,
        modules=tables.modules,
        functions=tables.functions,
        files=tables.files,
        tasks=tables.tasks,
        events=events,
        frames=tables.frames,
        entries=tables.entries,
        stacks=stacks,
        counted=rows.counted(),
        timed=rows.timed() if timed else None,
        guests=tables.guests,
    )
    return profile.keep(matching_modules(profile, only.modules)) if only.modules else profile


def about(recording: Recording) -> About:
    """Where the recording comes from."""
    overview = recording.overview()
    same = ("hostname", "kernel", "arch", "cpus", "started_ns", "monotonic_ns", "duration_s", "frequency", "trigger", "command", "finished")
    values = {name: getattr(overview, name) for name in same}
    return About(**values, lost=recording.lost(), counters=recording.counters(), machine=recording.machine())


def _stacks(recording: Recording, tables: Tables) -> tuple[Stacks, Places]:
    import numpy as np

    found = columns(recording, STACKS)
    flat = columns(recording, "SELECT unnest(frames) AS frame FROM (SELECT frames FROM stacks ORDER BY stack)")["frame"]
    start = np.concatenate(([0], np.cumsum(found["length"]))).astype(np.int64)
    stacks = Stacks(
        start=start,
        frames=tables.frame_places.of(flat.astype(np.int64)),
        kernel_frames=found["kernel_frames"].astype(np.int64),
        stop=found["stop"].astype(np.int64),
        stop_module=tables.module_places.of(found["stop_module"]),
        verdict=found["verdict"].astype(np.int64),
        reason=found["reason"].astype(np.int64),
        bad=found["bad"].astype(np.int64),
        kernel_end=found["kernel_end"].astype(np.int64),
    )
    return stacks, Places("stacks", found["stack"])


@dataclass(frozen=True, slots=True)
class _Rows:
    """The samples that pass a filter."""

    recording: Recording
    only: Filter
    tables: Tables
    stacks: Places
    kernel: str

    def _where(self) -> tuple[str, list[object]]:
        guests = zip(self.tables.guest_places.identities.tolist(), self.tables.guests, strict=True)
        machines = [None] if self.only.chooses_machine(None, self.kernel) else []
        return where(
            self.only, [*machines, *(number for number, guest in guests if self.only.chooses_machine(guest, guest.kernel_release))]
        )

    def counted(self) -> Counted:
        condition, parameters = self._where()
        found = columns(self.recording, COUNTED.format(source=SOURCE, vcpu=VCPU, condition=condition), parameters)
        return Counted(
            task=self.tables.task_places.of(found["thread"]),
            event=found["event"],
            stack=self.stacks.of(found["stack"]),
            vcpu=found["vcpu"].astype("int64"),
            count=found["count"],
            weight=found["weight"],
        )

    def timed(self) -> Timed:
        condition, parameters = self._where()
        found = columns(self.recording, TIMED.format(source=SOURCE, vcpu=VCPU, condition=condition), parameters)
        return Timed(
            time_ns=found["time_ns"],
            cpu=found["cpu"].astype("int64"),
            vcpu=found["vcpu"].astype("int64"),
            task=self.tables.task_places.of(found["thread"]),
            event=found["event"],
            stack=self.stacks.of(found["stack"]),
            weight=found["weight"],
        )


def _cases(column: str, members: type[Stop | Verdict]) -> str:
    whens = " ".join(f"WHEN '{member.label}' THEN {int(member)}" for member in members)
    return f"CASE {column} {whens} ELSE 0 END"


STACKS = f"""
    SELECT stack, coalesce(len(frames), 0) AS length, kernel_frames,
        {_cases("stop", Stop)} AS stop, coalesce(stop_module, {NONE}) AS stop_module,
        {_cases("verdict", Verdict)} AS verdict, {_cases("reason", Stop)} AS reason, coalesce(first_bad_frame, {NONE}) AS bad,
        CASE kernel_ending WHEN 'whole' THEN 1 WHEN 'cut' THEN 0 ELSE {NONE} END AS kernel_end
    FROM stacks ORDER BY stack
"""  # noqa: S608 - numbers and names of enums
SOURCE = """
    FROM samples
    JOIN (SELECT *, row_number() OVER (ORDER BY trigger, detail) - 1 AS event FROM (SELECT DISTINCT trigger, detail FROM samples))
        USING (trigger, detail)
    JOIN stacks s USING (stack) JOIN processes p USING (process) JOIN threads t USING (thread), recording
"""
VCPU = f"CASE WHEN vcpu BETWEEN 0 AND 65535 THEN vcpu ELSE {NONE} END"
"""No machine has more; a number in a damaged file must not make arrays of its size."""
COUNTED = """
    SELECT thread, event, stack, {vcpu} AS vcpu, count(*)::BIGINT AS count, sum(weight)::BIGINT AS weight
    {source} WHERE {condition} GROUP BY ALL ORDER BY ALL
"""
TIMED = """
    SELECT time_ns, cpu, {vcpu} AS vcpu, thread, event, stack, weight
    {source} WHERE {condition} ORDER BY time_ns, cpu, thread, stack
"""
