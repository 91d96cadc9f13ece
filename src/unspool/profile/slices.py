"""A profile of single samples cut into pieces along time, each with the stacks and threads of its own samples only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from unspool.profile.arrays import grouped, spans, summed
from unspool.profile.columns import About, Counted, Profile, Stacks, Timed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


def slices(profile: Profile, most: int) -> Iterator[Profile]:
    """The profile in pieces of at most `most` samples, in order of time; the counters of what was lost stay with the first.

    `profile.timed` must be there. Every sample is in exactly one piece.
    """
    timed = profile.timed
    assert timed is not None, "only single samples can be cut along time"
    for start in range(0, len(timed), most):
        yield piece(profile, start, min(start + most, len(timed)))


def piece(profile: Profile, start: int, end: int) -> Profile:
    """The samples from number `start` to before `end` of `profile.timed`, with its stretch of time."""
    timed = profile.timed
    assert timed is not None, "only single samples can be cut along time"
    rows = slice(start, end)
    used, stack = grouped(timed.stack[rows])
    tasks, task = grouped(timed.task[rows])
    own = Timed(
        time_ns=timed.time_ns[rows],
        cpu=timed.cpu[rows],
        vcpu=timed.vcpu[rows],
        task=task,
        event=timed.event[rows],
        stack=stack,
        weight=timed.weight[rows],
    )
    return replace(
        profile,
        about=_about(profile.about, timed, start, end),
        tasks=tuple(profile.tasks[int(number)] for number in tasks),
        stacks=_stacks(profile.stacks, used),
        counted=counted(own),
        timed=own,
    )


def _about(about: About, timed: Timed, start: int, end: int) -> About:
    """The piece's stretch of time: pieces follow each other without a gap, the first and the last reach to the profile's ends."""
    first = about.monotonic_ns if start == 0 else int(timed.time_ns[start])
    whole = about.monotonic_ns + round(about.duration_s * 1e9)
    last = max(whole, int(timed.time_ns[-1]) + 1) if end == len(timed) else int(timed.time_ns[end])
    moved = first - about.monotonic_ns
    lost = about.lost if start == 0 else 0
    return replace(about, started_ns=about.started_ns + moved, monotonic_ns=first, duration_s=max(last - first, 0) / 1e9, lost=lost)


def _stacks(stacks: Stacks, used: Ints) -> Stacks:
    import numpy as np

    lengths = (stacks.start[1:] - stacks.start[:-1])[used]
    start = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths)))
    frames = stacks.frames[spans(stacks.start[:-1][used], lengths)]
    rest = ("kernel_frames", "stop", "stop_module", "verdict", "reason", "bad", "kernel_end")
    return Stacks(start, frames, *(getattr(stacks, name)[used] for name in rest))


def counted(timed: Timed) -> Counted:
    """How often each stack stands among single samples, by thread, event and virtual CPU."""
    import numpy as np

    columns = {"task": timed.task, "event": timed.event, "stack": timed.stack, "vcpu": timed.vcpu + 1}
    key = np.zeros(len(timed), dtype=np.int64)
    sizes = {name: int(column.max()) + 1 if len(column) else 1 for name, column in columns.items()}
    for name, column in columns.items():
        key = key * sizes[name] + column
    keys, places = grouped(key)
    count, weight = np.bincount(places, minlength=len(keys)), summed(places, timed.weight, len(keys))
    found = {}
    for name in reversed(columns):
        keys, found[name] = np.divmod(keys, sizes[name])
    return Counted(found["task"], found["event"], found["stack"], found["vcpu"] - 1, count, weight)
