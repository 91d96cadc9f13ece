"""The recorder's end of the live page: rows and state go out without ever waiting, two words come back."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable

from unspool.store import wire

MOST_WAITING = 64 << 20
"""Bytes that wait for a page that does not read. Then it is given up: the recording matters more."""
PATIENCE_SECONDS = 5.0
"""How long the page's process may take for the last rows, and then to end."""
_STEP_SECONDS = 0.01


class Feed:
    """The channel to the page's process. `gone` is set when nobody listens any more; then everything here does nothing."""

    def __init__(self, channel: socket.socket, pid: int) -> None:
        """Take our end, and the process at the other one."""
        channel.settimeout(0)
        self.gone = False
        self._channel = channel
        self._pid = pid
        self._waiting: deque[memoryview] = deque()
        self._size = 0

    def rows(self, rows: wire.Rows) -> None:
        """Rows that were committed."""
        if not self.gone:
            self._send(wire.message(wire.Kind.ROWS, wire.encoded(rows)))

    def state(self, **said: float | bool) -> None:
        """What the page is to know beside rows: the fields of `web.live_profile.State`."""
        if not self.gone:
            self._send(wire.message(wire.Kind.STATE, json.dumps(said).encode()))

    def attend(self) -> bytes:
        """Send what can be sent now; the last word that came: b"" for none. Anything else than the two words is not heard."""
        word = b""
        while not self.gone:
            try:
                said = self._channel.recv(256)
            except BlockingIOError:
                break
            except OSError:
                said = b""
            if not said:
                self._give_up()
            last = max(said.rfind(wire.START), said.rfind(wire.STOP))
            word = said[last : last + 1] if last >= 0 else word
        self._pump()
        return word

    def flush(self) -> None:
        """Send everything, for some seconds at most."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._waiting and not self.gone and time.monotonic() < deadline:
            select.select([], [self._channel], [], _STEP_SECONDS)
            self._pump()

    def linger(self) -> None:
        """Wait until the page's process is gone, or a signal comes."""
        if not self.gone:
            self._channel.settimeout(None)
        while not self.gone:
            try:
                if not self._channel.recv(256):
                    break
            except OSError:
                break

    def close(self) -> None:
        """Let go of the page and see its process end; again is harmless."""
        self._give_up()
        if not self._pid:
            return
        deadline = time.monotonic() + PATIENCE_SECONDS
        while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                break
            time.sleep(_STEP_SECONDS)
        self._pid = 0

    def _send(self, data: bytes) -> None:
        self._waiting.append(memoryview(data))
        self._size += len(data)
        self._pump()
        if self._size > MOST_WAITING:
            sys.stderr.write("unspool: the live page does not keep up and is ended; the recording goes on\n")
            self._give_up()

    def _pump(self) -> None:
        while self._waiting and not self.gone:
            try:
                sent = self._channel.send(self._waiting[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError:
                self._give_up()
                return
            self._size -= sent
            self._waiting[0] = self._waiting[0][sent:]
            if not self._waiting[0]:
                self._waiting.popleft()

    def _give_up(self) -> None:
        self.gone = True
        self._waiting.clear()
        self._size = 0
        self._channel.close()


def forked(serve: Callable[[socket.socket], None], kept: socket.socket) -> Feed:
    """A feed to a child process that runs `serve` with its end of the channel, and ends; of our files it has `kept` and the standard ones.

    To be called early: what this process has not opened or imported yet, the child does not have.
    """
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # A caller may have threads; the child uses none of what they hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _child(serve, theirs, kept)
    theirs.close()
    return Feed(ours, pid)


def _child(serve: Callable[[socket.socket], None], channel: socket.socket, kept: socket.socket) -> None:
    """The child's whole life; it never returns into the copied program."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        _close_all_but({0, 1, 2, channel.fileno(), kept.fileno()})
        serve(channel)
        status = 0
    except BaseException as error:  # noqa: BLE001 (whatever it is, this process ends here)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"unspool: the live page ends: {error}\n")
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _close_all_but(kept: set[int]) -> None:
    start = 0
    for number in [*sorted(kept), 1 << 20]:
        # An empty range that ends at 0 is no empty range for Python 3.11.
        if start < number:
            os.closerange(start, number)
        start = number + 1
