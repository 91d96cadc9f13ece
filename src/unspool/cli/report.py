"""Where the time goes in a recording, and how complete that picture is.

The report names the machine, counts the samples (lost ones too), says what share of them reaches an accepted end, why the others stop
and in which modules, and lists the functions by the time they ran themselves (self) and with everything they called (total).
docs/stop-reasons.md explains every stop.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from unspool.cli.filters import add_filter_arguments, filter_of
from unspool.cli.output import write_lines
from unspool.cli.printable import printable
from unspool.cli.tree_text import tree_lines
from unspool.errors import BadRequest
from unspool.model.guest import HOST, Guest
from unspool.model.percent import percent
from unspool.model.verdict import Stop, Verdict
from unspool.profile.columns import UNKNOWN, About, Profile, ending_of
from unspool.profile.quality import Cause, Quality, quality
from unspool.profile.rows import FunctionRow, MachineRow, ProcessRow, functions, machines, processes, tree_rows
from unspool.profile.tree import GUEST
from unspool.store.load import load
from unspool.store.reader import open_recording

EXAMPLES = """examples:
  unspool report host.unspool                           the whole machine
  unspool report host.unspool --tree --comm nginx       the call tree of one program
  unspool report host.unspool --ending cut              what the samples that are cut have in common
  unspool report guests.unspool --guest web --vcpu 0    one virtual CPU of one guest
  unspool report host.unspool --json                    the same for programs
"""
TOP = 20
MODULES_SHOWN = 5
VCPUS_SHOWN = 8
NAME_WIDTH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", metavar="FILE", help="a recording")
    parser.add_argument("--json", action="store_true", help="print JSON; it holds every function unless --top is given")
    parser.add_argument("--tree", action="store_true", help="print the call tree too")
    parser.add_argument(
        "--by",
        choices=["none", "comm", "process", "thread", "guest", "vcpu"],
        default="comm",
        help="what the tree begins with (default: comm)",
    )
    parser.add_argument("--least", metavar="PERCENT", type=float, default=0.5, help="leave smaller parts of the tree out (default: 0.5)")
    parser.add_argument("-n", "--top", metavar="N", type=int, help=f"how many functions and processes (default: {TOP})")
    add_filter_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the report."""
    if arguments.top is not None and arguments.top < 0:
        raise BadRequest("--top takes a number from 0 on")
    with open_recording(arguments.file) as recording:
        profile = load(recording, filter_of(arguments))
    if arguments.json:
        json.dump(as_json(profile, arguments), sys.stdout)
        sys.stdout.write("\n")
        sys.stdout.flush()
    else:
        write_lines(lines(profile, arguments))
    return 0


def as_json(profile: Profile, arguments: argparse.Namespace) -> dict[str, object]:
    """The report as an object."""
    about, found = profile.about, quality(profile)
    report: dict[str, object] = {
        "samples": found.samples,
        "weight": profile.weight,
        "lost": about.lost,
        "duration_s": about.duration_s,
        "finished": about.finished,
        "started": _time(about.started_ns),
        "trigger": about.trigger,
        "frequency": about.frequency,
        "command": about.command,
        "machine": {"hostname": about.hostname, "kernel": about.kernel, "arch": about.arch, "cpus": about.cpus, **about.machine},
        "whole": found.whole,
        "whole_share": found.stack_share(found.whole),
        "cut": found.cut,
        "none": found.none,
        "unknown": found.unknown,
        "verdicts": {verdict.label: count for verdict, count in found.verdicts.items()},
        "reasons": {reason.label: count for reason, count in found.reasons.items()},
        "stops": {cause.stop.label: cause.samples for cause in found.causes},
        "causes": [_cause_json(cause) for cause in found.causes],
        "counters": about.counters,
        "processes": [
            {name: getattr(row, name) for name in ("pid", "comm", "exe", "guest", "cgroup", "samples", "whole")}
            for row in processes(profile)[: arguments.top]
        ],
        "guests": [_machine_json(row) for row in machines(profile) if row.guest],
        "functions": [
            {"function": row.name, "module": row.module, "self": row.own, "total": row.total} for row in functions(profile)[: arguments.top]
        ],
    }
    if arguments.tree:
        report["tree"] = [
            {"depth": row.depth, "function": row.name, "module": row.module, "self": row.own, "total": row.total}
            for row in tree_rows(profile, arguments.by, arguments.least)
        ]
    return report


def _machine_json(row: MachineRow) -> dict[str, object]:
    assert row.guest is not None
    guest = {name: value for name, value in asdict(row.guest).items() if name != "twin"}
    return {
        "label": row.guest.label,
        **guest,
        "samples": row.samples,
        "whole": row.whole,
        "in_kernel": row.kernel,
        "kernel_whole": row.kernel_whole,
        "kernel_cut": row.kernel_known - row.kernel_whole,
        "vcpus": [{"vcpu": vcpu, "samples": samples} for vcpu, samples in row.vcpus.items()],
    }


def _cause_json(cause: Cause) -> dict[str, object]:
    modules = [{"module": path, "samples": count} for path, count in cause.modules]
    return {"stop": cause.stop.label, "ending": ending_of(cause.stop), "samples": cause.samples, "modules": modules}


def lines(profile: Profile, arguments: argparse.Namespace) -> Iterator[str]:
    """The report as text."""
    found = quality(profile)
    top = TOP if arguments.top is None else arguments.top
    yield from _head(profile.about, found)
    if not found.samples:
        yield "no sample passes the filters" if len(profile.stacks) else "nothing was sampled"
        return
    yield ""
    of_machines = machines(profile) if profile.guests else []
    yield from _endings(found, guests=bool(profile.guests))
    yield from _kernel_parts(of_machines)
    yield ""
    yield from _causes(found)
    yield ""
    if of_machines:
        yield from _machines(of_machines, found)
        yield ""
    yield from _processes(processes(profile)[:top], found)
    yield ""
    yield from _functions(functions(profile)[:top], profile.weight)
    if arguments.tree:
        yield ""
        yield from tree_lines(profile, arguments.by, arguments.least)


def _head(about: About, found: Quality) -> Iterator[str]:
    if about.hostname:
        yield f"machine   {printable(about.hostname)}, Linux {printable(about.kernel)} {printable(about.arch)}, {about.cpus} CPUs"
    rate = f", {about.frequency:g} samples a second and CPU" if about.frequency else ""
    when = f"{_time(about.started_ns)}, " if about.started_ns else ""
    yield f"recorded  {when}{about.duration_s:.1f} s, {printable(about.trigger)}{rate}"
    if about.command:
        yield f"command   {printable(about.command)}"
    if not about.finished:
        yield "state     not finished: the recorder still runs or was killed; the last second may be missing"
    lost = f"{about.lost:,} lost"
    if about.lost:
        lost += " (" + ", ".join(f"{name} {value:,}" for name, value in about.counters.items() if name.startswith("lost") and value) + ")"
    yield f"samples   {found.samples:,}, {lost}"
    for name, reason in about.machine.items():
        if name.startswith("sframe-refused "):
            yield f"SFrame    not used of {printable(name.removeprefix('sframe-refused '))}: {printable(reason)}"


def _endings(found: Quality, *, guests: bool) -> Iterator[str]:
    unknown = f"; {found.unknown:,} do not say where they end" if found.unknown else ""
    none = f"{found.none:,} samples without one (kernel threads, exiting threads)"
    of_guests = ", in guests with their kernel's frames" if guests else ""
    yield f"stacks    {found.samples - found.none:,} user stacks{of_guests}; {none}{unknown}"
    counts = {
        "whole": (found.whole, "reach an accepted end"),
        "cut": (found.cut, "stop before one"),
        "reliable": (found.verdicts[Verdict.RELIABLE], "miss no function"),
        "unreliable": (found.verdicts[Verdict.UNRELIABLE], "cannot be relied on" + _reasons(found)),
    }
    for name, (count, text) in counts.items():
        yield f"{name:<10}{_percent(found.stack_share(count))}  {count:>9,}  {text}"


def _kernel_parts(rows: list[MachineRow]) -> Iterator[str]:
    """What is whole in guests' kernels: there a program without unwind data cuts stacks whose kernel part is as good as it can be."""
    whole, known = (sum(getattr(row, name) for row in rows) for name in ("kernel_whole", "kernel_known"))
    if known:
        text = f"of {known:,} in guests' kernels lead to the kernel's entry, whatever their user part is"
        yield f"{'kernel':<10}{_percent(whole / known)}  {whole:>9,}  {text}"


def _reasons(found: Quality) -> str:
    return ": " + ", ".join(f"{reason.label} {count:,}" for reason, count in found.reasons.items()) if found.reasons else ""


def _causes(found: Quality) -> Iterator[str]:
    yield "   share    samples  why the stack ends     in modules"
    for cause in found.causes:
        if cause.stop.ending == "none":
            continue
        shown = [f"{printable(path)} {count:,}" for path, count in cause.modules[:MODULES_SHOWN]]
        if len(cause.modules) > MODULES_SHOWN:
            shown.append(f"{len(cause.modules) - MODULES_SHOWN} more")
        label = cause.stop.label if cause.stop is not Stop.NONE else UNKNOWN
        yield f"{_percent(found.stack_share(cause.samples))}  {cause.samples:>9,}  {label:<21}  {', '.join(shown)}".rstrip()


def _machines(rows: list[MachineRow], found: Quality) -> Iterator[str]:
    yield "   share    samples     whole  in kernel  kernel whole  guest"
    for row in rows:
        parts = (_percent(row.whole / row.samples), f"{_percent(row.kernel / row.samples):>9}", f"{_kernel_whole(row):>12}")
        shares = "  ".join((_percent(found.share(row.samples)), f"{row.samples:>9,}", *parts))
        shown = [f"{vcpu}: {samples:,}" for vcpu, samples in list(row.vcpus.items())[:VCPUS_SHOWN]]
        shown += [f"{len(row.vcpus) - VCPUS_SHOWN} more"] if len(row.vcpus) > VCPUS_SHOWN else []
        yield f"{shares}  {_machine(row.guest)}" + (f"; vCPU {', '.join(shown)}" if shown else "")


def _kernel_whole(row: MachineRow) -> str:
    """The part of the samples in kernel mode whose kernel part leads to the kernel's entry."""
    return _percent(row.kernel_whole / row.kernel_known) if row.kernel_known else "-"


def _machine(guest: Guest | None) -> str:
    if guest is None:
        return HOST
    kernel = f"Linux {guest.kernel_release}" if guest.kernel_release else "kernel not known"
    how = f", registers by {guest.registers_by}" if guest.registers_by else ""
    return printable(f"{guest.label}, {kernel}{how}")


def _processes(rows: list[ProcessRow], found: Quality) -> Iterator[str]:
    yield "   share    samples     whole      pid  process"
    for row in rows:
        shares = f"{_percent(found.share(row.samples))}  {row.samples:>9,}  {_percent(row.whole / row.samples)}"
        yield f"{shares}  {row.pid:>7}  {GUEST + printable(row.guest) + ' ' if row.guest else ''}{printable(row.comm or row.exe or '?')}"


def _functions(rows: list[FunctionRow], weight: int) -> Iterator[str]:
    yield "    self     total  function"
    for row in rows:
        name = printable(row.name)
        if len(name) > NAME_WIDTH:
            name = name[: NAME_WIDTH - 3] + "..."
        module = f"  ({printable(row.module)})" if row.module and row.named else ""
        yield f"{_percent(row.own / (weight or 1))}  {_percent(row.total / (weight or 1))}  {name}{module}"


def _percent(share: float) -> str:
    return f"{percent(share):>8}"


def _time(nanoseconds: int) -> str:
    return f"{datetime.fromtimestamp(nanoseconds // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"
