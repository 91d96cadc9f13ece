"""A filter as SQL, and the part of it that looks into stacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from unspool.profile.columns import NONE, Profile
from unspool.profile.filters import Filter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def where(only: Filter, machines: Sequence[int | None]) -> tuple[str, list[object]]:
    """The condition on `samples`, joined with stacks `s`, processes `p`, threads `t` and `recording`, and its parameters.

    `machines` are the guests that may pass; None among them is this host.
    """
    conditions: list[str] = []
    parameters: list[object] = []

    def any_of(test: str, values: Iterable[object]) -> None:
        chosen = list(values)
        if chosen:
            conditions.append("(" + " OR ".join([test] * len(chosen)) + ")")
            parameters.extend(value for value in chosen for _ in range(test.count("?")))

    any_of("p.pid = ?", only.pids)
    any_of("t.tid = ?", only.tids)
    any_of("p.comm GLOB ? OR t.comm GLOB ?", only.comms)
    any_of("trigger GLOB ? OR trigger || ':' || detail GLOB ?", only.triggers)
    any_of("cpu = ?", only.cpus)
    any_of("s.verdict = ?", (verdict.label for verdict in only.verdicts))
    any_of("s.ending = ?", only.endings)
    any_of("s.stop = ?", (stop.label for stop in only.stops))
    any_of("vcpu = ?", only.vcpus)
    any_of("p.cgroup GLOB ? OR p.cgroup GLOB (? || '/*')", only.cgroups)
    any_of("(s.kernel_frames > 0) = (? = 'kernel')", only.modes)
    if only.guests or only.kernels:
        any_of("p.guest IS NOT DISTINCT FROM ?", machines)
        conditions += [] if machines else ["false"]
    any_of("time_ns >= monotonic_ns + ?", _nanoseconds(only.since))
    any_of("time_ns < monotonic_ns + ?", _nanoseconds(only.until))
    return " AND ".join(conditions) or "true", parameters


def matching_modules(profile: Profile, patterns: Iterable[str]) -> NDArray[np.bool_]:
    """For each stack whether one of its frames lies in a module that a pattern names, by path or by file name."""
    import numpy as np

    patterns = tuple(patterns)
    wanted = [any(fnmatchcase(name, pattern) for pattern in patterns for name in (module.path, module.name)) for module in profile.modules]
    in_module = np.array([*wanted, False])
    hits = np.concatenate(([0], np.cumsum(in_module[profile.frames.module[profile.stacks.frames]])))
    counts = hits[profile.stacks.start]
    found: NDArray[np.bool_] = counts[1:] > counts[:-1]
    return found


def _nanoseconds(seconds: float | None) -> list[int]:
    return [] if seconds is None else [round(seconds * 1e9)]


assert NONE == -1, "matching_modules looks up NONE at the end of its table"
