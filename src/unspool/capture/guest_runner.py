"""The sampler's process as the recorder sees it: started for one machine, told to stop, and read from without ever waiting for it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from unspool import sandbox
from unspool.capture.guest_channel import Channel, Closed, Message, TimedOut, pair
from unspool.capture.guest_decoder import preparation
from unspool.capture.guest_events import CannotSample, Ended, Event, EventSender, Ready, events
from unspool.capture.guest_opening import open_registers
from unspool.capture.guest_process import Decoder
from unspool.capture.guest_sampler import GuestSampler, Settings
from unspool.errors import UnspoolError
from unspool.model.verdict import Trust
from unspool.targets.guest.machines import Machine
from unspool.targets.guest.opening import open_ram

NICE = -15
_BROKEN = "its sampler ended unexpectedly"


@dataclass(frozen=True, slots=True)
class How:
    """How to sample a machine: `registers` names the back end, `memory` is a layout of its RAM; None lets Unspool choose.

    `symbols` are the bytes of kallsyms, System.map or vmlinux, for a kernel that has no names in its memory. `method` finds the kernel's
    frames: ORC, or a guess instead of it.
    """

    settings: Settings = field(default_factory=Settings)
    registers: str | None = None
    memory: str | None = None
    symbols: bytes | None = None
    method: Trust = Trust.ORC


class SamplerProcess:
    """One sampler. `waiting` gives what came; `stop` asks it to end, and its last event is then `Ended`."""

    def __init__(self, machine: Machine, how: How) -> None:
        """Fork."""
        self.machine = machine
        ours, theirs = pair()
        with warnings.catch_warnings():
            # A recorder may have threads; the child uses none of what they hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _child(lambda: Channel(sandbox.keep_only(theirs)), machine, how)
        theirs.close()
        self._channel = Channel(ours)
        self._over = False

    def fileno(self) -> int:
        """The descriptor that is readable when something came."""
        return self._channel.fileno()

    def waiting(self) -> list[Event]:
        """What came since the last call; after an `Ended` or `CannotSample` nothing more."""
        if self._over:
            return []
        try:
            found = list(events(self._channel.waiting()))
        except Closed:
            found = [Ended(_BROKEN)]
        self._over = any(isinstance(event, Ended | CannotSample) for event in found)
        return found

    def first(self, seconds: float) -> Ready | CannotSample | Ended:
        """Whether it can sample: its first event, waited for."""
        deadline = time.monotonic() + seconds
        try:
            message = self._channel.receive(deadline)
            event = next(events([message]))
        except TimedOut:
            return Ended("its sampler did not answer in time")
        except Closed:
            return Ended(_BROKEN)
        assert isinstance(event, Ready | CannotSample | Ended)
        return event

    def pause(self) -> None:
        """Ask it to leave the guest alone until `start`."""
        with contextlib.suppress(Closed):
            self._channel.send_value({"type": "pause"})

    def start(self) -> None:
        """Let it begin, once it is ready; or go on after `pause`."""
        with contextlib.suppress(Closed):
            self._channel.send_value({"type": "start"})

    def stop(self) -> None:
        """Ask it to end; what it found until then comes first."""
        with contextlib.suppress(Closed):
            self._channel.send_value({"type": "stop"})

    def close(self) -> None:
        """End it now, and reap it; a guest that it held runs on (its watchdog sees to that). Again is harmless."""
        self._over = True
        self._channel.close()
        if self.pid:
            # Its channel is closed: it ends by itself, unless it hangs.
            _reap(self.pid, 2.0)
            self.pid = 0


def _reap(pid: int, patience: float) -> None:
    with contextlib.suppress(ChildProcessError):
        waiter = os.pidfd_open(pid)
        try:
            if not select.select([waiter], [], [], patience)[0]:
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        finally:
            os.close(waiter)


def _child(connect: Callable[[], Channel], machine: Machine, how: How) -> None:
    """The sampler's whole life; it never returns into the copied program."""
    try:
        # Ctrl-C and the end of the terminal are the recorder's to answer.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        channel = connect()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
        with contextlib.suppress(Closed):
            _sample(channel, machine, how)
    except BaseException:  # noqa: BLE001 (whatever it is, this process ends here)
        os._exit(1)
    os._exit(0)


def _sample(channel: Channel, machine: Machine, how: How) -> None:
    sender = EventSender(channel)
    with contextlib.ExitStack() as held:
        try:
            ram = open_ram(machine, how.memory)
            held.callback(ram.close)
            source = open_registers(machine, how.registers)
            held.callback(source.close)
        except UnspoolError as error:
            sender.cannot(str(error), error.hint or "")
            return
        prepare = preparation(ram.extents(), how.symbols, how.method)
        descriptors = [] if ram.fd is None else [ram.fd]
        sampler = GuestSampler(source, lambda: Decoder(prepare, ram, descriptors), sender, how.settings)
        held.callback(sampler.close)
        sampler.prepare()
        sender.ready(Ready(source.name, ram.kind, machine.accel))
        # The clock of the recording starts with its first sample.
        channel.receive()
        reason = sampler.run(lambda seconds: _told_to_stop(channel, seconds))
        sampler.close()
        sender.ended(reason)


def _told_to_stop(channel: Channel, seconds: float) -> bool:
    """Wait so long for the recorder's word, or while it wants a pause; whether it wants the end. Closed when the recorder is gone."""
    messages = channel.within(seconds)
    paused = False
    while True:
        for message in messages:
            word = _word(message)
            if word not in {"start", "pause"}:
                return True
            paused = word == "pause"
        if not paused:
            return False
        messages = [channel.receive()]


def _word(message: Message) -> object:
    said = message.value()
    return said.get("type") if isinstance(said, dict) else None
