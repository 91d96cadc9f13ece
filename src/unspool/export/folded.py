"""Folded stacks: a line a call path, root first, `comm;main;f 12`. Read by flamegraph.pl, inferno, speedscope and the Firefox Profiler.

Lost: time, threads (choose `--by thread` to keep them), lines, inlining, trust. The verdict is the mark below the root.
"""

from __future__ import annotations

from collections.abc import Iterator

from unspool.export.options import Options, marks_of, one_line
from unspool.export.pieces import Pieces
from unspool.profile.arrays import grouped, summed
from unspool.profile.columns import Profile
from unspool.profile.paths import paths
from unspool.profile.tree import groups_of


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The lines, sorted; equal paths are one line."""
    weights = _weights(profile, options)
    lines = [f"{path or 'all'} {weight}\n" for (path, _), weight in weights.items() if weight]
    weights.clear()
    lines.sort()
    for start in range(0, len(lines), 10_000):
        yield "".join(lines[start : start + 10_000]).encode()


def _weights(profile: Profile, options: Options) -> dict[tuple[str, bytes], int]:
    """The weight of each path: its text, and its functions, because two functions may have one name."""
    import numpy as np

    counted, found = profile.counted, paths(profile)
    groups, ways = groups_of(profile, options.by, counted.task, counted.vcpu)
    size = max(len(profile.stacks), 1)
    keys, places = grouped(groups * size + counted.stack)
    stacks, weight = keys % size, summed(places, counted.weight, len(keys))
    numbers = profile.entries.function[found.entries]
    functions = numbers.astype(np.int32)
    names = Pieces(found.start, numbers, [_name(function.name) for function in profile.functions])
    marks, starts = [_name(mark) for mark in marks_of(profile, options)], found.start.tolist()
    above = [[_name(name) for name in way] for way in ways]
    weights: dict[tuple[str, bytes], int] = {}
    for group, stack, calls, value in zip((keys // size).tolist(), stacks.tolist(), names.of(stacks), weight.tolist(), strict=True):
        outer = [*above[group], marks[stack]] if marks[stack] else above[group]
        path = (";".join([*outer, *reversed(calls)]), functions[starts[stack] : starts[stack + 1]].tobytes())
        weights[path] = weights.get(path, 0) + value
    return weights


def _name(name: str) -> str:
    # A semicolon ends a frame in this format and cannot be escaped.
    return one_line(name).replace(";", ":")
