"""What runs now, as a table that is made anew every second: functions and threads, with what is proved of their stacks."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from unspool.capture.ending import Ending
from unspool.model.guest import HOST
from unspool.model.verdict import Stop, Verdict
from unspool.profile.arrays import summed
from unspool.profile.columns import About, Counted, Profile, ending_of
from unspool.profile.paths import function_totals, paths
from unspool.session.recording import Plan
from unspool.session.sampling import STEP_SECONDS, Sampling, Taken

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

TICK = 1.0
"""Seconds between two tables."""

WINDOWS = (1.0, 5.0, 10.0, 30.0, 60.0)
"""The seconds of the past that a table may show."""

BUSY = 3.0
"""A table that needs a second to make is made every three: the rest is for what is watched."""


@dataclass(frozen=True, slots=True)
class View:
    """What a user wants to see: the last `seconds`, of one thread (its id, in a guest or on this host: HOST) or of all."""

    seconds: float = 10.0
    tid: int | None = None
    guest: str = HOST


@dataclass(frozen=True, slots=True)
class Share:
    """Samples by what is known of their user stacks: all, reliable, whole (reliable ones included), cut; the rest have none."""

    samples: int = 0
    reliable: int = 0
    whole: int = 0
    cut: int = 0

    @property
    def stacks(self) -> int:
        """Those with a user stack."""
        return self.whole + self.cut


@dataclass(frozen=True, slots=True)
class FunctionLine:
    """A function: samples in which it ran itself, and those with it on the stack by what is known of them. `module` is a path or empty."""

    name: str
    module: str
    own: int
    total: Share


@dataclass(frozen=True, slots=True)
class ThreadLine:
    """A thread with its samples; its ids and names are those inside its `guest`, HOST for this host."""

    pid: int
    tid: int
    process: str
    thread: str
    total: Share
    guest: str = HOST


@dataclass(frozen=True, slots=True)
class Table:
    """One table: of the last `seconds`, which are fewer than were asked for at the start. `note` says what a user should know."""

    seconds: float = 0.0
    total: Share = field(default_factory=Share)
    lost: int = 0
    functions: tuple[FunctionLine, ...] = ()
    threads: tuple[ThreadLine, ...] = ()
    note: str = ""


class Source(Protocol):
    """Where tables come from: `LiveSource`, or a fake. `failed` is why there are no more."""

    view: View
    failed: Exception | None

    def latest(self) -> Table:
        """The newest table; the same object as long as there is no newer one."""


def table(profile: Profile, view: View, seconds: float, lost: int) -> Table:
    """The table of a profile's samples."""
    import numpy as np

    threads = _threads(profile)
    if view.tid is not None:
        chosen = np.array([(task.tid, profile.machine_name(task)) == (view.tid, view.guest) for task in profile.tasks] or [False])
        rows = chosen[profile.counted.task]
        profile = replace(profile, counted=_rows(profile, rows), timed=None)
    total = _share(profile, np.zeros(len(profile.counted), dtype=np.int64), 1)[0]
    return Table(seconds, total, lost, _functions(profile), threads)


def _functions(profile: Profile) -> tuple[FunctionLine, ...]:
    import numpy as np

    of = paths(profile)
    every = function_totals(profile, of)
    kinds = _kinds(profile)
    parts = [function_totals(profile.keep(kinds == kind), of).total for kind in (_RELIABLE, _WHOLE, _CUT)]
    order = np.lexsort((-every.total, -every.own))
    return tuple(
        FunctionLine(
            name=profile.functions[index].name,
            module="" if profile.functions[index].module < 0 else profile.modules[profile.functions[index].module].path,
            own=int(every.own[index]),
            total=Share(int(every.total[index]), reliable, reliable + whole, cut),
        )
        for index in order[every.total[order] > 0].tolist()
        for reliable, whole, cut in (tuple(int(part[index]) for part in parts),)
    )


def _threads(profile: Profile) -> tuple[ThreadLine, ...]:
    shares = _share(profile, profile.counted.task, len(profile.tasks))
    lines = [
        ThreadLine(task.pid, task.tid, task.process, task.thread, share, profile.machine_name(task))
        for task, share in zip(profile.tasks, shares, strict=True)
    ]
    return tuple(sorted(lines, key=lambda line: -line.total.samples))


_NONE, _RELIABLE, _WHOLE, _CUT = range(4)


def _kinds(profile: Profile) -> Ints:
    """For each stack what is known of it."""
    import numpy as np

    by_stop = np.array([_CUT if ending_of(Stop(number)) == "cut" else _WHOLE for number in _known_stops()], dtype=np.int64)
    kinds = by_stop[profile.stacks.stop]
    kinds[(kinds == _WHOLE) & (profile.stacks.verdict == int(Verdict.RELIABLE))] = _RELIABLE
    kinds[profile.stacks.verdict == int(Verdict.NONE)] = _NONE
    return kinds


def _known_stops() -> list[int]:
    """Every number from 0 to the largest of `Stop`; a number between them that is none stands for `Stop.NONE`."""
    known = {int(stop) for stop in Stop}
    return [number if number in known else int(Stop.NONE) for number in range(max(known) + 1)]


def _share(profile: Profile, places: Ints, size: int) -> list[Share]:
    kinds = _kinds(profile)[profile.counted.stack]
    weights = [summed(places[kinds == kind], profile.counted.weight[kinds == kind], size).tolist() for kind in range(4)]
    return [
        Share(none + reliable + whole + cut, reliable, reliable + whole, cut) for none, reliable, whole, cut in zip(*weights, strict=True)
    ]


def _rows(profile: Profile, rows: NDArray[np.bool_]) -> Counted:
    return Counted(*(getattr(profile.counted, name)[rows] for name in Counted.__slots__))


class LiveSource:
    """Tables of what runs now, made by a thread of its own from `start` to `close`. Change `view` at any time."""

    def __init__(self, plan: Plan) -> None:
        """Load the programs: NotPermitted, Unsupported or BadRequest. Sampling begins with `start`."""
        self.view = View()
        self.failed: Exception | None = None
        # What is not there is said before anything is loaded.
        self._watched = watch(plan)
        self._sampling = Sampling(plan, lines=False)
        self._windows: deque[Taken] = deque()
        self._latest = Table()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unspool-top", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        try:
            self._sampling.__enter__()
        except BaseException:
            self.close()
            raise
        self._thread.start()

    def close(self) -> None:
        """Stop sampling and unload everything."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._sampling.close()
        for descriptor in self._watched:
            os.close(descriptor)
        self._watched = []

    def latest(self) -> Table:
        """The newest table."""
        return self._latest

    def _run(self) -> None:
        due = time.monotonic() + TICK
        try:
            while not self._stop.wait(STEP_SECONDS):
                self._sampling.step()
                if time.monotonic() >= due:
                    started = time.monotonic()
                    self._latest = self._table()
                    due = started + max(TICK, BUSY * (time.monotonic() - started))
        except Exception as error:  # noqa: BLE001 (who shows the tables raises it)
            self.failed = error

    def _table(self) -> Table:
        view, sampling = self.view, self._sampling
        self._windows.append(sampling.take())
        while len(self._windows) > 1 and self._windows[0].end_ns <= self._windows[-1].end_ns - int(WINDOWS[-1] * 1e9):
            self._windows.popleft()
        sampling.name(between=sampling.step)
        horizon = self._windows[-1].end_ns - int(view.seconds * 1e9)
        # A window that began a moment too early still counts: ticks are no exact seconds.
        shown = [taken for taken in self._windows if taken.start_ns >= horizon - int(TICK * 0.5e9)] or [self._windows[-1]]
        made = made_of(sampling, shown, view)
        if sampling.renew():
            self._windows.clear()
        return replace(made, note=self._note())

    def _note(self) -> str:
        """Whether what is watched still runs, and which guests cannot be sampled."""
        if self._sampling.over:
            return "ended"
        refused = refusals(self._sampling)
        if refused:
            return refused
        if not self._watched or self._sampling.guests is not None:
            return ""
        ended, _, _ = select.select(self._watched, [], [], 0)
        return "ended" if len(ended) == len(self._watched) else ""


def refusals(sampling: Sampling) -> str:
    """The guests that were meant and cannot be sampled, in words; empty when there are none."""
    refused = [] if sampling.guests is None else sampling.guests.refused
    return "; ".join(f"guest {name!r} cannot be sampled: {why}" for name, why in refused)


def made_of(sampling: Sampling, shown: list[Taken], view: View) -> Table:
    """The table of these windows."""
    seconds = (shown[-1].end_ns - shown[0].start_ns) / 1e9
    return table(sampling.profile(shown, About()), view, seconds, sum(taken.lost for taken in shown))


def watch(plan: Plan) -> list[int]:
    """A descriptor for each process of the plan that tells of its end; NoSuchTarget when there is none."""
    from unspool.capture.command import open_process

    return [open_process(pid) for pid in plan.pids]


def once(plan: Plan, seconds: float) -> Table:
    """One table of the next `seconds`; Ctrl-C and the end of the processes make it shorter."""
    with Ending(seconds=seconds, processes=watch(plan)) as ending, Sampling(plan, lines=False) as sampling:
        ending.start()
        while not (ending.wait(STEP_SECONDS) or sampling.over):
            sampling.step()
        sampling.stop()
        taken = sampling.take()
        sampling.name(last=True)
        return replace(made_of(sampling, [taken], View(seconds)), note=refusals(sampling))
