"""Turns what the kernel sends into a recording: samples and events in order of time, addresses into files, every stack stored once."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import Protocol

from unspool.capture.files import Files
from unspool.capture.frames import REMEMBERED_BYTES, Frames, RawStack, Sink
from unspool.capture.kernel_modules import KernelModules
from unspool.capture.perf_maps import PerfMaps
from unspool.capture.proc import suspended_ns, thread_name
from unspool.capture.processes import Process, Processes, Program
from unspool.capture.records import HEADER, NO_BAD_FRAME, RecordFlag, RecordTrigger
from unspool.capture.sideband import Event, Exited
from unspool.capture.syscall_names import syscall_name

HOLD_NS = 20 * 10**6
"""How long samples and events wait until they are surely in order: an event's time is taken a moment before it can be read."""

RESCAN_NS = 10**9
"""How often processes are read again from /proc at most, when the kernel lost events."""

_START = struct.Struct("<IIQ")
"""Of a record's header what sorts it: size, sequence, time."""

_TRIGGERS = {int(RecordTrigger.CPU): "cpu", int(RecordTrigger.SYSCALL): "syscalls"}
_SYSCALL = int(RecordTrigger.SYSCALL)
_COMPAT = int(RecordFlag.COMPAT)


class SampleSource(Protocol):
    """Where samples come from: `capture.kernel.Sampler`, or a fake."""

    def drain(self) -> bytes:
        """Whole records (`struct record` of native/record.h), as many as came since the last drain or as one call can give."""

    def counters(self) -> Mapping[str, int]:
        """What was counted since the start, by name."""


class EventSource(Protocol):
    """Where events come from: `capture.sideband.Sideband`, or a fake. `lost` counts those that the kernel could not write."""

    lost: int

    def drain(self) -> list[Event]:
        """The events since the last drain, by time."""


class Recorder:
    """Moves samples from their source into the sink. `step` is called some 20 times a second; nothing is on disk before the sink's commit.

    `stored` counts the samples given to the sink.
    """

    def __init__(self, samples: SampleSource, events: EventSource, processes: Processes, sink: Sink) -> None:
        """Record from these sources; `processes` was scanned after the events' rings were opened."""
        self._samples = samples
        self._events = events
        self._processes = processes
        self._sink = sink
        self.files = Files()
        self.perf_maps = PerfMaps()
        self.frames = Frames(sink, self.files, KernelModules.loaded(), self.perf_maps.has)
        self.stored = 0
        self._held_samples: list[tuple[int, bytes]] = []
        self._held_events: list[Event] = []
        self._by_start: dict[tuple[int, int], Process] = {}
        self._starts: dict[Process, list[tuple[int, int]]] = {}
        self._suspended_ns = suspended_ns()
        self._lost_events = 0
        self._rescan_ns = 0

    def step(self, *, final: bool = False) -> int:
        """Take what came and store what is old enough (with `final` everything); the number of samples stored."""
        now = time.monotonic_ns()
        self._take_samples()
        # After the samples, so that every event older than one of them is in it.
        self._held_events += self._events.drain()
        self._rescan_after_loss(now)
        horizon = now if final else now - HOLD_NS
        self._apply_events(horizon)
        before = self.stored
        self._store_samples(horizon)
        self._forget(now)
        return self.stored - before

    def count(self) -> None:
        """Give the counters as they are now to the sink."""
        for name, value in self._samples.counters().items():
            self._sink.counter(name, value)
        self._sink.counter("stored", self.stored)
        self._sink.counter("events-lost", self._events.lost)

    def close(self) -> None:
        """Close the files that were kept."""
        self.files.close()
        self.perf_maps.close()

    def _take_samples(self) -> None:
        held = self._held_samples
        while data := self._samples.drain():
            offset, end = 0, len(data)
            while offset + HEADER.size <= end:
                size, _, time_ns = _START.unpack_from(data, offset)
                if size < HEADER.size or offset + size > end:
                    break
                held.append((time_ns, data[offset : offset + size]))
                offset += size

    def _apply_events(self, horizon: int) -> None:
        events = self._held_events
        events.sort(key=_time_of)
        taken = 0
        for event in events:
            if event.time_ns > horizon:
                break
            self._processes.apply(event)
            if isinstance(event, Exited) and event.tid == event.pid:
                self._note_exit(event)
            taken += 1
        del events[:taken]
        for identity, region, process in self._processes.new_files:
            self.files.keep(identity, region, pid=process.pid, parent=process.parent)
        self._processes.new_files.clear()

    def _note_exit(self, event: Exited) -> None:
        process = self._processes.newest(event.pid)
        if process is not None and process.exit_ns is not None:
            for program in process.programs:
                if program.row:
                    self._sink.exited(program.row, event.time_ns)

    def _store_samples(self, horizon: int) -> None:
        held, self._held_samples = self._held_samples, []
        for entry in held:
            if entry[0] <= horizon:
                self._store(entry[1])
            else:
                self._held_samples.append(entry)

    def _store(self, data: bytes) -> None:
        header = HEADER.unpack_from(data)
        _, _, time_ns, start_ns, pid, tid, cpu, trigger, flags, detail = header[:10]
        process = self._by_start.get((pid, start_ns)) or self._process(pid, start_ns)
        program = process.program_at(time_ns)
        row = program.row or self._program_row(process, program, start_ns)
        thread = program.thread_rows.get(tid) or self._thread_row(process, program, tid)
        # All that makes a stack, and nothing of the sample: stop address to n_user without the generation, and the addresses.
        key = data[48:68] + data[72:]
        known = program.stacks.get(key) if time_ns >= program.changed_ns else None
        if known is None:
            known = self.frames.stack(_raw_stack(header, data), process, program, time_ns)
            if time_ns >= program.changed_ns:
                program.stacks[key] = known
                self.frames.remembered += len(key)
        stack, tally = known
        tally.samples += 1
        named = _detail(detail, flags) if trigger == _SYSCALL else ""
        self._sink.sample(time_ns, row, thread, cpu, _TRIGGERS.get(trigger, "unknown"), named, 1, stack)
        self.stored += 1

    def _process(self, pid: int, start_ns: int) -> Process:
        process = self._processes.find(pid, start_ns - self._suspended_ns)
        self._by_start[pid, start_ns] = process
        self._starts.setdefault(process, []).append((pid, start_ns))
        return process

    def _program_row(self, process: Process, program: Program, start_ns: int) -> int:
        cgroup = self._processes.cgroup(process) or None
        program.row = self._sink.process(process.pid, start_ns, program.comm, program.exe or None, process.parent or None, cgroup=cgroup)
        if process.exit_ns is not None:
            self._sink.exited(program.row, process.exit_ns)
        return program.row

    def _thread_row(self, process: Process, program: Program, tid: int) -> int:
        name = program.comm if tid == process.pid else program.threads.get(tid)
        if name is None:
            name = program.threads[tid] = thread_name(process.pid, tid) or program.comm
        row = program.thread_rows[tid] = self._sink.thread(program.row, tid, name)
        return row

    def _rescan_after_loss(self, now: int) -> None:
        """Where events were lost, mappings may have been missed: what runs now is read again."""
        if self._events.lost > self._lost_events and now >= self._rescan_ns:
            self._lost_events = self._events.lost
            self._rescan_ns = now + RESCAN_NS
            self._processes.scan()

    def _forget(self, now: int) -> None:
        for process in self._processes.forget(now):
            for start in self._starts.pop(process, ()):
                del self._by_start[start]
        if self.frames.remembered > REMEMBERED_BYTES:
            self.frames.forget(program for process in self._processes for program in process.programs)


def _raw_stack(header: tuple[int, ...], data: bytes) -> RawStack:
    stop_address, first_bad, stop, verdict, reason, _, n_kernel = header[10:17]
    bad = None if first_bad == NO_BAD_FRAME else first_bad
    return RawStack(stop, stop_address, verdict, reason, bad, n_kernel, data[HEADER.size :])


def _detail(number: int, flags: int) -> str:
    return f"32-bit-{number}" if flags & _COMPAT else syscall_name(number)


def _time_of(event: Event) -> int:
    return event.time_ns
