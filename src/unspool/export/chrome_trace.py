"""Chrome trace events (`.trace.json`), for ui.perfetto.dev, chrome://tracing and speedscope: each thread's stacks on a line of time.

A sample stands for one period; calls that go on from sample to sample are one box. The innermost box has the verdict in its arguments,
a mark is the outermost box of a stack that is not whole. A guest's processes are called `guest:NAME process`, and ten million times the
guest's number is added to their ids. Lost: trust.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from unspool.export.options import Options, pid_of, stack_labels
from unspool.profile.columns import Profile, Task, Timed
from unspool.profile.paths import paths
from unspool.profile.tree import group_name

WITHOUT_PERIOD_NS = 1_000_000
"""How long a sample of an event is drawn: events have no length of their own."""


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The object form, ASCII JSON, events of one thread together and in order of time (microseconds from the start of the recording)."""
    import numpy as np

    timed = profile.timed
    assert timed is not None, "this format needs the time of single samples"
    yield b'{"displayTimeUnit": "ms", "traceEvents": [\n'
    yield ",\n".join(json.dumps(event) for event in _names(profile)).encode()
    drawing = _Drawing(profile, options)
    for task in np.unique(timed.task).tolist():
        for events in batched(drawing.thread(task, timed)):
            yield b",\n" + ",\n".join(events).encode()
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


@dataclass
class _Drawing:
    """Turns samples into begins and ends."""

    profile: Profile
    options: Options
    known: dict[int, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = paths(self.profile)
        self._starts, self._calls = found.start.tolist(), found.entries.tolist()
        self._functions = self.profile.entries.function.tolist()
        # Each is written many times: as JSON from here on.
        self._words = [json.dumps(function.name) for function in self.profile.functions]
        self._labels = [f', "args": {json.dumps(dict(labels.items()))}' for labels in stack_labels(self.profile)]

    def thread(self, task: int, timed: Timed) -> Iterator[str]:
        """The events of one thread."""
        import numpy as np

        who = json.dumps(_who(self.profile.tasks[task])).strip("{}")
        rows = np.flatnonzero(timed.task == task)
        times = ((timed.time_ns[rows] - self.profile.about.monotonic_ns) / 1000).tolist()
        stacks = timed.stack[rows].tolist()
        length = (self.profile.about.period_ns or WITHOUT_PERIOD_NS) / 1000
        open_stack: Sequence[str] = ()
        for index, (start, stack) in enumerate(zip(times, stacks, strict=True)):
            names = self._names(stack)
            common = _common(open_stack, names)
            yield from (_end(who, start, name) for name in reversed(open_stack[common:]))
            for depth in range(common, len(names)):
                arguments = self._labels[stack] if depth == len(names) - 1 else ""
                yield _begin(who, start, names[depth], arguments)
            open_stack = names
            end = start + length
            if index + 1 == len(times) or times[index + 1] > end + length / 2:
                yield from (_end(who, end, name) for name in reversed(open_stack))
                open_stack = ()

    def _names(self, stack: int) -> list[str]:
        """The stack's names as JSON, outermost first."""
        if stack not in self.known:
            mark = self.profile.mark(stack) if self.options.marks else ""
            calls = self._calls[self._starts[stack] : self._starts[stack + 1]]
            names = [self._words[self._functions[call]] for call in reversed(calls)]
            self.known[stack] = [json.dumps(mark), *names] if mark else names
        return self.known[stack]


def batched(events: Iterator[str]) -> Iterator[list[str]]:
    """The events in lists of ten thousand."""
    while block := list(islice(events, 10_000)):
        yield block


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    """How many of the outermost names are the same."""
    for depth, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return depth
    return min(len(left), len(right))


def _begin(who: str, time: float, name: str, arguments: str) -> str:
    return f'{{"ph": "B", {who}, "ts": {time:.3f}, "cat": "sample", "name": {name}{arguments}}}'


def _end(who: str, time: float, name: str) -> str:
    return f'{{"ph": "E", {who}, "ts": {time:.3f}, "name": {name}}}'
