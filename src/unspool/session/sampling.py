"""What runs now, sampled into memory: the kernel's sampler, guests, processes and names put together, for a live view and for `push`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from unspool.capture.frames import totals
from unspool.capture.kernel import Sampler
from unspool.capture.processes import Processes
from unspool.capture.recorder import Recorder
from unspool.capture.sideband import Sideband
from unspool.profile.columns import About
from unspool.session.no_host import NoEvents, NoSamples
from unspool.session.recording import Plan, check_rate, guests_of, raise_priority, request_of, watched_processes
from unspool.session.recording_names import JitNames, name_frames
from unspool.session.windows import Window, Windows
from unspool.symbols.symbolizer import Symbolizer

if TYPE_CHECKING:
    from types import TracebackType

    from unspool.profile.columns import Profile

STEP_SECONDS = 0.05
"""How often `step` wants to be called: the kernel's ring holds some five seconds of samples."""

MOST_FILES = 2000
"""Files that names were looked up in, before everything is begun anew: each keeps two descriptors open."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Samples of a stretch of time (CLOCK_MONOTONIC), and how many of it were lost."""

    window: Window
    start_ns: int
    end_ns: int
    lost: int


class Sampling:
    """A running sampler and what it saw. As a context manager it samples from start to end; nothing stays in the kernel behind it.

    `epoch` grows when everything was begun anew: windows of an earlier epoch mean nothing any more. Use it from one thread.
    """

    def __init__(self, plan: Plan, *, lines: bool) -> None:
        """Load the programs (NotPermitted, Unsupported, BadRequest); with `lines` names have source lines and inlined calls.

        Guests are looked for and made ready; an UnspoolError when a named one cannot be sampled.
        """
        check_rate(plan)
        self.plan = plan
        self.epoch = 0
        self._lines = lines
        self._files: set[object] = set()
        self._dropped = 0
        self._lost = 0
        self._start_ns = 0
        with contextlib.ExitStack() as held:
            # What is forked comes first: no thread and no large library is in the process yet.
            self.guests = None if plan.guests is None else held.enter_context(contextlib.closing(guests_of(plan.guests, plan.frequency)))
            # Guests keep theirs when everything is begun anew: their samplers tell of a file once.
            self._guest_names = held.enter_context(contextlib.closing(Symbolizer(lines=lines)))
            self._symbolizer = held.enter_context(Symbolizer(lines=lines))
            self._sampler = held.enter_context(contextlib.closing(Sampler(request_of(plan, None)) if plan.on_host else NoSamples()))
            self._sideband: Sideband | NoEvents = held.enter_context(Sideband()) if plan.on_host else NoEvents()
            self._begin(watched_processes(plan, None))
            self._held = held.pop_all()

    def __enter__(self) -> Self:
        """Start to sample."""
        try:
            self._sampler.start()
            if self.guests is not None:
                self.guests.start(self._windows)
        except BaseException:
            self.close()
            raise
        self._start_ns = time.monotonic_ns()
        raise_priority()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop, and unload everything."""
        self.close()

    def close(self) -> None:
        """Unload everything; again is harmless."""
        self._recorder.close()
        self._held.close()
        self._symbolizer.close()

    def step(self) -> None:
        """Take what the kernel and the guests' samplers have. Call it every STEP_SECONDS."""
        self._recorder.step()
        if self.guests is not None:
            self.guests.step()

    def stop(self) -> None:
        """Take no more samples; what was taken can still be had."""
        self._sampler.stop()
        self._sampler.flush()
        self._recorder.step(final=True)
        if self.guests is not None:
            self.guests.stop()

    @property
    def over(self) -> bool:
        """Whether there is nothing left to sample: guests alone were asked for, and all have ended."""
        return self.guests is not None and self.guests.over and not self.plan.on_host

    def take(self) -> Taken:
        """The samples since the last call."""
        self._recorder.count()
        now = time.monotonic_ns()
        _, lost = totals(self._windows.counters)
        lost += self._dropped + self._windows.dropped + (totals(self.guests.counters())[1] if self.guests is not None else 0)
        taken = Taken(self._windows.take(), self._start_ns, now, lost - self._lost)
        self._start_ns, self._lost = now, lost
        return taken

    def name(self, between: Callable[[], None] | None = None, *, last: bool = False) -> None:
        """Look up the names of frames that came since the last call; `between` is called after each file, for it may take a second.

        Frames of guests wait until their file was fetched, but for the `last` call.
        """
        places = self._recorder.frames.take_unnamed()
        for pid in {place.pid for place in places if place.kind == "jit"}:
            # Code that is made while we look: the map has grown since it was read.
            text = self._recorder.perf_maps.read(pid)
            if text is not None:
                self._symbolizer.add(("jit", pid), JitNames(text))
        self._files.update(place.file or place.path for place in places)
        for _ in name_frames(places, self._recorder.perf_maps, self._windows, self._symbolizer):
            if between is not None:
                between()
        if self.guests is not None:
            theirs = self.guests.unnamed(self._guest_names, last=last)
            for _ in name_frames(theirs, self._recorder.perf_maps, self._windows, self._guest_names):
                if between is not None:
                    between()

    def profile(self, taken: list[Taken], about: About) -> Profile:
        """The samples of these windows, with the names that are known by now."""
        return self._windows.profile([part.window for part in taken], about)

    def renew(self) -> bool:
        """Begin anew when too much is remembered; whether it did. Take what there is before: it is forgotten.

        What came since then, and waits for its events, is counted as lost: some milliseconds in a session of hours.
        """
        if not self._windows.full and len(self._files) < MOST_FILES:
            return False
        self._recorder.step(final=True)
        self._dropped += self._windows.dropped + len(self._windows.take())
        running = [process.pid for process in self._processes if process.exit_ns is None]
        everything = watched_processes(self.plan, None) is None
        self._recorder.close()
        self._symbolizer.close()
        self._symbolizer = Symbolizer(lines=self._lines)
        self._begin(None if everything else running)
        if self.guests is not None:
            self.guests.renew(self._windows)
        self.epoch += 1
        return True

    def _begin(self, watched: list[int] | None) -> None:
        self._windows = Windows()
        self._files.clear()
        self._processes = Processes(watched, follow=not self.plan.tids)
        if self.plan.on_host:
            self._processes.scan()
        self._recorder = Recorder(self._sampler, self._sideband, self._processes, self._windows)
