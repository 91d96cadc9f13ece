"""Chrome trace events (`.trace.json`), for ui.perfetto.dev, chrome://tracing and speedscope: each thread's stacks on a line of time.

A sample stands for one period; calls that go on from sample to sample are one box. The innermost box has the verdict in its arguments,
a mark is the outermost box of a stack that is not whole. A guest's processes are called `guest:NAME process`, and ten million times the
guest's number is added to their ids. Lost: trust.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from unspool.export.options import Options, kinds_of_labels, marks_of, pid_of
from unspool.export.pieces import Pieces, in_common, rows_of_each
from unspool.profile.columns import Profile, Task, Timed
from unspool.profile.paths import paths
from unspool.profile.tree import group_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 1000
"""How many pieces of text are sent together."""
WITHOUT_PERIOD_NS = 1_000_000
"""How long a sample of an event is drawn: events have no length of their own."""


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The object form, ASCII JSON, events of one thread together and in order of time (microseconds from the start of the recording)."""
    timed = profile.timed
    assert timed is not None, "this format needs the time of single samples"
    yield b'{"displayTimeUnit": "ms", "traceEvents": [\n'
    yield ",\n".join(json.dumps(event) for event in _names(profile)).encode()
    drawing = _Drawing(profile, options)
    for task, rows in rows_of_each(timed.task):
        yield from drawing.thread(task, timed, rows)
    about = profile.about
    other = {"machine": f"{about.hostname}, Linux {about.kernel} {about.arch}", "command": about.command, "lost_samples": about.lost}
    yield f'\n], "otherData": {json.dumps(other)}}}\n'.encode()


def _names(profile: Profile) -> Iterator[dict[str, object]]:
    """What processes and threads are called."""
    yield {"ph": "M", "ts": 0, "name": "trace_name", "pid": 0, "tid": 0, "args": {"name": profile.about.command or profile.about.hostname}}
    for task in profile.tasks:
        yield {"ph": "M", "ts": 0, "name": "process_name", **_who(task), "args": {"name": group_name(profile, task, "comm")}}
        yield {"ph": "M", "ts": 0, "name": "thread_name", **_who(task), "args": {"name": task.thread}}


def _who(task: Task) -> dict[str, int]:
    # A reader may know a thread by its id alone.
    return {"pid": pid_of(task), "tid": pid_of(replace(task, pid=task.tid))}


class _Drawing:
    """Turns samples into begins and ends. Text that occurs often is made once, so that an event costs no more than joining it."""

    def __init__(self, profile: Profile, options: Options) -> None:
        self._profile = profile
        found = paths(profile)
        words = [json.dumps(function.name) for function in profile.functions]
        self._names = Pieces(found.start, profile.entries.function[found.entries], words)
        self._marks = [json.dumps(mark) if mark else "" for mark in marks_of(profile, options)]
        self._kinds, kinds = kinds_of_labels(profile)
        self._arguments = [f', "args": {json.dumps(dict(kind.items()))}' for kind in kinds]
        self._known: dict[int, list[str]] = {}

    def thread(self, task: int, timed: Timed, rows: NDArray[np.int64]) -> Iterator[bytes]:
        """The events of one thread, each with the comma and line end that stand before it."""
        who = json.dumps(_who(self._profile.tasks[task])).strip("{}")
        begin, end = (f',\n{{"ph": "{phase}", {who}, "ts": ' for phase in "BE")
        times = ((timed.time_ns[rows] - self._profile.about.monotonic_ns) / 1000).tolist()
        stacks = timed.stack[rows].tolist()
        length = (self._profile.about.period_ns or WITHOUT_PERIOD_NS) / 1000
        opened: Sequence[str] = ()
        text: list[str] = []
        for index, (start, stack) in enumerate(zip(times, stacks, strict=True)):
            names = self._stack(stack)
            common = in_common(opened, names)
            text.append(_ends(f"{end}{start:.3f}", opened[common:]))
            text.append(_begins(f"{begin}{start:.3f}", names[common:], self._arguments[self._kinds[stack]]))
            opened, until = names, start + length
            if index + 1 == len(times) or times[index + 1] > until + length / 2:
                text.append(_ends(f"{end}{until:.3f}", opened))
                opened = ()
            if len(text) >= BATCH:
                yield "".join(text).encode()
                text.clear()
        yield "".join(text).encode()

    def _stack(self, stack: int) -> list[str]:
        """The stack's names as JSON, outermost first."""
        if stack not in self._known:
            mark = self._marks[stack]
            names = self._names[stack] + ([mark] if mark else [])
            names.reverse()
            self._known[stack] = names
        return self._known[stack]


def _begins(head: str, names: Sequence[str], arguments: str) -> str:
    """Begins of calls, outermost first; the innermost has the arguments."""
    if not names:
        return ""
    lead = f'{head}, "cat": "sample", "name": '
    return f"{lead}{f'}}{lead}'.join(names)}{arguments}}}"


def _ends(head: str, names: Sequence[str]) -> str:
    """Ends of calls, given outermost first, innermost first."""
    if not names:
        return ""
    lead = f'{head}, "name": '
    return f"{lead}{f'}}{lead}'.join(reversed(names))}}}"
