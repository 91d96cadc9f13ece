"""The decoder's process as its parent sees it: asked with a time limit, given guest memory, started again when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

from unspool import sandbox
from unspool.capture.guest_channel import Channel, Closed, Kind, Message, TimedOut, pair
from unspool.formats.paging import PAGE
from unspool.model.memory import Memory

MAX_READ = 1 << 20
"""Bytes of guest memory that one request of the decoder's may ask for."""
LONGEST_READ = 64 << 20
"""Bytes that one read of the decoder's may have; it asks for them piece by piece."""
MAX_READS = 2_000_000
"""Reads that the decoder may ask for while it works on one request."""
MOST_AHEAD = 64
"""Pages that the decoder may ask for at once."""
READ = struct.Struct("<QI")


class DecoderDied(Exception):
    """The decoder crashed, ran out of time or answered nonsense; it is gone."""


class Handler(Protocol):
    """What runs in the decoder: makes the answer of a request, a value that JSON can say, bytes, or None for no bytes."""

    def __call__(self, request: dict[str, object]) -> object:
        """The answer."""


Prepare = Callable[[Memory, list[int]], Handler]
"""Runs in the new process while it has its privileges: gets guest memory as its parent reads it, and the descriptors given to it."""


class Decoder:
    """One decoder process: asked with `ask`, or, where it must not take long, with `begin`, `wait` and (when it was late) `wait` again."""

    def __init__(self, prepare: Prepare, physical: Memory, descriptors: Sequence[int] = ()) -> None:
        """Fork. `physical` answers the decoder's reads; `descriptors` are open in it, too."""
        self._physical = physical
        ours, theirs = pair()
        with warnings.catch_warnings():
            # A recorder may have threads; the child uses none of what they hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _child(theirs, prepare, descriptors)
        theirs.close()
        self._channel = Channel(ours)

    @property
    def pid(self) -> int:
        """Its process id, 0 when it is gone."""
        return self._pid

    def ask(self, request: dict[str, object], seconds: float) -> object:
        """The answer; DecoderDied when there is none in time."""
        self.begin(request)
        try:
            return self.wait(seconds)
        except TimedOut as error:
            raise self._dead("it took too long") from error

    def begin(self, request: dict[str, object]) -> None:
        """Send a request whose answer `wait` will give."""
        try:
            self._channel.send_value(request)
        except Closed as error:
            raise self._dead(str(error)) from error

    def wait(self, seconds: float) -> object:
        """The answer; TimedOut when it did not come in time (it may be waited for again), DecoderDied when it never will."""
        deadline = time.monotonic() + seconds
        try:
            for _ in range(MAX_READS):
                message = self._channel.receive(deadline)
                if message.kind != Kind.READ:
                    return _answer(message)
                self._serve(message)
        except Closed as error:
            raise self._dead(str(error)) from error
        raise self._dead("it reads without end")

    def condemn(self, reason: str) -> DecoderDied:
        """End it because it answered nonsense; the error to raise."""
        return self._dead(reason)

    def close(self) -> None:
        """End the process and reap it; again is harmless."""
        self._channel.close()
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0

    def _serve(self, message: Message) -> None:
        count, rest = divmod(len(message.body), READ.size)
        if rest or not 0 < count <= MOST_AHEAD:
            raise Closed("a read that is none")
        if count > 1:
            self._serve_pages(message.body)
            return
        address, size = READ.unpack(message.body)
        if size > MAX_READ:
            raise Closed("a read that is too large")
        data = self._physical.read(address, size)
        self._channel.send(Kind.NOTHING if data is None else Kind.BYTES, data or b"")

    def _serve_pages(self, body: bytes) -> None:
        """Answer with a byte for each page (1: it is there), and those that are."""
        pages = []
        for address, size in READ.iter_unpack(body):
            if size != PAGE:
                raise Closed("pages that are none")
            pages.append(self._physical.read(address, PAGE))
        self._channel.send(Kind.BYTES, bytes(page is not None for page in pages) + b"".join(page or b"" for page in pages))

    def _dead(self, reason: str) -> DecoderDied:
        self.close()
        return DecoderDied(reason)


class AskedMemory:
    """Guest-physical memory in the decoder, read by its parent where the decoder has no descriptor of it.

    A question takes longer than most of what is done with its answer, and a vCPU is held meanwhile. So the pages that the last sample of
    that vCPU needed are asked for together. Only which ones they were is remembered: their bytes are of this request, and are given once.
    """

    def __init__(self, channel: Channel) -> None:
        """Ask through that channel."""
        self._channel = channel
        self._needed: dict[int, list[int]] = {}
        self._now: list[int] | None = None
        self._wanted: list[int] = []
        self._ahead: dict[int, bytes | None] = {}

    def renew(self, vcpu: int | None) -> None:
        """Another request begins: a sample of that vCPU, or (None) something else, for which nothing is asked ahead."""
        self._ahead.clear()
        self._now, self._wanted = None, []
        if vcpu is not None:
            self._wanted = self._needed.get(vcpu, [])
            self._now = self._needed[vcpu] = []

    def read(self, address: int, size: int) -> bytes | None:
        """The bytes, None where there are none."""
        if self._now is not None and size == PAGE and len(self._now) < MOST_AHEAD:
            if self._wanted:
                self._look_ahead()
            self._now.append(address)
            if address in self._ahead:
                return self._ahead.pop(address)
        return self._asked(address, size)

    def _look_ahead(self) -> None:
        wanted, self._wanted = list(dict.fromkeys(self._wanted)), []
        if len(wanted) < 2:
            return
        self._channel.send(Kind.READ, b"".join(READ.pack(address, PAGE) for address in wanted))
        message = self._channel.receive()
        there, data = message.body[: len(wanted)], message.body[len(wanted) :]
        if message.kind != Kind.BYTES or len(data) != PAGE * sum(there):
            return
        at = 0
        for address, is_there in zip(wanted, there, strict=True):
            self._ahead[address] = data[at : at + PAGE] if is_there else None
            at += PAGE * is_there

    def _asked(self, address: int, size: int) -> bytes | None:
        if not 0 < size <= LONGEST_READ or not 0 <= address <= (1 << 64) - size:
            return None
        parts = []
        for start in range(0, size, MAX_READ):
            length = min(MAX_READ, size - start)
            self._channel.send(Kind.READ, READ.pack(address + start, length))
            message = self._channel.receive()
            if message.kind != Kind.BYTES or len(message.body) != length:
                return None
            parts.append(message.body)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _answer(message: Message) -> object:
    if message.kind == Kind.JSON:
        return message.value()
    if message.kind == Kind.BYTES:
        return message.body
    if message.kind == Kind.NOTHING:
        return None
    raise Closed("a message of no kind")


def _child(theirs: object, prepare: Prepare, descriptors: Sequence[int]) -> None:
    """The decoder's whole life; it never returns into the copied program."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        channel = Channel(sandbox.keep_only(theirs, *descriptors))  # type: ignore[arg-type]
        memory = AskedMemory(channel)
        handler = prepare(memory, list(range(4, 4 + len(descriptors))))
        # A recording may go on for days: each request has its own time limit instead.
        sandbox.restrict(cpu_seconds=None)
        while True:
            request = channel.receive().value()
            assert isinstance(request, dict)
            memory.renew(request.get("vcpu") if request.get("op") == "sample" else None)
            answer = handler(request)
            if answer is None:
                channel.send(Kind.NOTHING, b"")
            elif isinstance(answer, bytes):
                channel.send(Kind.BYTES, answer)
            else:
                channel.send_value(answer)
    except BaseException:  # noqa: BLE001 (whatever it is, this process ends here)
        os._exit(1)
