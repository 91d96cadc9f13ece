"""The options that choose samples of a recording, the same for every command that reads one."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from unspool.model.verdict import Stop, Verdict
from unspool.profile.columns import UNKNOWN
from unspool.profile.filters import MODES, Filter


def add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    """The options; each may be given several times, and a sample passes when every option given holds for one of its values."""
    group = parser.add_argument_group("filters", "Each may be given several times; PATTERN is a shell pattern.")

    def option(*names: str, kind: Callable[[str], object], metavar: str, text: str) -> None:
        group.add_argument(*names, type=_list(kind), action="extend", default=[], metavar=metavar, help=text)

    option("-p", "--pid", kind=int, metavar="PID[,PID]", text="only these processes")
    option("-t", "--tid", kind=int, metavar="TID[,TID]", text="only these threads")
    option("--cpu", kind=int, metavar="CPU[,CPU]", text="only samples on these CPUs")
    group.add_argument("--comm", action="append", default=[], metavar="PATTERN", help="only processes or threads of that name")
    group.add_argument("--module", action="append", default=[], metavar="PATTERN", help="only stacks with a frame in that file")
    group.add_argument("--on", action="append", default=[], metavar="TRIGGER", help="only what this trigger took (cpu, syscalls:read, ...)")
    option("--verdict", kind=_verdict, metavar="NAME", text="only reliable, unreliable or none")
    option("--ending", kind=_ending, metavar="NAME", text="only whole, cut, none or unknown")
    option("--stop", kind=_stop, metavar="NAME", text="only stacks that end for that reason (no-unwind-info, ...)")
    group.add_argument(
        "--guest", action="append", default=[], metavar="PATTERN", help="only that guest (NAME, NAME#GENERATION, UUID, pid; [host])"
    )
    option("--vcpu", kind=int, metavar="VCPU[,VCPU]", text="only samples on these virtual CPUs of guests")
    group.add_argument("--kernel", action="append", default=[], metavar="PATTERN", help="only what ran on a kernel of that release")
    option("--mode", kind=_mode, metavar="NAME", text="only samples in user or kernel mode")
    group.add_argument("--cgroup", action="append", default=[], metavar="PATTERN", help="only processes in that control group or below it")
    group.add_argument("--from", dest="since", type=float, metavar="SECONDS", help="from this time on, counted from the start")
    group.add_argument("--to", dest="until", type=float, metavar="SECONDS", help="up to this time")


def filter_of(arguments: argparse.Namespace) -> Filter:
    """The filter that the options ask for."""
    return Filter(
        pids=tuple(arguments.pid),
        tids=tuple(arguments.tid),
        cpus=tuple(arguments.cpu),
        comms=tuple(arguments.comm),
        modules=tuple(arguments.module),
        triggers=tuple(arguments.on),
        verdicts=tuple(arguments.verdict),
        endings=tuple(arguments.ending),
        stops=tuple(arguments.stop),
        since=arguments.since,
        until=arguments.until,
        guests=tuple(arguments.guest),
        vcpus=tuple(arguments.vcpu),
        kernels=tuple(arguments.kernel),
        cgroups=tuple(arguments.cgroup),
        modes=tuple(arguments.mode),
    )


def _list(kind: Callable[[str], object]) -> Callable[[str], list[object]]:
    def convert(text: str) -> list[object]:
        try:
            return [kind(part) for part in text.split(",")]
        except (KeyError, ValueError):
            what = "no number, nor several with commas" if kind is int else f"none of these: {', '.join(_VALUES[kind])}"
            raise argparse.ArgumentTypeError(f"{text!r} is {what}") from None

    return convert


def _verdict(text: str) -> Verdict:
    return Verdict[text.upper()]


def _ending(text: str) -> str:
    if text not in {"whole", "cut", "none", UNKNOWN}:
        raise ValueError
    return text


def _mode(text: str) -> str:
    if text not in MODES:
        raise ValueError
    return text


def _stop(text: str) -> Stop:
    return Stop.of(text)


_VALUES: dict[Callable[[str], object], list[str]] = {
    _verdict: [verdict.label for verdict in Verdict],
    _ending: ["whole", "cut", "none", UNKNOWN],
    _mode: list(MODES),
    _stop: [stop.label for stop in Stop if stop is not Stop.NONE],
}
"""What the options that take names take."""
