"""A forked process without privileges that parses files for us: it gets file descriptors, and its answers are data to be checked."""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import struct
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

MAX_MESSAGE = 64 << 20
"""Bytes of one request or answer."""
_LENGTH = struct.Struct("<I")
_MAX_FDS = 8

Handler = Callable[[Any, list[int]], object]
"""Makes the answer (what JSON can say) of a request and the descriptors that came with it; it closes or keeps them."""


class ParserDied(Exception):
    """The worker crashed, ran out of time or memory, or answered nonsense; it is gone."""


class Worker:
    """One parser process. `prepare` runs in it first and gives the handler; then it is restricted for good (`sandbox.restrict`).

    Forked, not spawned: the interpreter is already there, so a worker costs a few milliseconds.
    """

    def __init__(self, prepare: Callable[[], Handler], *, timeout: float = 60.0) -> None:
        """Fork. `timeout` (seconds) holds for each request."""
        self._timeout = timeout
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            # A recorder may have threads; the child uses none of what they hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            _child(theirs, prepare)
        theirs.close()
        self._socket = ours
        self._owner = os.getpid()
        self.requests = 0

    def ask(self, request: object, descriptors: Sequence[int] = ()) -> object:
        """The answer; ParserDied when there is none in time. What it holds is not to be believed before it was checked."""
        self.requests += 1
        deadline = time.monotonic() + self._timeout
        try:
            self._socket.settimeout(self._timeout)
            _send(self._socket, request, descriptors)
            return _answer(self._socket, deadline)
        except (OSError, ValueError, RecursionError) as error:
            self.close()
            raise ParserDied(str(error)) from error

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return bool(self._pid)

    def close(self) -> None:
        """End the process and reap it; again is harmless."""
        self._socket.close()
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0

    def __del__(self) -> None:
        """Leave no process behind."""
        # A worker that is forked later has a copy of this object, and must not end its sibling.
        if getattr(self, "_pid", 0) and getattr(self, "_owner", 0) == os.getpid():
            self.close()


def _send(channel: socket.socket, message: object, descriptors: Sequence[int] = ()) -> None:
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_MESSAGE:
        raise ValueError("a message is too long")
    # The descriptors ride on the length alone, so that a long body cannot part them from it.
    socket.send_fds(channel, [_LENGTH.pack(len(body))], list(descriptors))
    channel.sendall(body)


def _answer(channel: socket.socket, deadline: float) -> object:
    (size,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size, deadline))
    if size > MAX_MESSAGE:
        raise ValueError("an answer is too long")
    return json.loads(_exactly(channel, size, deadline))


def _exactly(channel: socket.socket, size: int, deadline: float | None = None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            channel.settimeout(max(0.001, deadline - time.monotonic()))
        piece = channel.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise ConnectionResetError("the other side is gone")
        data += piece
    return bytes(data)


def _child(channel: socket.socket, prepare: Callable[[], Handler]) -> None:
    """The worker's whole life; it never returns into the copied program."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        from unspool import sandbox

        kept = sandbox.keep_only(channel)
        handler = prepare()
        sandbox.restrict()
        _serve(kept, handler)
    except BaseException:  # noqa: BLE001 (whatever it is, this process ends here)
        os._exit(1)
    os._exit(0)


def _serve(channel: socket.socket, handler: Handler) -> None:
    while True:
        received = _request(channel)
        if received is None:
            return
        _send(channel, handler(*received))


def _request(channel: socket.socket) -> tuple[object, list[int]] | None:
    head, ancillary, _, _ = channel.recvmsg(_LENGTH.size, socket.CMSG_SPACE(_MAX_FDS * 4))
    if not head:
        return None
    head += _exactly(channel, _LENGTH.size - len(head))
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return json.loads(_exactly(channel, *_LENGTH.unpack(head))), list(descriptors)
