"""The text of `perf script` read: a line a sample, and a line a frame below it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from unspool.errors import BadInput
from unspool.export.perf_script import MARK
from unspool.export.reading import ReadCall, ReadEnd, ReadFrame, ReadModule, ReadSample, end_of_mark, guest_of_mark
from unspool.model.guest import Guest

HEAD = re.compile(
    r"^(?P<comm>\S.{0,63}?)\s{1,40}(?P<pid>\d+)(?:/(?P<tid>\d+))?\s{1,40}(?:\[(?P<cpu>\d+)\]\s{1,40})?"
    r"(?P<time>\d+\.\d+):\s{1,40}(?:(?P<period>\d+)\s{1,40})?(?P<event>\S+?):(?=\s|$)"
)
"""Bounded, so that no line takes long: a name of the kernel has 15 bytes, the columns between are spaces."""
FRAME = re.compile(r"^\s+(?P<address>[0-9a-f]+) (?P<name>.*) \((?P<module>.*)\)$")
PLACE = re.compile(r"^(?P<name>.*)\+0x(?P<offset>[0-9a-f]+)$")
CLOCKS = {"cpu-clock", "task-clock", "cycles", "cpu-cycles"}
UNKNOWN = "[unknown]"


@dataclass(slots=True)
class _Block:
    """A sample while its lines are read."""

    head: re.Match[str]
    frames: list[ReadFrame] = field(default_factory=list)
    inlined: list[ReadCall] = field(default_factory=list)
    end: ReadEnd = field(default_factory=ReadEnd)
    guest: Guest | None = None


class _Reader:
    """Frames that were read, by their line: most lines come again and again."""

    def __init__(self) -> None:
        self._known: dict[str, ReadFrame | ReadCall | ReadEnd | Guest | None] = {}
        self._processes: dict[tuple[Guest | None, int], str] = {}

    def sample(self, block: _Block, start: int) -> ReadSample:
        """The sample of a block that is complete. A line names the thread; the process is called after the first one seen."""
        head = block.head
        pid = int(head["pid"]) & 0x7FFF_FFFF
        event = head["event"].split(":")[0] if head["event"].split(":")[0] in CLOCKS else head["event"]
        cpu = int(head["cpu"] or 0) & 0xFFFF
        trigger, _, detail = ("cpu", "", "") if event in CLOCKS else event.partition(":")
        return ReadSample(
            frames=tuple(block.frames),
            time_ns=max(_nanoseconds(head["time"]) - start, 0),
            pid=pid,
            tid=int(head["tid"] or pid) & 0x7FFF_FFFF,
            process=self._processes.setdefault((block.guest, pid), head["comm"]),
            thread=head["comm"],
            cpu=-1 if block.guest else cpu,
            vcpu=cpu if block.guest else None,
            guest=block.guest,
            trigger=trigger,
            detail=detail,
            end=block.end,
        )

    def add(self, block: _Block, line: str) -> bool:
        """Take one line below a head; False when it is no frame."""
        if line not in self._known:
            self._known[line] = _parsed(line)
        match self._known[line]:
            case ReadFrame() as frame:
                calls = (*block.inlined, *frame.calls)
                block.frames.append(replace(frame, calls=calls) if block.inlined else frame)
                block.inlined.clear()
            case ReadCall() as call:
                block.inlined.append(call)
            case ReadEnd() as end:
                block.end = end
            case Guest() as guest:
                block.guest = guest
            case None:
                return False
        return True


def samples(data: bytes) -> Iterator[ReadSample]:
    """The samples in their order; times count from the first. BadInput names the line that is neither a sample nor a frame."""
    reader = _Reader()
    block: _Block | None = None
    start: int | None = None
    for number, line in enumerate(data.decode("utf-8", "backslashreplace").split("\n"), 1):
        line = line.rstrip("\r")  # noqa: PLW2901 - text from another system
        if not line.strip() or line.startswith("#"):
            if block:
                yield reader.sample(block, start or 0)
            block = None
            continue
        head = HEAD.match(line)
        if head and not line.startswith(("\t", "    ")):
            if block:
                yield reader.sample(block, start or 0)
            block = _Block(head)
            start = _nanoseconds(head["time"]) if start is None else start
        elif block is None or not reader.add(block, line):
            raise BadInput(f"line {number} is neither a sample nor a frame of perf script", hint="--format chooses another format.")
    if block:
        yield reader.sample(block, start or 0)


def _parsed(line: str) -> ReadFrame | ReadCall | ReadEnd | Guest | None:
    # Without the look at its end, a long line of brackets would be searched from each of them.
    found = FRAME.match(line) if line.endswith(")") else None
    if not found:
        return None
    name, path = found["name"], found["module"]
    if f"({path})" == MARK:
        return guest_of_mark(name) or end_of_mark(name)
    place = PLACE.match(name)
    offset = int(place["offset"], 16) if place else 0
    name = place["name"] if place else name
    if path == "inlined":
        return ReadCall(name)
    kernel = path.startswith(("[kernel", "[guest.")) or path == "[vmlinux]"
    module = None if path in {UNKNOWN, ""} else ReadModule(path, kernel=kernel)
    calls = () if name == UNKNOWN else (ReadCall(name, offset=offset & 0x7FFF_FFFF_FFFF_FFFF),)
    return ReadFrame(calls, module, int(found["address"], 16) & 0xFFFF_FFFF_FFFF_FFFF, kernel=kernel)


def _nanoseconds(time: str) -> int:
    seconds, _, rest = time.partition(".")
    return (int(seconds[-12:]) * 10**9 + int(rest[:9].ljust(9, "0"))) % 2**62
