"""The rows of a report: functions, processes and the call tree of a profile, in the order a reader wants them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.model.guest import Guest
from unspool.profile.arrays import grouped, numbered, summed
from unspool.profile.columns import NONE, Counted, Profile, Task
from unspool.profile.paths import function_totals
from unspool.profile.tree import Grouping, grow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """A function with the weight it ran itself (`own`) and was on the stack (`total`); `module` is a path, empty when there is none."""

    name: str
    module: str
    own: int
    total: int
    named: bool = True


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process with its samples, and how many of them are whole; `guest` is its guest's label, empty on this host."""

    pid: int
    comm: str
    exe: str
    guest: str
    cgroup: str
    samples: int
    whole: int


@dataclass(frozen=True, slots=True)
class MachineRow:
    """A guest, or (None) this host, with its samples: all, whole ones, those in kernel mode, and those of each virtual CPU.

    `kernel_whole` of `kernel_known` samples in kernel mode have a kernel part that leads to the kernel's entry, whatever their user part
    is; of the others (this host's) the kernel does not say it.
    """

    guest: Guest | None
    samples: int
    whole: int
    kernel: int
    kernel_known: int
    kernel_whole: int
    vcpus: dict[int, int]


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A node of the call tree, callers before what they call; `module` is a path, empty for groups and marks."""

    depth: int
    name: str
    module: str
    own: int
    total: int


def functions(profile: Profile) -> list[FunctionRow]:
    """Every function that was on a stack, those that ran most first."""
    import numpy as np

    totals = function_totals(profile)
    order = np.lexsort((-totals.total, -totals.own))
    return [
        FunctionRow(function.name, _path(profile, function.module), int(totals.own[index]), int(totals.total[index]), function.named)
        for index in order[totals.total[order] > 0].tolist()
        for function in (profile.functions[index],)
    ]


def processes(profile: Profile) -> list[ProcessRow]:
    """Every process that was sampled, those with most samples first; one that ran several programs is one row for each."""
    process_of, keys = numbered(_process(profile, task) for task in profile.tasks)
    counted = profile.counted
    places = process_of[counted.task]
    samples = summed(places, counted.count, len(keys)).tolist()
    whole = summed(places, counted.count * profile.stacks.is_whole[counted.stack], len(keys)).tolist()
    rows = [ProcessRow(*key, samples[index], whole[index]) for index, key in enumerate(keys) if samples[index]]
    return sorted(rows, key=lambda row: -row.samples)


def machines(profile: Profile) -> list[MachineRow]:
    """Every machine that was sampled, guests and this host, those with most samples first."""
    import numpy as np

    counted, stacks = profile.counted, profile.stacks
    places = np.array([task.guest + 1 for task in profile.tasks] or [0])[counted.task]
    size = len(profile.guests) + 1
    chosen = (stacks.is_whole, stacks.is_kernel, stacks.kernel_end != NONE, stacks.kernel_end == 1)
    samples = summed(places, counted.count, size).tolist()
    whole, kernel, known, led = (summed(places, counted.count * stack[counted.stack], size).tolist() for stack in chosen)
    vcpus = _vcpus(places, counted, size)
    rows = [
        MachineRow(guest, samples[place], whole[place], kernel[place], known[place], led[place], vcpus[place])
        for place, guest in enumerate((None, *profile.guests))
        if samples[place]
    ]
    return sorted(rows, key=lambda row: -row.samples)


def tree_rows(profile: Profile, by: Grouping, least_percent: float) -> list[TreeRow]:
    """The call tree's nodes that have at least that part of the whole."""
    tree = grow(profile, by=by)
    least = max(int(int(tree.total[0]) * least_percent / 100), 1)
    rows = []
    for node, depth in tree.walk(least=least):
        function = tree.functions[tree.function[node]]
        rows.append(TreeRow(depth, function.name, _path(profile, function.module), int(tree.own[node]), int(tree.total[node])))
    return rows


def _vcpus(places: Ints, counted: Counted, size: int) -> list[dict[int, int]]:
    """For each machine the samples of its virtual CPUs, in their order."""
    width = int(counted.vcpu.max(initial=NONE)) + 1
    of_guests = counted.vcpu != NONE
    keys, rows = grouped((places * width + counted.vcpu)[of_guests])
    sums = summed(rows, counted.count[of_guests], len(keys))
    found: list[dict[int, int]] = [{} for _ in range(size)]
    for key, count in zip(keys.tolist(), sums.tolist(), strict=True):
        found[key // width][key % width] = count
    return found


def _process(profile: Profile, task: Task) -> tuple[int, str, str, str, str]:
    guest = profile.guest_of(task)
    return task.pid, task.process, task.exe, guest.label if guest else "", task.cgroup


def _path(profile: Profile, module: int) -> str:
    return "" if module == NONE else profile.modules[module].path
