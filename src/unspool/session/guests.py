"""The guests of a recording: which ones, their samplers started and stopped, and what they tell written by the recorder's one writer."""

from __future__ import annotations

import contextlib
import select
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.capture.frames import Place, Tally
from unspool.capture.guest_budget import Limits
from unspool.capture.guest_events import Ready
from unspool.capture.guest_runner import How, SamplerProcess
from unspool.capture.guest_sampler import Settings
from unspool.errors import BadRequest, NoSuchTarget, Unsupported
from unspool.model.verdict import Trust
from unspool.session.guest_feed import GuestFeed, GuestTotals, summed
from unspool.targets.guest.machines import Machine, find_machines
from unspool.targets.guest.machines import select as select_machines

if TYPE_CHECKING:
    from unspool.session.guest_sink import GuestSink
    from unspool.symbols.symbolizer import Symbolizer

READY_SECONDS = 90.0
STOP_SECONDS = 30.0
"""How long a sampler may take to hand over what it has after it was told to stop."""
MAX_SYMBOLS = 1 << 30


@dataclass(frozen=True, slots=True)
class GuestPlan:
    """Which guests (`all`, or names, UUIDs and pids), and how to read them; see `How` for `registers` and `memory`.

    `symbols` is a file with the kernel's names for kernels that have none in memory, `sysroot` a folder with copies of the guests' files.
    `method` finds the frames of their kernels: ORC, or the guesses FRAME_POINTER and SCAN in its place.
    """

    wanted: str
    registers: str | None = None
    memory: str | None = None
    symbols: Path | None = None
    sysroot: Path | None = None
    limits: Limits = field(default_factory=Limits)
    method: Trust = Trust.ORC

    def how(self, frequency: float) -> How:
        """What each sampler is told; BadRequest when the file with names cannot be read."""
        return How(Settings(frequency, self.limits), self.registers, self.memory, _symbols(self.symbols), self.method)

    def machines(self) -> list[Machine]:
        """The machines that are meant; NoSuchTarget when there are none."""
        found = select_machines(self.wanted, find_machines())
        if not found:
            raise NoSuchTarget("there is no virtual machine on this host", hint="`unspool guest list` says what it looks for.")
        return found


def _symbols(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        if path.stat().st_size > MAX_SYMBOLS:
            raise BadRequest(f"{path} is too large for a file with a kernel's names")
        return path.read_bytes()
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}") from error


class Guests:
    """The guests of one recording. `start` forks their samplers, so that it comes before threads and large libraries."""

    def __init__(self, plan: GuestPlan, frequency: float) -> None:
        """Fork a sampler for each machine and wait until each says whether it can sample; an UnspoolError when a named one cannot."""
        how = plan.how(frequency)
        self._sysroot, self._method = plan.sysroot, plan.method
        if self._sysroot is not None and not self._sysroot.is_dir():
            raise BadRequest(f"{self._sysroot} is no folder")
        self._samplers: list[SamplerProcess] = []
        self._ready: list[Ready] = []
        self._feeds: list[GuestFeed] = []
        self.refused: list[tuple[str, str]] = []
        try:
            starting = [SamplerProcess(machine, how) for machine in plan.machines()]
            self._samplers += starting
            for sampler in starting:
                self._begun(sampler, tolerant=plan.wanted == "all")
        except BaseException:
            self.close()
            raise
        if not self._samplers:
            self.close()
            name, why = self.refused[0]
            raise Unsupported(f"no guest can be sampled; {name!r}: {why}", hint="`unspool guest list` says what is missing.")

    @property
    def over(self) -> bool:
        """Whether every guest has ended."""
        return bool(self._feeds) and all(feed.over for feed in self._feeds)

    @property
    def stored(self) -> int:
        """Samples written."""
        return sum(feed.totals.samples for feed in self._feeds)

    @property
    def tallies(self) -> list[Tally]:
        """What was counted, of all guests."""
        return [tally for feed in self._feeds for tally in feed.tallies]

    @property
    def totals(self) -> list[GuestTotals]:
        """What became of each guest."""
        return [feed.totals for feed in self._feeds]

    def counters(self) -> dict[str, int]:
        """The counters of all guests together."""
        return dict(summed(self._feeds))

    def start(self, writer: GuestSink) -> None:
        """Let the samplers begin; what they tell goes to `writer`."""
        for sampler, ready in zip(self._samplers, self._ready, strict=True):
            feed = GuestFeed(sampler.machine, writer, self._sysroot)
            feed.totals.method = self._method
            feed.take(ready)
            self._feeds.append(feed)
            sampler.start()

    def renew(self, writer: GuestSink) -> None:
        """Write to this one from now on, which knows nothing yet."""
        for feed in self._feeds:
            feed.renew(writer)

    def sample(self, *, on: bool) -> None:
        """Go on sampling, or leave the guests alone until told to go on."""
        for sampler in self._samplers:
            if on:
                sampler.start()
            else:
                sampler.pause()

    def step(self) -> None:
        """Write what came since the last call."""
        for sampler, feed in zip(self._samplers, self._feeds, strict=False):
            for event in sampler.waiting():
                feed.take(event)

    def stop(self) -> None:
        """Stop sampling, and write everything that was found."""
        for sampler in self._samplers:
            sampler.stop()
        deadline = time.monotonic() + STOP_SECONDS
        while self._feeds and not self.over and time.monotonic() < deadline:
            waiting = [sampler for sampler, feed in zip(self._samplers, self._feeds, strict=True) if not feed.over]
            select.select(waiting, [], [], 0.2)
            self.step()
        for sampler in self._samplers:
            sampler.close()

    def properties(self) -> dict[str, str]:
        """What is said of each guest in the recording, besides its rows."""
        found = {f"guest {feed.totals.name} ({feed.machine.pid})": described(feed.totals) for feed in self._feeds}
        return {"guest-method": self._method.label} | found

    def unnamed(self, symbolizer: Symbolizer, *, last: bool = False) -> list[Place]:
        """User frames that came since the last call and can be looked up (`GuestFeed.unnamed`)."""
        return [place for feed in self._feeds for place in feed.unnamed(symbolizer, last=last)]

    def close(self) -> None:
        """End the samplers; again is harmless."""
        for sampler in self._samplers:
            sampler.close()
        for feed in self._feeds:
            feed.close()

    def _begun(self, sampler: SamplerProcess, *, tolerant: bool) -> None:
        first = sampler.first(READY_SECONDS)
        if isinstance(first, Ready):
            self._ready.append(first)
            return
        message = getattr(first, "message", "") or getattr(first, "reason", "")
        hint = getattr(first, "hint", "")
        if not tolerant:
            raise Unsupported(message, hint=hint or None)
        self._samplers.remove(sampler)
        self.refused.append((sampler.machine.name, message))
        with contextlib.suppress(OSError):
            sampler.close()


def described(totals: GuestTotals) -> str:
    """What sampling a guest has brought and cost, in words."""
    parts = [f"{totals.samples} samples by {totals.registers_by}", f"{totals.idle} idle"]
    if totals.lost:
        parts.append(f"{totals.lost} lost")
    if totals.held:
        parts.append(f"held {totals.held:.3f} s, median {totals.median * 1000:.2f} ms, longest {totals.longest * 1000:.2f} ms")
    parts.append(f"rate at the end {totals.rate:.0f} Hz")
    if totals.ended:
        parts.append(f"ended: {totals.ended}")
    return ", ".join(parts)
