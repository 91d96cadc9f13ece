"""The samples of a profile in memory that pass a filter; the same ones that `store.load` chooses in SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeVar

from unspool.model.verdict import Stop
from unspool.profile.arrays import grouped, summed
from unspool.profile.columns import NONE, Counted, Profile, Timed, ending_of
from unspool.profile.filters import Filter
from unspool.store.where import matching_modules

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Marks = NDArray[np.bool_]

T = TypeVar("T")
NANO = 1_000_000_000


def select(profile: Profile, only: Filter) -> Profile:
    """The profile of the samples that pass; `profile` holds single samples (`timed`)."""
    assert profile.timed is not None
    kept = passing(profile, profile.timed, only)
    timed = Timed(*(getattr(profile.timed, name)[kept] for name in Timed.__slots__))
    return replace(profile, counted=_counted(profile, timed), timed=timed)


def passing(profile: Profile, timed: Timed, only: Filter) -> Marks:
    """For each sample whether it passes."""
    import numpy as np

    kept = np.ones(len(timed), dtype=bool)
    for condition, places in (
        (_tasks(profile, only), timed.task),
        (_events(profile, only), timed.event),
        (_stacks(profile, only), timed.stack),
    ):
        if condition is not None:
            kept &= condition[places]
    if only.cpus:
        kept &= np.isin(timed.cpu, only.cpus)
    if only.vcpus:
        kept &= np.isin(timed.vcpu, only.vcpus)
    start = profile.about.monotonic_ns
    if only.since is not None:
        kept &= timed.time_ns >= start + round(only.since * NANO)
    if only.until is not None:
        kept &= timed.time_ns < start + round(only.until * NANO)
    return kept


def _marks(items: Sequence[T], test: Callable[[T], bool]) -> Marks:
    import numpy as np

    return np.array([test(item) for item in items], dtype=bool)


def _tasks(profile: Profile, only: Filter) -> Marks | None:
    if not (only.pids or only.tids or only.comms or only.guests or only.kernels or only.cgroups):
        return None
    return _marks(
        profile.tasks,
        lambda task: (
            (not only.pids or task.pid in only.pids)
            and (not only.tids or task.tid in only.tids)
            and (not only.comms or any(fnmatchcase(name, pattern) for pattern in only.comms for name in (task.process, task.thread)))
            and only.chooses_machine(profile.guest_of(task), profile.kernel_of(task))
            and only.chooses_cgroup(task.cgroup)
        ),
    )


def _events(profile: Profile, only: Filter) -> Marks | None:
    if not only.triggers:
        return None

    def fits(names: tuple[str, str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in only.triggers for name in names)

    return _marks([(event.trigger, f"{event.trigger}:{event.detail}") for event in profile.events], fits)


def _stacks(profile: Profile, only: Filter) -> Marks | None:
    import numpy as np

    if not (only.verdicts or only.endings or only.stops or only.modules or only.modes):
        return None
    stacks = profile.stacks
    kept = np.ones(len(stacks), dtype=bool)
    if only.verdicts:
        kept &= np.isin(stacks.verdict, [int(verdict) for verdict in only.verdicts])
    if only.endings:
        kept &= np.isin(stacks.stop, [int(stop) for stop in Stop if ending_of(stop) in only.endings])
    if only.stops:
        kept &= np.isin(stacks.stop, [int(stop) for stop in only.stops])
    if only.modes:
        kept &= np.isin(stacks.is_kernel, [mode == "kernel" for mode in only.modes])
    if only.modules:
        kept &= matching_modules(profile, only.modules)
    return kept


def _counted(profile: Profile, timed: Timed) -> Counted:
    """The samples counted again, as `Profile.counted` has them."""
    events, stacks = max(len(profile.events), 1), max(len(profile.stacks), 1)
    # NONE, the host's vCPU, is 0 here.
    vcpus = int(timed.vcpu.max(initial=NONE)) + 2
    keys, places = grouped(((timed.task * events + timed.event) * stacks + timed.stack) * vcpus + timed.vcpu + 1)
    size = len(keys)
    keys, vcpu = keys // vcpus, keys % vcpus - 1
    return Counted(
        task=keys // stacks // events,
        event=keys // stacks % events,
        stack=keys % stacks,
        vcpu=vcpu,
        count=summed(places, timed.weight * 0 + 1, size),
        weight=summed(places, timed.weight, size),
    )
