"""What the page shows, as JSON: each function here answers one address below /api/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from unspool.model.explain import explain
from unspool.model.verdict import Stop, Verdict
from unspool.profile.arrays import numbered, summed
from unspool.profile.columns import NONE, Profile, Task, Timed, ending_of
from unspool.profile.filters import MODES
from unspool.profile.paths import function_totals
from unspool.profile.quality import Cause, quality
from unspool.profile.tree import group_name
from unspool.web.machines import by_vcpu, counted, function_machines, machine_choices, machine_quality, numbers
from unspool.web.opened import Opened
from unspool.web.query import ENDINGS
from unspool.web.selection import NANO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

Json = dict[str, object]
Series = Literal["verdict", "ending", "process", "cpu", "trigger", "guest", "vcpu", "mode", "cgroup"]
SERIES_SHOWN = 8
"""How many processes a timeline tells apart; the others are one series."""


def summary(opened: Opened, profile: Profile) -> Json:
    """Where the recording comes from, how many samples pass the filter, and how complete they are."""
    about, found = profile.about, quality(profile)
    return {
        "name": opened.name,
        "samples": found.samples,
        "all_samples": opened.profile.samples,
        "weight": profile.weight,
        "lost": about.lost,
        "duration_s": about.duration_s,
        "started_ns": str(about.started_ns),
        "finished": about.finished,
        "trigger": about.trigger,
        "frequency": about.frequency,
        "command": about.command,
        "hostname": about.hostname,
        "kernel": about.kernel,
        "arch": about.arch,
        "cpus": about.cpus,
        "machine": about.machine,
        "guests": [guest.label for guest in profile.guests],
        "whole": found.whole,
        "cut": found.cut,
        "none": found.none,
        "unknown": found.unknown,
        "verdicts": {verdict.label: count for verdict, count in found.verdicts.items()},
    }


def choices(opened: Opened) -> Json:
    """What the filters can be set to, with the samples behind each value, most first."""
    profile = opened.profile
    timed, stacks = profile.timed, profile.stacks
    assert timed is not None
    by_task = summed(timed.task, timed.weight * 0 + 1, len(profile.tasks))
    by_event = summed(timed.event, timed.weight * 0 + 1, len(profile.events))
    by_stack = summed(timed.stack, timed.weight * 0 + 1, len(stacks))
    tasks = list(zip(profile.tasks, by_task.tolist(), strict=True))
    stops = list(zip(stacks.stop.tolist(), by_stack.tolist(), strict=True))
    verdicts = zip(stacks.verdict.tolist(), by_stack.tolist(), strict=True)
    return {
        **machine_choices(profile, timed, tasks, by_stack),
        "comm": counted((task.process, count) for task, count in tasks),
        "pid": counted((f"{task.pid} {task.process}", count) for task, count in tasks),
        "tid": counted((f"{task.tid} {task.thread}", count) for task, count in tasks),
        "cpu": numbers(timed.cpu),
        "on": counted((str(event), count) for event, count in zip(profile.events, by_event.tolist(), strict=True)),
        "module": counted(_modules(opened, by_stack)),
        "verdict": counted((Verdict(verdict).label, count) for verdict, count in verdicts),
        "ending": counted((ending_of(Stop(stop)), count) for stop, count in stops),
        "stop": counted((Stop(stop).label, count) for stop, count in stops),
    }


def functions(opened: Opened, profile: Profile) -> Json:
    """Every function with what it ran itself and with what it called, as columns, those that ran most first."""
    import numpy as np

    totals = function_totals(profile, opened.paths)
    order = np.lexsort((-totals.total, -totals.own))
    order = order[totals.total[order] > 0]
    return {
        **opened.names(order.tolist()),
        "own": totals.own[order].tolist(),
        "total": totals.total[order].tolist(),
        "machine": function_machines(opened, profile, order.tolist()) if profile.guests else [],
        "weight": profile.weight,
    }


def timeline(opened: Opened, profile: Profile, by: Series, bins: int) -> Json:
    """Samples over the whole recording in that many equal parts, one row for each series."""
    import numpy as np

    timed = profile.timed
    assert timed is not None
    labels, series = _series(profile, timed, by)
    seconds = (timed.time_ns - profile.about.monotonic_ns) / NANO
    # The samples' clock starts before sampling does, so the last ones may lie beyond the duration.
    length = max(profile.about.duration_s, _end(opened.profile), 1e-6)
    places = np.clip((seconds / length * bins).astype(np.int64), 0, bins - 1)
    counts = np.bincount(series * bins + places, minlength=len(labels) * bins).reshape(len(labels), bins)
    return {
        "duration_s": length,
        "bins": bins,
        "series": [{"name": label, "counts": row} for label, row in zip(labels, counts.tolist(), strict=True)],
    }


def data_quality(opened: Opened, profile: Profile) -> Json:
    """How much is proved, assumed and cut; why, where, what it costs in samples, and what mends it."""
    found = quality(profile)
    stacks = profile.stacks
    samples = summed(profile.counted.stack, profile.counted.count, len(stacks))
    reliable = stacks.verdict == int(Verdict.RELIABLE)
    return {
        "samples": found.samples,
        "lost": profile.about.lost,
        "counters": {name: value for name, value in profile.about.counters.items() if name.startswith("lost") and value},
        "proved": int(samples[stacks.is_whole & reliable].sum()),
        "assumed": int(samples[stacks.is_whole & ~reliable].sum()),
        "cut": found.cut,
        "none": found.none,
        "unknown": found.unknown,
        "causes": [_cause(cause) for cause in found.causes],
        "reasons": [_reason(stop, count) for stop, count in found.reasons.items()],
        "unnamed": _unnamed(opened, profile),
        "machines": machine_quality(profile) if profile.guests else [],
    }


def _end(profile: Profile) -> float:
    """Seconds from the start to the last sample."""
    timed = profile.timed
    return float((timed.time_ns[-1] - profile.about.monotonic_ns) / NANO) if timed is not None and len(timed) else 0.0


def _reason(stop: Stop, samples: int) -> Json:
    says = explain(stop)
    return {"stop": stop.label, "samples": samples, "meaning": says.meaning, "advice": says.advice}


def _cause(cause: Cause) -> Json:
    says = explain(cause.stop)
    return {
        "stop": cause.stop.label,
        "ending": ending_of(cause.stop),
        "samples": cause.samples,
        "meaning": says.meaning,
        "advice": says.advice,
        "modules": [{"path": path, "samples": count} for path, count in cause.modules],
    }


def _unnamed(opened: Opened, profile: Profile) -> list[Json]:
    """The modules whose functions have no names, with the weight that ran in such functions and that passed through them."""
    totals = function_totals(profile, opened.paths)
    rows: dict[int, list[int]] = {}
    for index in totals.total.nonzero()[0].tolist():
        function = profile.functions[index]
        if not function.named:
            row = rows.setdefault(function.module, [0, 0, 0])
            row[0] += int(totals.own[index])
            row[1] = max(row[1], int(totals.total[index]))
            row[2] += 1
    ordered = sorted(rows.items(), key=lambda item: (-item[1][0], -item[1][1]))
    return [_unnamed_row(profile, module, row) for module, row in ordered]


def _unnamed_row(profile: Profile, module: int, row: Sequence[int]) -> Json:
    own, most, addresses = row
    counts: Json = {"own": own, "most": most, "addresses": addresses}
    if module == NONE:
        return {
            **counts,
            "path": "",
            "kind": "unknown",
            "build_id": "",
            "advice": "The addresses lie in no file; the stack may be corrupted.",
        }
    found = profile.modules[module]
    match found.kind:
        case "jit" | "anon":
            advice = (
                "Code made at run time: make the runtime write a perf map (node --perf-basic-prof, java with perf-map-agent) or a jitdump."
            )
        case "kernel" if found.path.startswith("[guest."):
            advice = "Give the guest's kallsyms, System.map or vmlinux: upload it on this page, or name it when recording."
        case "kernel":
            advice = "Record as root or with CAP_SYSLOG, so that /proc/kallsyms shows addresses."
        case _:
            advice = "Install this file's debug symbols (the -dbgsym or -dbg package, or set DEBUGINFOD_URLS), and record again."
    return {**counts, "path": found.path, "kind": found.kind, "build_id": found.build_id, "advice": advice}


def _modules(opened: Opened, by_stack: Ints) -> list[tuple[str, int]]:
    """The samples whose stack passes through each module."""
    import numpy as np

    from unspool.profile.arrays import distinct

    profile = opened.profile
    size = len(profile.modules) + 1
    lengths = np.diff(profile.stacks.start)
    owner = np.repeat(np.arange(len(profile.stacks), dtype=np.int64), lengths)
    pairs = distinct(owner * size + profile.frames.module[profile.stacks.frames] + 1)
    counts = summed(pairs % size, by_stack[pairs // size], size)
    return [(module.path, count) for module, count in zip(profile.modules, counts.tolist()[1:], strict=True)]


def _series(profile: Profile, timed: Timed, by: Series) -> tuple[list[str], Ints]:
    """The names of the series, largest first, and the series of each sample."""
    import numpy as np

    match by:
        case "verdict":
            names, places = [verdict.label for verdict in Verdict], profile.stacks.verdict[timed.stack]
        case "ending":
            names = list(ENDINGS)
            ending = np.zeros(max(Stop) + 1, dtype=np.int64)
            ending[list(Stop)] = [names.index(ending_of(stop)) for stop in Stop]
            places = ending[profile.stacks.stop[timed.stack]]
        case "cpu":
            cpus = sorted(set(timed.cpu.tolist()))
            names = [f"CPU {cpu}" if cpu != NONE else "CPU not known" for cpu in cpus]
            places = np.searchsorted(np.array(cpus, dtype=np.int64), timed.cpu)
        case "trigger":
            names, places = [str(event) for event in profile.events], timed.event
        case "process":
            names, places = _by_task(profile, timed, lambda task: group_name(profile, task, "comm"))
        case "guest":
            names, places = _by_task(profile, timed, profile.machine_name)
        case "cgroup":
            names, places = _by_task(profile, timed, lambda task: task.cgroup or "not known")
        case "vcpu":
            names, places = _by_task(profile, timed, profile.machine_name)
            names, places = by_vcpu(names, places, timed)
        case "mode":
            names, places = list(MODES), profile.stacks.is_kernel.astype(np.int64)[timed.stack]
    counts = np.bincount(places, minlength=len(names))
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    shown = order if by == "cpu" else order[:SERIES_SHOWN]
    if by == "cpu":
        shown.sort()
    rank = np.full(max(len(names), 1), len(shown), dtype=np.int64)
    rank[shown] = np.arange(len(shown))
    labels = [names[index] for index in shown] + (["others"] if len(order) > len(shown) else [])
    return labels, rank[places]


def _by_task(profile: Profile, timed: Timed, name: Callable[[Task], str]) -> tuple[list[str], Ints]:
    of_task, names = numbered(name(task) for task in profile.tasks)
    return names, of_task[timed.task]
