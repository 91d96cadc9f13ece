"""What tells guests apart on the page: their filters, their series, their part of the data quality, and where functions ran."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from unspool.model.guest import HOST
from unspool.profile.arrays import distinct, grouped, numbered, spans, summed
from unspool.profile.columns import NONE, Profile, Task, Timed
from unspool.profile.filters import MODES
from unspool.profile.rows import machines
from unspool.web.opened import Opened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

Json = dict[str, object]
NAMES_SHOWN = 3
"""How many machines of a function are named; of more only their number is said."""


def machine_choices(profile: Profile, timed: Timed, tasks: list[tuple[Task, int]], by_stack: Ints) -> dict[str, list[list[object]]]:
    """What tells guests apart; nothing in a recording of this host alone."""
    modes = zip(profile.stacks.is_kernel.tolist(), by_stack.tolist(), strict=True)
    found = {
        "cgroup": counted((task.cgroup, count) for task, count in tasks if task.cgroup),
        "mode": counted((MODES[is_kernel], count) for is_kernel, count in modes),
    }
    if not profile.guests:
        return found
    return found | {
        "guest": counted((_only_name(profile, task), count) for task, count in tasks),
        "vcpu": numbers(timed.vcpu),
        "kernel": counted((profile.kernel_of(task), count) for task, count in tasks if profile.kernel_of(task)),
    }


def _only_name(profile: Profile, task: Task) -> str:
    """What a filter takes for this machine and no other: with the number of the boot where there were several."""
    guest = profile.guest_of(task)
    if guest is None or sum(other.title == guest.title for other in profile.guests) == 1:
        return profile.machine_name(task)
    return guest.boot


def by_vcpu(names: list[str], places: Ints, timed: Timed) -> tuple[list[str], Ints]:
    """The same split by virtual CPU; the host has none."""
    size = int(timed.vcpu.max(initial=NONE)) + 2
    keys, series = grouped(places * size + timed.vcpu + 1)
    pairs = [(names[key // size], key % size - 1) for key in keys.tolist()]
    return [name if vcpu == NONE else f"{name} vCPU {vcpu}" for name, vcpu in pairs], series


def function_machines(opened: Opened, profile: Profile, functions: list[int]) -> list[str]:
    """For each of those functions on which machines it was on a stack."""
    import numpy as np

    machine_of, labels = numbered(profile.machine_name(task) for task in profile.tasks)
    of, stacks = opened.paths, len(profile.stacks)
    pairs = distinct(machine_of[profile.counted.task] * stacks + profile.counted.stack)
    machine, stack = pairs // stacks, pairs % stacks
    lengths = of.lengths[stack]
    places = spans(of.start[:-1][stack], lengths)
    found = distinct(profile.entries.function[of.entries[places]] * len(labels) + np.repeat(machine, lengths))
    rows: dict[int, list[str]] = {}
    for function, number in zip((found // len(labels)).tolist(), (found % len(labels)).tolist(), strict=True):
        rows.setdefault(function, []).append(labels[number])
    return [_few(rows.get(function, [])) for function in functions]


def machine_quality(profile: Profile) -> list[Json]:
    """How much of each machine's samples is whole, and on which of its virtual CPUs they were taken; those with most samples first.

    Of the samples in its kernel, `kernel_whole` of `kernel_known` have a whole kernel part. `choose` is what the filter takes for that
    machine alone.
    """
    return [
        {
            "name": row.guest.label if row.guest else HOST,
            "choose": row.guest.boot if row.guest else HOST,
            "kernel": row.guest.kernel_release if row.guest else profile.about.kernel,
            "by": row.guest.registers_by if row.guest else "",
            "samples": row.samples,
            "whole": row.whole,
            "in_kernel": row.kernel,
            "kernel_known": row.kernel_known,
            "kernel_whole": row.kernel_whole,
            "vcpus": list(row.vcpus.items()),
        }
        for row in machines(profile)
    ]


def counted(pairs: Iterable[tuple[str, int]]) -> list[list[object]]:
    """The sum behind each name, most first.

    >>> counted([("a", 1), ("b", 5), ("a", 1), ("c", 0)])
    [['b', 5], ['a', 2]]
    """
    sums: dict[str, int] = {}
    for name, count in pairs:
        sums[name] = sums.get(name, 0) + count
    return [[name, count] for name, count in sorted(sums.items(), key=lambda item: (-item[1], item[0])) if count]


def numbers(column: Ints) -> list[list[object]]:
    """The numbers of CPUs that are known, with the samples on each."""
    known, rows = grouped(column[column != NONE])
    counts = summed(rows, rows * 0 + 1, len(known))
    return counted((str(number), count) for number, count in zip(known.tolist(), counts.tolist(), strict=True))


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= NAMES_SHOWN else f"{len(names)} machines"
