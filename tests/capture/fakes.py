"""Records, events and sinks of tests, made field by field."""
# ruff: noqa: D102, D107 - the protocols they stand for say what each method is

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from unspool.capture.frames import Sink
from unspool.capture.sideband import Event, Mapped
from unspool.model.module import ModuleKind
from unspool.model.verdict import Judgement, Stop, Trust, Verdict

SECOND = 10**9
CODE = 0x400000
EXACT = 0x10


def marked(address: int, *, trust: Trust = Trust.CFI, exact: bool = False) -> int:
    """A user address as the kernel side marks it."""
    return (address & (1 << 56) - 1) | (trust | (EXACT if exact else 0)) << 56


def record(
    *,
    time_ns: int = SECOND,
    pid: int = 100,
    tid: int | None = None,
    start_ns: int = 0,
    user: Sequence[int] = (),
    kernel: Sequence[int] = (),
    stop: Stop = Stop.END_PROCESS_ENTRY,
    stop_address: int = 0,
    trigger: int = 1,
    detail: int = 0,
    flags: int = 0,
) -> bytes:
    """One record of native/record.h; `user` are marked addresses, innermost first."""
    size = 72 + 8 * (len(user) + len(kernel))
    ids = struct.pack("<IIIHHQQ", pid, tid or pid, 1, trigger, flags, detail, stop_address)
    verdict = struct.pack("<IBBBB", 0xFFFFFFFF, stop, Verdict.RELIABLE if stop.is_end else Verdict.UNRELIABLE, 0, 0)
    head = struct.pack("<IIQQ", size, 0, time_ns, start_ns) + ids + verdict + struct.pack("<HHI", len(kernel), len(user), 0)
    return head + struct.pack(f"<{len(kernel) + len(user)}Q", *kernel, *user)


def mapped(path: str, start: int = CODE, *, pid: int = 100, time_ns: int = 1, size: int = 0x1000, offset: int = 0) -> Mapped:
    """An executable mapping of a file that exists nowhere; its build id is made of its path."""
    build_id = path.encode().hex()[:40] if path.startswith("/") and not path.startswith("//") else ""
    return Mapped(time_ns, pid, start, size, offset, path, build_id, (0, 0), 0, deleted=False)


class FakeSampler:
    """Gives the records it was given, one drain each."""

    def __init__(self, *drains: bytes) -> None:
        self.drains = list(drains)
        self.counted = {"samples": 0, "lost-ring-full": 0}

    def drain(self) -> bytes:
        return self.drains.pop(0) if self.drains else b""

    def counters(self) -> Mapping[str, int]:
        return self.counted


class FakeSideband:
    """Gives the events it was given, all at once."""

    def __init__(self, *events: Event) -> None:
        self.events = list(events)
        self.lost = 0

    def drain(self) -> list[Event]:
        events, self.events = self.events, []
        return events


class FakeSink(Sink):
    """Keeps rows as tuples; a number is one more than the place in its list."""

    def __init__(self) -> None:
        self.processes: list[tuple[object, ...]] = []
        self.threads: list[tuple[object, ...]] = []
        self.modules: list[tuple[str, str, str]] = []
        self.frames: list[tuple[int | None, int, int | None, str, Trust]] = []
        self.stacks: list[tuple[tuple[int, ...], int, Stop, int | None, Judgement]] = []
        self.samples: list[tuple[int, int, int, int, str, str, int, int]] = []
        self.counters: dict[str, int] = {}
        self.exits: dict[int, int] = {}
        self.cgroups: dict[int, str | None] = {}

    def process(
        self, pid: int, start_ns: int, comm: str, exe: str | None = None, parent: int | None = None, *, cgroup: str | None = None
    ) -> int:
        self.cgroups[pid] = cgroup
        return number(self.processes, (pid, start_ns, comm, exe, parent))

    def exited(self, process: int, exit_ns: int) -> None:
        self.exits[process] = exit_ns

    def thread(self, process: int, tid: int, comm: str) -> int:
        return number(self.threads, (process, tid, comm))

    def module(self, path: str, build_id: str = "", kind: ModuleKind = "file") -> int:
        return number(self.modules, (path, build_id, kind))

    def frame(self, module: int | None, address: int, offset: int | None, space: str, trust: Trust) -> int:
        return number(self.frames, (module, address, offset, space, trust))

    def stack(self, frames: tuple[int, ...], kernel_frames: int, stop: Stop, stop_module: int | None, judgement: Judgement) -> int:
        return number(self.stacks, (frames, kernel_frames, stop, stop_module, judgement))

    def sample(self, time_ns: int, process: int, thread: int, cpu: int, trigger: str, detail: str, weight: int, stack: int) -> None:
        self.samples.append((time_ns, process, thread, cpu, trigger, detail, weight, stack))

    def counter(self, name: str, value: int) -> None:
        self.counters[name] = value

    def paths(self, sample: int = -1) -> list[str | None]:
        """The modules of a sample's frames, innermost first; None for a frame in none."""
        frames = self.stacks[self.samples[sample][-1] - 1][0]
        modules = [self.frames[frame - 1][0] for frame in frames]
        return [None if module is None else self.modules[module - 1][0] for module in modules]


def number(rows: list, row: tuple) -> int:
    """The row's number, a new one when it is new."""
    if row not in rows:
        rows.append(row)
    return rows.index(row) + 1
