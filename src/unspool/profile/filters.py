"""Which samples a user wants to see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from unspool.model.guest import HOST, Guest
from unspool.model.verdict import Stop, Verdict

MODES = ("user", "kernel")
"""What a CPU ran at the sample: `kernel` where the stack has kernel frames."""


@dataclass(frozen=True, slots=True)
class Filter:
    """All conditions must hold; an empty one holds always; a condition with several values holds for any of them.

    `comms` are names of processes or threads, `modules` paths or file names, `triggers` triggers or `trigger:detail`:
    shell patterns all three. So are `guests` (a name, `name#generation`, `name@pid` where several VMMs have that name, a
    UUID, or the VMM's pid; HOST is this host),
    `kernels` (releases) and `cgroups` (a control group holds for those below it).
    A module holds when any frame of the stack lies in it. `since` and `until` are seconds from the start of the recording.
    """

    pids: tuple[int, ...] = ()
    tids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    endings: tuple[str, ...] = ()
    stops: tuple[Stop, ...] = ()
    since: float | None = None
    until: float | None = None
    guests: tuple[str, ...] = ()
    vcpus: tuple[int, ...] = ()
    kernels: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()

    def chooses_machine(self, guest: Guest | None, kernel: str) -> bool:
        """Whether samples of that guest (None: of the host), whose kernel has that release, may pass."""
        names = (HOST,) if guest is None else guest.names
        return (not self.guests or fits(self.guests, names)) and (not self.kernels or fits(self.kernels, (kernel,)))

    def chooses_cgroup(self, cgroup: str) -> bool:
        """Whether samples of processes in that control group may pass."""
        return not self.cgroups or (cgroup != "" and any(fnmatchcase(cgroup, end) for one in self.cgroups for end in (one, f"{one}/*")))


def fits(patterns: Iterable[str], names: Iterable[str]) -> bool:
    """Whether a pattern names one of them. HOST is no pattern, though it looks like one.

    >>> fits(["web*"], ["web#2"]), fits(["[host]"], ["h"]), fits(["[host]"], ["[host]"])
    (True, False, True)
    """
    names = tuple(name for name in names if name)
    return any(pattern == name if pattern == HOST else fnmatchcase(name, pattern) for pattern in patterns for name in names)


EVERYTHING = Filter()
