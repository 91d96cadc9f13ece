"""speedscope's own format (`.speedscope.json`): samples in order of time, one profile for each group (`--by`).

A mark is the outermost frame of a stack that is not whole. Lost: pid and tid unless `--by thread`, modules of named functions, trust.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import unspool
from unspool.export.options import Options, marks_of
from unspool.export.pieces import Pieces
from unspool.export.strings import Numbered
from unspool.profile.arrays import distinct
from unspool.profile.columns import NONE, Profile, Timed
from unspool.profile.paths import paths
from unspool.profile.tree import groups_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
Frame = tuple[str, str, int]


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The file, as ASCII JSON."""
    timed = profile.timed
    assert timed is not None, "this format needs the time of single samples"
    frames: Numbered[Frame] = Numbered()
    stacks = _stacks(profile, options, frames, distinct(timed.stack))
    head = {
        "$schema": SCHEMA,
        "exporter": f"unspool@{unspool.__version__}",
        "name": options.title or profile.about.command or profile.about.hostname,
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(*frame) for frame in frames.things]},
    }
    yield json.dumps(head).removesuffix("}").encode() + b', "profiles": ['
    lead = b""
    for name, rows in _groups(profile, timed, options):
        yield lead
        yield from _profile(profile, timed, name, rows, stacks)
        lead = b",\n"
    yield b"]}\n"


def _frame(name: str, file: str, line: int) -> dict[str, object]:
    frame: dict[str, object] = {"name": name}
    if file:
        frame["file"] = file
    if line:
        frame["line"] = line
    return frame


def _stacks(profile: Profile, options: Options, frames: Numbered[Frame], used: NDArray[np.int64]) -> dict[int, str]:
    """Each stack that is used as JSON: the numbers of its frames, outermost first."""
    found = paths(profile)
    entries = profile.entries
    columns = zip(entries.function.tolist(), entries.file.tolist(), entries.line.tolist(), strict=True)
    names, files = profile.functions, profile.files
    numbers = [frames.number((names[function].name, files[file] if file != NONE else "", line)) for function, file, line in columns]
    calls = Pieces(found.start, found.entries, [str(number) for number in numbers])
    marks = marks_of(profile, options)
    stacks = {}
    for stack, texts in zip(used.tolist(), calls.of(used), strict=True):
        outermost = [str(frames.number((marks[stack], "", 0)))] if marks[stack] else []
        stacks[stack] = f"[{', '.join([*outermost, *reversed(texts)])}]"
    return stacks


def _groups(profile: Profile, timed: Timed, options: Options) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each group's name and its samples, the largest group first."""
    import numpy as np

    groups, ways = groups_of(profile, options.by, timed.task, timed.vcpu)
    sizes = np.bincount(groups, minlength=1)
    for group in np.argsort(-sizes, kind="stable").tolist():
        if sizes[group]:
            yield " ".join(ways[group]) or "all", np.flatnonzero(groups == group)
    if not len(timed):
        yield "all", np.zeros(0, dtype=np.int64)


def _profile(profile: Profile, timed: Timed, name: str, rows: NDArray[np.int64], stacks: dict[int, str]) -> Iterator[bytes]:
    """One group's samples. speedscope lays them one after the other, each as wide as its weight."""
    period = profile.about.period_ns
    weights = timed.weight[rows] * (period or 1)
    head = {"type": "sampled", "name": name, "unit": "nanoseconds" if period else "none", "startValue": 0, "endValue": int(weights.sum())}
    yield json.dumps(head).removesuffix("}").encode() + b', "samples": ['
    numbers = timed.stack[rows].tolist()
    for start in range(0, len(numbers), 10_000):
        yield ("," if start else "").encode() + ",\n".join(stacks[number] for number in numbers[start : start + 10_000]).encode()
    yield b'], "weights": ' + json.dumps(weights.tolist()).encode() + b"}"
