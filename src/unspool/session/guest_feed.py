"""One guest's events become rows of a recording, and its frames get names."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.capture.files import KeptFile
from unspool.capture.frames import Place, Tally
from unspool.capture.guest_events import CannotSample, Counted, Ended, Event, File, Kernel, Names, Ready, Sample
from unspool.capture.guest_wire import GuestFrame, GuestModule, GuestStack, GuestTask
from unspool.model.guest import Guest
from unspool.model.symbol import Symbol
from unspool.model.verdict import Stop, Trust, Verdict
from unspool.session.guest_sink import GuestSink
from unspool.session.guest_sources import source_of
from unspool.targets.guest.machines import Machine

if TYPE_CHECKING:
    from unspool.symbols.symbolizer import Symbolizer

MAX_KEPT = 512 << 20
"""Bytes of a guest's files that are kept for their names."""


@dataclass(slots=True)
class GuestTotals:
    """What became of one guest: samples, idle vCPUs that were not touched, lost samples; how long it was held (seconds); how it ended.

    `missing` says in sentences what its kernel does not have of what stacks need, `method` how the kernel's frames were looked for.
    `kernel_whole` of the `in_kernel` samples in kernel mode have a kernel part that leads to the kernel's entry.
    """

    name: str
    pid: int = 0
    registers_by: str = ""
    memory_by: str = ""
    kernel: str = ""
    missing: str = ""
    method: Trust = Trust.ORC
    generations: int = 0
    samples: int = 0
    in_kernel: int = 0
    kernel_whole: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    held: float = 0.0
    median: float = 0.0
    longest: float = 0.0
    rate: float = 0.0
    ended: str = ""

    @property
    def idle(self) -> int:
        """Samples that were not taken because the vCPU was idle."""
        return self.counters.get("guest-idle", 0)

    @property
    def lost(self) -> int:
        """Samples that could not be taken."""
        return sum(count for name, count in self.counters.items() if name.startswith("lost-"))


@dataclass(slots=True)
class _Module:
    """A module of one generation; `frames` are its user frames that wait for a name, by row, with the byte of the file to look up.

    `descriptor` are its bytes, once they came; `source` is its key at the symbolizer, which has taken them over.
    """

    described: GuestModule
    row: int
    frames: dict[int, int] = field(default_factory=dict)
    descriptor: int | None = None
    whole: bool = False
    source: KeptFile | None = None


class GuestFeed:
    """Writes what one sampler tells. `take` is called with each event in order; `unnamed` gives user frames to look up."""

    def __init__(self, machine: Machine, writer: GuestSink, sysroot: Path | None = None) -> None:
        """Write to `writer`; files that the guest has not in its memory are looked for below `sysroot`."""
        self.machine = machine
        self.totals = GuestTotals(machine.name, machine.pid)
        self.over = False
        self._writer = writer
        self._sysroot = sysroot
        self._ready = Ready("", "", machine.accel)
        self._guest = 0
        self._described: Guest | None = None
        self._kept = 0
        self._sources = 0
        self._asked: set[int] = set()
        self._modules: dict[int, _Module] = {}
        self._old: list[_Module] = []
        self._kernel_frames: dict[int, set[int]] = {}
        self._names: dict[int, tuple[str, int]] = {}
        self._tallies: dict[tuple[Stop, str, Verdict], Tally] = {}

    @property
    def tallies(self) -> list[Tally]:
        """What was counted, by reason, module and verdict."""
        return list(self._tallies.values())

    def take(self, event: Event) -> None:
        """Write an event."""
        match event:
            case Sample():
                self._sample(event)
            case Names():
                self._name_kernel(event.names)
            case File():
                self._file(event)
            case Kernel():
                self._kernel(event)
            case Counted():
                totals = self.totals
                totals.counters, totals.held, totals.median = event.counters, event.held, event.median
                totals.longest, totals.rate = event.longest, event.rate
            case Ready():
                self._ready = event
                self.totals.registers_by, self.totals.memory_by = event.registers_by, event.memory_by
            case Ended():
                self._end(event.reason)
            case CannotSample():
                self._end(event.message)

    def unnamed(self, symbolizer: Symbolizer, *, last: bool = False) -> list[Place]:
        """User frames that came since the last call and can be looked up: `symbolizer` knows their files now, by `Place.file`.

        Those whose file is not there yet stay, unless it is the `last` call. Give the same symbolizer every time.
        """
        places: list[Place] = []
        for module in [*self._old, *self._modules.values()]:
            if not module.frames:
                continue
            if module.source is None:
                # Of a file without a size nothing will come.
                if module.descriptor is None and module.described.size and not last:
                    continue
                module.source = self._given(module, symbolizer)
            self._asked.update(module.frames)
            places += [Place(row, "file", module.described.path, module.source, at, 0, 0) for row, at in module.frames.items()]
            module.frames = {}
        return places

    def _given(self, module: _Module, symbolizer: Symbolizer) -> KeptFile:
        """Give what there is of a module's file to the symbolizer; the key that it has there, which no other module has."""
        self._sources += 1
        key = KeptFile(module.described.path, module.described.build_id, None, f"file {self._sources} of guest {self.machine.pid}")
        kept, module.descriptor = module.descriptor, None
        symbolizer.add(key, source_of(module.described, kept, self._sysroot, whole=module.whole))
        return key

    def renew(self, writer: GuestSink) -> None:
        """Go on with a sink that knows nothing yet: frames that come again are named again, by the same symbolizer."""
        self._writer = writer
        self._asked.clear()
        self._kernel_frames.clear()
        self._close(self._old)
        self._old = []
        if self._described is not None:
            self._guest = writer.guest(self._described)
        for module in self._modules.values():
            module.row = self._row(module.described)
            module.frames = {}

    def close(self) -> None:
        """Close the files that were not used."""
        self._close([*self._old, *self._modules.values()])

    @staticmethod
    def _close(modules: list[_Module]) -> None:
        for module in modules:
            if module.descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(module.descriptor)
                module.descriptor = None

    def _row(self, described: GuestModule) -> int:
        return self._writer.module(described.path, described.build_id, described.kind, guest=self._guest)

    def _kernel(self, event: Kernel) -> None:
        machine, found, ready = self.machine, event.found, self._ready
        self.totals.kernel, self.totals.missing, self.totals.generations = found.release, found.missing, event.generation
        self._described = Guest(
            name=machine.name,
            vmm_pid=machine.pid,
            vmm_start_ns=machine.start_ns,
            generation=event.generation,
            uuid=machine.uuid,
            kernel_release=found.release,
            kernel_build_id=found.build_id,
            accel=ready.accel,
            registers_by=ready.registers_by,
            memory_by=ready.memory_by,
        )
        self._guest = self._writer.guest(self._described)
        self._old += self._modules.values()
        self._modules = {}
        self._kernel_frames = {}
        self._names = {}

    def _sample(self, event: Sample) -> None:
        stack, writer = event.stack, self._writer
        for number, described in stack.modules.items():
            self._modules[number] = _Module(described, self._row(described))
        rows = tuple(self._frame(frame, "kernel" if index < stack.kernel_frames else "user") for index, frame in enumerate(stack.frames))
        last = stack.frames[-1].module if stack.frames else None
        module = None if last is None or stack.stop.is_end else self._modules[last]
        cause, kernel_whole = None if module is None else module.row, stack.kernel_whole if stack.in_kernel else None
        stored = writer.stack(rows, stack.kernel_frames, stack.stop, cause, stack.judgement, kernel_whole=kernel_whole)
        process, thread = self._task(stack.task)
        writer.sample(event.time_ns, process, thread, -1, "cpu", "", 1, stored, vcpu=event.vcpu)
        self.totals.samples += 1
        self.totals.in_kernel += stack.in_kernel
        self.totals.kernel_whole += stack.in_kernel and stack.kernel_whole
        self._tally(stack, "" if module is None else module.described.path)

    def _task(self, task: GuestTask) -> tuple[int, int]:
        process = self._writer.process(task.tgid, task.start_ns if task.pid == task.tgid else 0, task.name, guest=self._guest)
        return process, self._writer.thread(process, task.pid, task.comm)

    def _frame(self, frame: GuestFrame, space: str) -> int:
        module = None if frame.module is None else self._modules[frame.module]
        row = self._writer.frame(None if module is None else module.row, frame.ip, frame.offset, space, frame.trust)
        if space == "kernel":
            address = frame.ip - frame.back
            self._kernel_frames.setdefault(address, set()).add(row)
            if address in self._names:
                self._name(row, *self._names[address])
        elif module is not None and frame.offset is not None and row not in self._asked:
            module.frames[row] = frame.offset - frame.back
        return row

    def _name_kernel(self, names: list[tuple[int, str, int]]) -> None:
        for address, function, offset in names:
            self._names[address] = function, offset
            for row in self._kernel_frames.get(address, ()):
                self._name(row, function, offset)

    def _name(self, row: int, function: str, offset: int) -> None:
        self._writer.name(row, (Symbol(function, offset),))

    def _file(self, event: File) -> None:
        module = self._modules.get(event.module)
        size = os.fstat(event.descriptor).st_size
        # A guest that boots again and again must not fill our memory.
        if module is None or module.descriptor is not None or module.source is not None or self._kept + size > MAX_KEPT:
            os.close(event.descriptor)
            return
        self._kept += size
        module.descriptor, module.whole = event.descriptor, event.whole

    def _tally(self, stack: GuestStack, path: str) -> None:
        key = stack.stop, path, stack.judgement.verdict
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally(*key)
        tally.samples += 1

    def _end(self, reason: str) -> None:
        self.totals.ended = reason
        self.over = True


def summed(feeds: list[GuestFeed]) -> Counter[str]:
    """The counters of all guests together."""
    total: Counter[str] = Counter()
    for feed in feeds:
        total.update(feed.totals.counters)
    return total
