"""What runs now, sent to a collector every some seconds: one thread samples, one sends, and a bounded queue lies between them."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from unspool.capture.ending import Ending
from unspool.profile.columns import About
from unspool.profile.slices import slices
from unspool.session.otlp_sender import Delivery, Parcel, Sender, parcels
from unspool.session.recording import Plan
from unspool.session.sampling import STEP_SECONDS, Sampling, Taken
from unspool.store.header import Header

WAITING = 32
"""Parcels that wait for the collector at most. What comes when they are so many is counted, and not sent."""

MOST_SAMPLES = 10_000
"""Samples of one message: to make a larger one would keep the sampler waiting."""

LAST_SECONDS = 30.0
"""How long the last messages are tried when the session is over."""


class Courier:
    """Sends what is put into it from a thread of its own. `delivery` may be read when it is closed; `waiting` at any time."""

    grace = 35.0
    """Seconds that a request may take beyond the end: the client's own limit, and some."""

    def __init__(self, sender: Sender, room: int = WAITING) -> None:
        """Start the thread."""
        self.failed: Exception | None = None
        self._sender = sender
        self._queue: queue.Queue[Parcel | None] = queue.Queue(room)
        self._overflowed = 0
        self._thread = threading.Thread(target=self._run, name="unspool-push", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Parcels that are not sent yet."""
        return self._queue.qsize()

    @property
    def over(self) -> bool:
        """Whether nothing can be sent any more."""
        return bool(self._sender.hopeless) or not self._thread.is_alive()

    def put(self, parcel: Parcel) -> None:
        """Send it when its turn comes; when too many wait it is only counted."""
        try:
            self._queue.put_nowait(parcel)
        except queue.Full:
            self._overflowed += parcel.samples

    def close(self, seconds: float = LAST_SECONDS) -> Delivery:
        """Send what still waits, for that long at most; what became of everything. Ctrl-C ends the wait.

        A fault of ours in the sending thread is raised here, when all is counted.
        """
        self._sender.hurry(seconds)
        patience = seconds + self.grace
        deadline = time.monotonic() + patience
        with contextlib.suppress(queue.Full, KeyboardInterrupt):
            if self._thread.is_alive():
                # A full queue has room again when the sender has given its first parcel up.
                self._queue.put(None, timeout=patience)
            self._thread.join(max(0.0, deadline - time.monotonic()))
        delivery = self._sender.delivery
        unsent = self._sender.in_hand + self._left()
        if unsent:
            delivery.drop("given_up", unsent, "not sent until the end")
        if self._overflowed:
            delivery.drop("overflowed", self._overflowed, "the collector was too slow: too much waited for it")
        if self.failed is not None:
            raise self.failed
        return delivery

    def _left(self) -> int:
        """Take what waits out of the queue; its samples."""
        samples = 0
        while True:
            try:
                parcel = self._queue.get_nowait()
            except queue.Empty:
                return samples
            samples += parcel.samples if parcel is not None else 0

    def _run(self) -> None:
        try:
            while (parcel := self._queue.get()) is not None:
                self._sender.deliver(parcel)
        except Exception as error:  # noqa: BLE001 (`close` raises it)
            self.failed = error


@dataclass(slots=True)
class Pushing:
    """How far a session is: `kernel_lost` counts samples that the kernel or a guest could not give; they are in no message.

    `refused_guests`: those of all guests that cannot be sampled, with the reason.
    """

    samples: int = 0
    kernel_lost: int = 0
    waiting: int = 0
    delivery: Delivery | None = None
    refused_guests: list[tuple[str, str]] = field(default_factory=list)


def push_live(plan: Plan, sender: Sender, interval: float, ending: Ending, show: Callable[[Pushing], None]) -> Pushing:
    """Sample and send until it is time to end, or sending is hopeless; what became of every sample."""
    state = Pushing()
    with Sampling(plan, lines=True) as sampling:
        if sampling.guests is not None:
            state.refused_guests = sampling.guests.refused
        ending.start()
        courier = Courier(sender)
        try:
            due = time.monotonic() + interval
            while not ending.wait(STEP_SECONDS) and not courier.over and not sampling.over:
                sampling.step()
                if time.monotonic() >= due:
                    due = max(due + interval, time.monotonic())
                    _send_window(sampling, courier, state)
                    sampling.renew()
                    show(state)
            sampling.stop()
            _send_window(sampling, courier, state, last=True)
        finally:
            state.delivery = courier.close()
    return state


def _send_window(sampling: Sampling, courier: Courier, state: Pushing, *, last: bool = False) -> None:
    """Put the samples since the last window into the queue."""
    taken = sampling.take()
    state.samples += len(taken.window)
    state.kernel_lost += taken.lost
    sampling.name(between=sampling.step, last=last)
    whole = sampling.profile([taken], about(sampling.plan, taken))
    for part in slices(whole, MOST_SAMPLES):
        for parcel in parcels(part):
            courier.put(parcel)
        sampling.step()
    state.waiting = courier.waiting


def about(plan: Plan, taken: Taken) -> About:
    """Where a window's samples come from."""
    header = Header.here(frequency=float(plan.frequency))
    started = header.started_ns - (header.monotonic_ns - taken.start_ns)
    seconds = (taken.end_ns - taken.start_ns) / 1e9
    return About(
        hostname=header.hostname,
        kernel=header.kernel,
        arch=header.arch,
        cpus=header.cpus,
        started_ns=started,
        monotonic_ns=taken.start_ns,
        duration_s=seconds,
        frequency=header.frequency,
        command=program_of(plan.pids[0]) if len(plan.pids) == 1 else "",
        lost=taken.lost,
    )


def program_of(pid: int) -> str:
    """The file that a process runs, empty when that cannot be known."""
    try:
        return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 (text, not a file)
    except OSError:
        return ""
