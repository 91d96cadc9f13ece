"""A recording from start to end: capture, store and symbols put together."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.capture.command import Command, CommandFailed, User, invoking_user, open_process, open_thread, process_of
from unspool.capture.ending import Ending, Why
from unspool.capture.proc import read_file
from unspool.capture.request import Request
from unspool.capture.sideband import Sideband, online_cpus
from unspool.capture.triggers import Trigger
from unspool.errors import BadRequest, RecordingError
from unspool.model.verdict import PROOFS, Trust
from unspool.session.loading import Loading
from unspool.session.no_host import NoEvents, NoSamples

# What the kernel need not wait for is imported in the functions: while it verifies the programs, or when they are loaded.
if TYPE_CHECKING:
    from unspool.capture.frames import Tally
    from unspool.capture.kernel import Sampler
    from unspool.capture.recorder import Recorder
    from unspool.session.guest_feed import GuestTotals
    from unspool.session.guests import GuestPlan, Guests
    from unspool.store.header import Header
    from unspool.store.writer import Writer

POLL_SECONDS = 0.05
COMMIT_SECONDS = 1.0
NICE = -15
RING_SECONDS = 5
RECORD_BYTES = 600
"""A record of 60 frames and some of the kernel's."""

SYSCALL_RATE = 20_000
RING_LEAST, RING_MOST = 8 << 20, 256 << 20
SHORT_SECONDS = 1.0
GRACE_SECONDS = 2.0
"""How long a command may take to end after it was asked to, before it is left alone."""


class NotStored(RecordingError):
    """The recording could not be written on (most often: the disk is full); what was committed before can be read."""

    exit_status = 74  # EX_IOERR of sysexits.h


@dataclass(frozen=True, slots=True)
class Plan:
    """What to record: `pids` and `tids` (both empty: the command, without a command the whole machine), how, and into which file.

    With `guests` alone nothing of the host is recorded.
    """

    output: Path
    pids: tuple[int, ...] = ()
    tids: tuple[int, ...] = ()
    everything: bool = False
    command: tuple[str, ...] = ()
    as_root: bool = False
    frequency: int = 99
    seconds: float | None = None
    trigger: Trigger = field(default_factory=Trigger)
    replace: bool = False
    methods: frozenset[Trust] = PROOFS
    guests: GuestPlan | None = None

    @property
    def on_host(self) -> bool:
        """Whether anything of this machine itself is recorded."""
        return bool(self.everything or self.pids or self.tids or self.command) or self.guests is None


@dataclass(slots=True)
class Progress:
    """How far a recording is: what was counted until now, and in the end why it ended and the command's exit status."""

    output: Path
    seconds: float = 0.0
    samples: int = 0
    lost: int = 0
    files_named: int = 0
    files: int = 0
    tallies: list[Tally] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    why: Why | None = None
    exit_status: int | None = None
    guests: list[GuestTotals] = field(default_factory=list)
    refused_guests: list[tuple[str, str]] = field(default_factory=list)


Make = Callable[[Plan, Command | None, contextlib.ExitStack], "Recording"]
Show = Callable[[str, Progress], None]
"""Called with the stage ("recording", "naming") several times a second."""


def record(plan: Plan, show: Show, make: Make | None = None) -> Progress:
    """Record as planned until it ends; NotStored when the file could not be written on, KeyboardInterrupt at the second Ctrl-C.

    `make` makes another kind of `Recording`.
    """
    user = invoking_user()
    with contextlib.ExitStack() as held:
        command = None
        if plan.command:
            # Forked first: no thread and no large library is in the process yet.
            command = held.enter_context(contextlib.closing(Command(plan.command, user=None if plan.as_root else user)))
        watched = [open_process(pid) for pid in plan.pids] + [open_thread(tid) for tid in plan.tids]
        ending = held.enter_context(Ending(seconds=plan.seconds, command=command, processes=watched))
        recording = (make or Recording)(plan, command, held)
        give_away(plan.output, user)
        try:
            recording.run(ending, show)
        except CommandFailed:
            recording.discard()
            raise
        except NotStored:
            end_command(command, ending)
            raise
        give_away(plan.output, user)
        recording.progress.exit_status = end_command(command, ending)
        recording.finish(show)
    if ending.signal is not None:
        # It may have come while the frames were named or the file was closed.
        recording.progress.why = "interrupted"
    return recording.progress


class Recording:
    """A recording in the making: its sources, its writer, and how far it is."""

    def __init__(self, plan: Plan, command: Command | None, held: contextlib.ExitStack) -> None:
        """Open everything that is needed to sample; `held` closes it."""
        check_rate(plan)
        # Forked before there are threads and large libraries.
        self.guests = None if plan.guests is None else held.enter_context(contextlib.closing(guests_of(plan.guests, plan.frequency)))
        self.plan = plan
        self.command = command
        self.progress = Progress(plan.output)
        self._full = False
        self.sampler: Sampler | NoSamples
        self.recorder = self._recorder(held)
        self._started = time.monotonic()
        self._stopped: float | None = None

    def run(self, ending: Ending, show: Show) -> None:
        """Take samples until it is time to end, and store them all."""
        self.writer.starts_now()
        self.sampler.start()
        if self.guests is not None:
            self.guests.start(self.writer)
        ending.start()
        self._started = time.monotonic()
        if self.command is not None:
            self.command.release()
        try:
            self.writer.machine(machine_properties() | {"sampled-by": self._sampled_by()})
            if self._can_store(ending):
                # Not before: what is loaded until here would keep the CPU from what is recorded.
                raise_priority()
                self._take_samples(ending, show)
        finally:
            # Also at the second Ctrl-C: what was taken until then is worth keeping.
            self._take_last_samples()
        self.progress.why = ending.why

    def finish(self, show: Show) -> None:
        """Name the frames and close the file; an abort keeps the names that were found until then."""
        raise_priority(back=True)
        try:
            for named, files in self._name():
                self.progress.files_named, self.progress.files = named, files
                show("naming", self.progress)
        finally:
            with self._storing():
                self.writer.finish(int(self.progress.seconds * 1e9))

    def discard(self) -> None:
        """Take the file away again: nothing was recorded."""
        from unspool.store.place import wal_of

        self.writer.abandon()
        for name in (self.plan.output, wal_of(self.plan.output)):
            name.unlink(missing_ok=True)

    def _recorder(self, held: contextlib.ExitStack) -> Recorder:
        """What turns samples and events into a recording: all that it needs, while the kernel verifies the programs."""
        plan, command = self.plan, self.command
        loading = Loading(request_of(plan, command)) if plan.on_host else None
        if loading is not None:
            held.callback(loading.close)
        try:
            from unspool.capture.processes import Processes
            from unspool.capture.recorder import Recorder
            from unspool.store.header import Header
            from unspool.store.writer import prepare

            # One that short must end in time: everything is loaded before it.
            for _ in prepare() if plan.seconds is not None and plan.seconds < SHORT_SECONDS else ():
                pass
            sideband = held.enter_context(Sideband()) if plan.on_host else NoEvents()
            model = Processes(watched_processes(plan, command), follow=not plan.tids)
            if plan.on_host:
                model.scan()
        finally:
            self.sampler = loading.sampler() if loading is not None else NoSamples()
        # Events are counted one by one, so that they have no frequency.
        frequency = float(plan.frequency) if plan.trigger.kind == "cpu" else 0.0
        # Not before the programs are loaded: it may replace another recording.
        self.writer = self._open(Header.here(frequency=frequency, trigger=plan.trigger.text, command=" ".join(plan.command)))
        held.callback(self.writer.abandon)
        return held.enter_context(contextlib.closing(Recorder(self.sampler, sideband, model, self.writer)))

    def _open(self, header: Header) -> Writer:
        """The file that is written: empty until the first commit."""
        from unspool.store.writer import Writer

        return Writer(self.plan.output, header, replace=self.plan.replace, later=True)

    def _can_store(self, ending: Ending) -> bool:
        """Load what a commit needs, while the first samples are taken already, and commit; False when it is time to end before that."""
        from unspool.store.place import wal_of
        from unspool.store.writer import prepare

        for _ in prepare():
            if ending.wait(0):
                return False
            self._step()
        self._commit()
        # The log came with the commit. The file itself is not touched: closing it here would cost DuckDB its lock.
        give_away(wal_of(self.plan.output), invoking_user())
        return True

    def _step(self) -> None:
        """What is done many times a second: nothing here may take long."""
        self.recorder.step()
        if self.guests is not None:
            self.guests.step()

    def _name(self) -> Iterator[tuple[int, int]]:
        """Name the frames; after each file how many are done, and how many there are."""
        from unspool.session.recording_names import name_frames
        from unspool.session.sframe_notes import refused_sections
        from unspool.symbols.symbolizer import Symbolizer

        places = list(self.recorder.frames.take_unnamed())
        self.writer.machine(refused_sections(places))
        with Symbolizer() as symbolizer:
            if self.guests is not None:
                places += self.guests.unnamed(symbolizer, last=True)
            yield from name_frames(places, self.recorder.perf_maps, self.writer, symbolizer)

    def _take_samples(self, ending: Ending, show: Show) -> None:
        committed = time.monotonic()
        while not ending.wait(POLL_SECONDS):
            self._step()
            if self.guests is not None and self.guests.over and not self.plan.on_host:
                ending.why = ending.why or "processes"
            if time.monotonic() - committed >= COMMIT_SECONDS:
                committed = time.monotonic()
                self._commit()
                show("recording", self.progress)

    def _take_last_samples(self) -> None:
        if self._full:
            return
        self.sampler.stop()
        self._stopped = time.monotonic()
        self.sampler.flush()
        self.recorder.step(final=True)
        if self.guests is not None:
            self.guests.stop()
            self.writer.machine(self.guests.properties())
        self._commit()

    def _sampled_by(self) -> str:
        if not self.plan.on_host:
            return "guests"
        if self.plan.trigger.kind == "syscalls":
            return "system calls"
        return "hardware cycles" if self.sampler.is_hardware else "cpu-clock"

    def _count(self) -> None:
        from unspool.capture.frames import totals

        progress = self.progress
        progress.seconds = (self._stopped or time.monotonic()) - self._started
        progress.counters = dict(self.sampler.counters())
        _, progress.lost = totals(progress.counters)
        progress.samples = self.recorder.stored
        progress.tallies = self.recorder.frames.tallies
        if self.guests is not None:
            progress.samples += self.guests.stored
            progress.tallies += self.guests.tallies
            progress.lost += totals(self.guests.counters())[1]
            progress.guests, progress.refused_guests = self.guests.totals, self.guests.refused

    def _commit(self) -> None:
        with self._storing():
            self.recorder.count()
            for name, value in self.guests.counters().items() if self.guests is not None else ():
                self.writer.counter(name, value)
            self.writer.commit()
        self._count()

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except RecordingError as error:
            self._full = True
            raise NotStored(str(error), hint=error.hint) from error


def guests_of(plan: GuestPlan, frequency: float) -> Guests:
    """Their samplers, started and ready."""
    # What looks into guests is large, and most recordings have none.
    from unspool.session.guests import Guests

    return Guests(plan, frequency)


def machine_properties() -> dict[str, str]:
    """What a reader of the recording may want to know of the machine, besides what its header says."""
    found = {}
    for name, path, key in (("cpu-model", "/proc/cpuinfo", b"model name"), ("memory", "/proc/meminfo", b"MemTotal")):
        for line in (read_file(path) or b"").splitlines():
            if line.startswith(key):
                found[name] = line.partition(b":")[2].strip().decode("utf-8", "replace")
                break
    return found


def raise_priority(*, back: bool = False) -> None:
    """Get a CPU before others do: a recorder that waits for one while the kernel's ring fills up loses samples. Allowed to root only."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0 if back else NICE)


def check_rate(plan: Plan) -> None:
    """BadRequest when the kernel takes no such rate."""
    most = int(read_file("/proc/sys/kernel/perf_event_max_sample_rate") or plan.frequency)
    if plan.trigger.kind == "cpu" and plan.frequency > most:
        hint = f"Give a lower rate with -F, or: sysctl kernel.perf_event_max_sample_rate={plan.frequency}"
        raise BadRequest(f"the kernel takes at most {most} samples a second", hint=hint)


def request_of(plan: Plan, command: Command | None) -> Request:
    """What the kernel is asked for; a plan that names nothing is the whole machine."""
    pids = () if plan.everything else (*plan.pids, *([command.pid] if command else []))
    tids = () if plan.everything else plan.tids
    room = ring_bytes(plan)
    return Request(pids, tids, plan.trigger, plan.frequency, follow=not plan.tids, methods=plan.methods, ring_bytes=room)


def ring_bytes(plan: Plan) -> int:
    """Room in the kernel for RING_SECONDS of samples: so long a busy machine, or a slow disk, may keep the recorder from taking them."""
    rate = plan.frequency * len(online_cpus()) if plan.trigger.kind == "cpu" else SYSCALL_RATE
    wanted = int(rate * RING_SECONDS * RECORD_BYTES)
    # The kernel takes powers of two only.
    return min(max(1 << (wanted - 1).bit_length(), RING_LEAST), RING_MOST)


def watched_processes(plan: Plan, command: Command | None) -> list[int] | None:
    """The processes to follow, None for all of the machine."""
    if plan.everything:
        return None
    owners = [owner for owner in map(process_of, plan.tids) if owner]
    return [*plan.pids, *owners, *([command.pid] if command else [])] or None


def end_command(command: Command | None, ending: Ending) -> int | None:
    """See the command to its end; its exit status, 0 when it was we who ended it, None without a command."""
    if command is None:
        return None
    if ending.why == "command":
        return command.wait()
    # The terminal gave Ctrl-C to the command too; it may want a moment to end in its own way.
    if ending.why == "interrupted" and ending.signal is signal.SIGINT and wait_for(command, GRACE_SECONDS):
        return command.wait()
    command.send(signal.SIGTERM)
    ended = wait_for(command, GRACE_SECONDS)
    if ending.why != "interrupted" or ending.signal is None:
        return 0
    return command.wait() if ended else 128 + ending.signal


def wait_for(command: Command, seconds: float) -> bool:
    """Wait for the command's end, but no longer than that; whether it has ended."""
    deadline = time.monotonic() + seconds
    while command.poll() is None:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        select.select([command.pidfd], [], [], left)
    return True


def give_away(path: Path, user: User | None) -> None:
    """Give the recording (and its log, while there is one) to whom called sudo."""
    if user is None:
        return
    from unspool.store.place import wal_of

    for name in (path, wal_of(path)):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                os.fchown(descriptor, user.uid, user.gid)
            finally:
                os.close(descriptor)
