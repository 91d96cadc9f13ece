"""Which samples a user wants to see."""

from __future__ import annotations

from dataclasses import dataclass

from unspool.model.verdict import Stop, Verdict


@dataclass(frozen=True, slots=True)
class Filter:
    """All conditions must hold; an empty one holds always; a condition with several values holds for any of them.

    `comms` are names of processes or threads, `modules` paths or file names, `triggers` triggers or `trigger:detail`:
    shell patterns all three.
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


EVERYTHING = Filter()
