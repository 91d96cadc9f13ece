"""The flame chart: one thread's stacks in the order of time, calls that go on from sample to sample as one box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.errors import BadRequest
from unspool.export.options import kind_of
from unspool.profile.arrays import summed
from unspool.profile.columns import NO_USER_STACK, NONE, Profile, Timed
from unspool.profile.tree import group_name
from unspool.web.opened import Opened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Marks = NDArray[np.bool_]

Json = dict[str, object]
MOST_SAMPLES = 20_000
"""More samples than this are not drawn at once; a shorter time shows the rest."""
THREADS_SHOWN = 200
GAP = 2.5
"""A thread without a sample for that many periods did not run; its calls end there."""
MICRO = 1000


@dataclass(frozen=True, slots=True)
class Rows:
    """The samples of a thread: when each begins and ends (nanoseconds), the calls of each, and whether time is missing before it."""

    start: Ints
    end: Ints
    first: Ints
    length: Ints
    calls: Ints
    apart: Marks


def chart(opened: Opened, profile: Profile, thread: int) -> Json:
    """The chart of a thread (NONE: the busiest), times in microseconds from its first sample; and the threads there are."""
    timed = profile.timed
    assert timed is not None
    samples = summed(timed.task, timed.weight * 0 + 1, len(profile.tasks)) if len(profile.tasks) else timed.task
    busiest = sorted(samples.nonzero()[0].tolist(), key=lambda task: -int(samples[task]))
    if not busiest:
        return {"threads": [], "thread": NONE}
    thread = busiest[0] if thread == NONE else thread
    if thread >= len(profile.tasks):
        raise BadRequest(f"there is no thread {thread}")
    names, calls = _calls(opened, profile)
    rows = _rows(opened, profile, timed, thread, calls)
    return {
        "threads": [_thread(profile, task, int(samples[task])) for task in busiest[:THREADS_SHOWN]],
        "thread": thread,
        "start_s": float((rows.start[0] - profile.about.monotonic_ns) / 1e9) if len(rows.start) else 0.0,
        "samples": len(rows.start),
        "left_out_samples": int(samples[thread]) - len(rows.start),
        **_boxes(rows, names, opened, _thread(profile, thread, 0)[1]),
    }


def _thread(profile: Profile, task: int, samples: int) -> tuple[int, str, int]:
    found = profile.tasks[task]
    # A process's first thread mostly has its name and its number: they need not be read twice.
    first = (found.process, found.pid) == (found.thread, found.tid)
    return task, group_name(profile, found, "process" if first else "thread"), samples


def _calls(opened: Opened, profile: Profile) -> tuple[list[str], Ints]:
    """The words that marks are, and for each stack the number of its function-like mark behind the functions, or NONE."""
    import numpy as np

    known: dict[str, int] = {}
    used = np.unique(profile.counted.stack).tolist()
    marks = np.full(len(profile.stacks), NONE, dtype=np.int64)
    for stack in used:
        word = profile.mark(stack)
        if word:
            marks[stack] = len(opened.profile.functions) + known.setdefault(word, len(known))
    return list(known), marks


def _rows(opened: Opened, profile: Profile, timed: Timed, thread: int, marks: Ints) -> Rows:
    import numpy as np

    chosen = np.flatnonzero(timed.task == thread)[:MOST_SAMPLES]
    start, stack = timed.time_ns[chosen], timed.stack[chosen]
    steps = np.diff(start)
    period = profile.about.period_ns or (int(np.median(steps)) if len(steps) else 1_000_000)
    longest = int(GAP * max(period, 1))
    end = start + np.append(np.minimum(steps, longest), min(period, longest))
    of = opened.paths
    parts: list[Ints] = []
    for one in stack.tolist():
        # Outermost first, and before everything why the stack is not whole.
        calls = profile.entries.function[of.entries[of.start[one] : of.start[one + 1]]][::-1]
        parts.append(calls if marks[one] == NONE else np.concatenate((marks[one : one + 1], calls)))
    length = np.array([len(part) for part in parts], dtype=np.int64)
    first = np.cumsum(length) - length
    apart = np.concatenate((np.ones(min(len(start), 1), dtype=bool), steps > longest))
    return Rows(start, end, first, length, np.concatenate(parts) if parts else start, apart)


def _boxes(rows: Rows, marks: list[str], opened: Opened, title: str) -> Json:
    """Columns as a tree has them, with `left` beside them: boxes of a level need not touch."""
    import numpy as np

    base = len(opened.profile.functions)
    origin = rows.start[0] if len(rows.start) else np.int64(0)
    whole = int(rows.end.max() - origin) if len(rows.end) else 0
    columns: dict[str, list[Ints]] = {"parent": [], "function": [], "left": [], "total": [], "own": []}
    begin, above, offset = rows.apart, np.zeros(len(rows.start), dtype=np.int64), 1
    before = np.full(len(rows.start), NONE, dtype=np.int64)
    for depth in range(int(rows.length.max()) if len(rows.length) else 0):
        active = rows.length > depth
        function = np.where(active, rows.calls[np.minimum(rows.first + depth, len(rows.calls) - 1)], NONE)
        before[1:] = function[:-1]
        # A call goes on when its callers did, and the sample before was in it too.
        begin = active & (begin | (function != before))
        number = np.cumsum(begin) - 1
        heads = np.flatnonzero(begin)
        last = np.zeros(len(heads), dtype=np.int64)
        last[number[active]] = np.flatnonzero(active)
        columns["parent"].append(offset + np.arange(len(heads)) - above[heads])
        columns["function"].append(function[heads])
        columns["left"].append(rows.start[heads] - origin)
        columns["total"].append(rows.end[last] - rows.start[heads])
        leaf = rows.length == depth + 1
        columns["own"].append(summed(number[leaf], (rows.end - rows.start)[leaf], len(heads)))
        above = np.where(active, offset + number, 0)
        offset += len(heads)
    joined = {name: np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64) for name, parts in columns.items()}
    used, places = np.unique(joined["function"], return_inverse=True)
    micro = {name: [first, *(joined[name] // MICRO).tolist()] for name, first in (("left", 0), ("total", whole // MICRO), ("own", 0))}
    return {
        **_names(opened, used.tolist(), base, marks, title),
        "parent": [0, *joined["parent"].tolist()],
        "function": [len(used), *places.tolist()],
        **micro,
        "left_out": 0,
    }


def _names(opened: Opened, used: list[int], base: int, marks: list[str], title: str) -> Json:
    profile = opened.profile
    functions = [profile.functions[index] if index < base else None for index in used]
    words = [marks[index - base] if index >= base else "" for index in used]
    pairs = list(zip(functions, words, strict=True))
    return {
        "name": [*(function.name if function else word for function, word in pairs), title],
        "module": [
            *("" if function is None or function.module == NONE else profile.modules[function.module].path for function in functions),
            "",
        ],
        "kind": [*(kind_of(profile, function) if function else _kind(word) for function, word in pairs), "group"],
        "place": [*(opened.place(index) if index < base else "" for index in used), ""],
    }


def _kind(word: str) -> str:
    return "group" if word.startswith(NO_USER_STACK[:-1]) else "mark"
