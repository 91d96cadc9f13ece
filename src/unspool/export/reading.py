"""What other programs' profiles say of one sample: the value that every importer gives and a recording is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from unspool.model.guest import Guest
from unspool.model.verdict import Stop, Verdict
from unspool.profile.columns import NO_USER_STACK
from unspool.profile.tree import GUEST


@dataclass(frozen=True, slots=True)
class ReadModule:
    """A file that code lies in."""

    path: str
    build_id: str = ""
    kernel: bool = False


@dataclass(frozen=True, slots=True)
class ReadCall:
    """A function at a frame; several when calls were inlined, innermost first. `offset` is bytes from its start."""

    function: str
    file: str = ""
    line: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ReadFrame:
    """One frame; no calls when the profile has no name. Without an address it is known by its calls; `offset` is the byte of the file."""

    calls: tuple[ReadCall, ...]
    module: ReadModule | None = None
    address: int | None = None
    offset: int | None = None
    kernel: bool = False


@dataclass(frozen=True, slots=True)
class ReadEnd:
    """Where a stack ends, as labels or a mark say; the path of the module that causes it, and the verdict with its reason."""

    stop: Stop = Stop.NONE
    module: str = ""
    verdict: Verdict = Verdict.NONE
    reason: Stop = Stop.NONE


@dataclass(frozen=True, slots=True)
class ReadSample:
    """`count` samples of one stack, innermost frame first, each of that weight. `time_ns` counts from the start; None: not known."""

    frames: tuple[ReadFrame, ...]
    count: int = 1
    weight: int = 1
    time_ns: int | None = None
    pid: int = 0
    tid: int = 0
    process: str = ""
    thread: str = ""
    cpu: int = 0
    trigger: str = "cpu"
    detail: str = ""
    end: ReadEnd = field(default_factory=ReadEnd)
    guest: Guest | None = None
    vcpu: int | None = None


@dataclass(frozen=True, slots=True)
class ReadAbout:
    """What a profile says of itself; zero and empty where it says nothing."""

    started_ns: int = 0
    duration_ns: int = 0
    period_ns: int = 0
    comments: tuple[str, ...] = ()


def end_of_mark(mark: str) -> ReadEnd | None:
    """What a frame beside the root says, if it is one of our marks.

    >>> end_of_mark("[cut: no-unwind-info in libfoo.so]").module
    'libfoo.so'
    >>> end_of_mark("main") is None
    True
    """
    if mark == NO_USER_STACK:
        return ReadEnd(Stop.NO_USER_STACK)
    found = _MARK.fullmatch(mark)
    if not found:
        return None
    try:
        stop = Stop.of(found["stop"])
    except ValueError:
        return None
    if found["kind"] == "no user stack":
        return ReadEnd(stop)
    if found["kind"] == "cut":
        return ReadEnd(stop, found["module"] or "", Verdict.UNRELIABLE, stop)
    return ReadEnd(Stop.NONE, "", Verdict.UNRELIABLE, stop)


def guest_of_mark(name: str) -> Guest | None:
    """The guest that a frame or group next to the root names, if it is one of ours.

    >>> guest_of_mark("guest:web#2").generation
    2
    >>> guest_of_mark("main") is None
    True
    """
    if not name.startswith(GUEST):
        return None
    label = name.removeprefix(GUEST)
    head, _, generation = label.rpartition("#")
    return Guest(head, 0, generation=int(generation)) if head and _GENERATION.fullmatch(generation) else Guest(label, 0)


_GENERATION = re.compile(r"[1-9][0-9]{0,8}")
_MARK = re.compile(r"\[(?P<kind>cut|unreliable|no user stack): (?P<stop>[a-z-]+)(?: in (?P<module>[^\n]+))?\]")
