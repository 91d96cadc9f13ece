"""Profiles sent to a collector: tried again as OTLP asks, cut where they are too large, and every sample counted."""

from __future__ import annotations

import gzip
import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from unspool.export.options import Options
from unspool.profile.columns import Profile
from unspool.profile.slices import piece
from unspool.session.otlp_http import Answer

MOST_BYTES = 8 << 20
"""Bytes of a message before compression; the OpenTelemetry Collector's own limit is 20 MiB (confighttp, max_request_body_size)."""

PATIENCE = 300.0
"""Seconds for which a message is tried again, as the Collector's own exporters do (exporterhelper, max_elapsed_time)."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
GLANCE = 0.5
"""How often a wait looks whether it shall end."""


class Post(Protocol):
    """Where messages go: `otlp_http.Collector`, or a fake."""

    def post(self, body: bytes) -> Answer:
        """Send one message."""


class Clock(Protocol):
    """Time, and waiting that somebody may end."""

    def now(self) -> float:
        """Seconds that only grow."""

    def wait(self, seconds: float) -> bool:
        """Wait that long; True when the wait was ended early because nothing shall be sent any more."""


class Stopwatch:
    """The machine's clock; `stop` ends every wait."""

    def __init__(self) -> None:
        """It runs."""
        self._stopped = threading.Event()

    def now(self) -> float:
        """CLOCK_MONOTONIC in seconds."""
        return time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Wait."""
        return self._stopped.wait(seconds)

    def stop(self) -> None:
        """Wait no more."""
        self._stopped.set()


@dataclass(slots=True)
class Delivery:
    """What became of samples: each is in exactly one of the first five numbers. `reasons` counts samples by why they did not arrive."""

    taken: int = 0
    rejected: int = 0
    refused: int = 0
    given_up: int = 0
    overflowed: int = 0
    requests: int = 0
    again: int = 0
    bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)

    @property
    def dropped(self) -> int:
        """Samples that did not arrive."""
        return self.rejected + self.refused + self.given_up + self.overflowed

    @property
    def samples(self) -> int:
        """All samples."""
        return self.taken + self.dropped

    def drop(self, kind: str, samples: int, why: str) -> None:
        """Count samples that did not arrive."""
        setattr(self, kind, getattr(self, kind) + samples)
        self.reasons[why] += samples


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message ready to be sent: gzip of its bytes, how many samples it holds, and the profile it was made of, to cut it in two."""

    body: bytes
    samples: int
    profile: Profile


def parcels(profile: Profile) -> list[Parcel]:
    """The messages that hold the profile's samples, none longer than MOST_BYTES; one sample may be longer."""
    done: list[Parcel] = []
    waiting = [profile]
    while waiting:
        part = waiting.pop()
        raw = message(part)
        if len(raw) > MOST_BYTES and _samples(part) > 1:
            waiting += reversed(halves(part))
        else:
            done.append(Parcel(gzip.compress(raw, 6, mtime=0), _samples(part), part))
    return done


def halves(profile: Profile) -> list[Profile]:
    """The profile in two parts of its time."""
    samples = _samples(profile)
    return [piece(profile, 0, samples // 2), piece(profile, samples // 2, samples)]


def message(profile: Profile) -> bytes:
    """The bytes of an `ExportProfilesServiceRequest`. The same samples give the same profile id: a receiver may know it again."""
    from unspool.export import otlp

    data = otlp.message(profile, Options())
    (found,) = data.resource_profiles[0].scope_profiles[0].profiles
    found.profile_id = hashlib.sha256(data.SerializeToString(deterministic=True)).digest()[:16]
    return bytes(data.SerializeToString())


def _samples(profile: Profile) -> int:
    return 0 if profile.timed is None else len(profile.timed)


class Sender:
    """Sends parcels one after the other, and counts in `delivery` what became of them. Used by one thread at a time."""

    def __init__(
        self, collector: Post, *, patience: float = PATIENCE, clock: Clock | None = None, tell: Callable[[str], None] | None = None
    ) -> None:
        """Try each parcel for `patience` seconds; `tell` gets a sentence each time when one has to wait."""
        self.delivery = Delivery()
        self.hopeless = ""
        self.in_hand = 0
        self._collector = collector
        self._patience = patience
        self._clock = clock or Stopwatch()
        self._tell = tell or _silent
        self._last: float | None = None

    def hurry(self, seconds: float) -> None:
        """Be done within so many seconds from now: what is not sent by then is given up."""
        self._last = self._clock.now() + seconds

    def deliver(self, parcel: Parcel) -> None:
        """Send it, in parts where it is too large, until it is taken or cannot be. Once it is hopeless nothing is sent any more."""
        self.in_hand = parcel.samples
        waiting = [parcel]
        while waiting:
            part = waiting.pop()
            answer = self._send(part.body)
            if answer.meaning == "too-large" and part.samples > 1:
                for half in reversed(halves(part.profile)):
                    waiting += reversed(parcels(half))
                continue
            self._count(part, answer)
            self.in_hand -= part.samples

    def _count(self, parcel: Parcel, answer: Answer) -> None:
        match answer.meaning:
            case "taken":
                self.delivery.taken += parcel.samples
                if answer.says:
                    self.delivery.remarks[answer.says] += 1
            case "rejected":
                self.delivery.drop("rejected", parcel.samples, answer.says)
            case "again":
                self.delivery.drop("given_up", parcel.samples, answer.says)
            case "too-large" | "refused":
                self.delivery.drop("refused", parcel.samples, answer.says)
            case "hopeless":
                self.hopeless = answer.says
                self.delivery.drop("refused", parcel.samples, answer.says)

    def _send(self, body: bytes) -> Answer:
        """The last answer: with "again" the time is over."""
        if self.hopeless:
            return Answer("hopeless", self.hopeless)
        start, pause = self._clock.now(), FIRST_PAUSE
        while self._last is None or self._clock.now() < self._last:
            self.delivery.requests += 1
            self.delivery.bytes += len(body)
            answer = self._collector.post(body)
            if answer.meaning != "again":
                return answer
            # Senders that failed together shall not come back together.
            wait = answer.after if answer.after is not None else pause * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST_PAUSE)
            if not self._waited(wait, start + self._patience, answer.says):
                return answer
            self.delivery.again += 1
        return Answer("again", "the time to send it was over")

    def _waited(self, seconds: float, end: float, why: str) -> bool:
        """Wait; False when it is not worth it, because the time is over before."""
        until = self._clock.now() + seconds
        if until <= end:
            self._tell(f"{why}; sending again in {seconds:.0f} s")
        while (now := self._clock.now()) < until:
            if until > end or (self._last is not None and until > self._last) or self._clock.wait(min(until - now, GLANCE)):
                return False
        return True


def _silent(_: str) -> None:
    return
