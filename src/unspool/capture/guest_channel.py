"""Messages between the processes of the guest sampler: a kind, a length, and bytes that say nothing about types; never pickle."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

MAX_MESSAGE = 16 << 20
"""Bytes of one message."""
_HEAD = struct.Struct("<BBI")
_PIECE = 1 << 16
_MAX_FDS = 4


class Kind(enum.IntEnum):
    """What a message is."""

    JSON = 1
    """A request or its answer."""
    BYTES = 2
    """An answer of raw bytes."""
    NOTHING = 3
    """An answer: there are no such bytes."""
    READ = 4
    """The decoder asks for guest memory: address and size."""


class Closed(Exception):
    """The other side is gone, or says what is no message."""


class TimedOut(Exception):
    """Nothing whole came in time; what came stays, and a later call goes on with it."""


class Message(NamedTuple):
    """One message; `descriptors` belong to whom it was given."""

    kind: int
    body: bytes
    descriptors: list[int]

    def value(self) -> object:
        """What the JSON says; Closed when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise Closed("a message that is no JSON") from error


class Channel:
    """One end of a stream socket that carries messages."""

    def __init__(self, connection: socket.socket) -> None:
        """Take the socket over."""
        self._socket = connection
        self._buffer = bytearray()
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        """The socket's descriptor, for select."""
        return self._socket.fileno()

    def send(self, kind: Kind, body: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message, waiting while the other side is slow; Closed when it is gone."""
        if len(body) > MAX_MESSAGE:
            raise Closed("a message is too long")
        head = _HEAD.pack(kind, len(descriptors), len(body))
        try:
            if descriptors:
                # They ride on the head alone, so that a long body cannot part them from it.
                socket.send_fds(self._socket, [head], list(descriptors))
                head = b""
            self._socket.sendall(head + body)
        except OSError as error:
            raise Closed(str(error)) from error

    def send_value(self, value: object, descriptors: Sequence[int] = ()) -> None:
        """Send a value that JSON can say."""
        self.send(Kind.JSON, json.dumps(value, separators=(",", ":")).encode(), descriptors)

    def receive(self, deadline: float | None = None) -> Message:
        """The next message; TimedOut when none is whole at the deadline (time.monotonic), Closed when none will come."""
        while (message := self._taken()) is None:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                    raise TimedOut
            self._fill()
        return message

    def waiting(self) -> list[Message]:
        """The messages that are there already; Closed when there are none and none will come."""
        messages: list[Message] = []
        while True:
            message = self._taken()
            if message is not None:
                messages.append(message)
                continue
            if not select.select([self._socket], [], [], 0)[0]:
                return messages
            try:
                self._fill()
            except Closed:
                if messages:
                    return messages
                raise

    def within(self, seconds: float) -> list[Message]:
        """The messages that are there already, or that come within this time; Closed as `waiting` says.

        To ask select first is wrong: a message that was read together with the one before it is in our buffer, where no select sees it.
        """
        messages = self.waiting()
        if not messages and select.select([self._socket], [], [], seconds)[0]:
            messages = self.waiting()
        return messages

    def close(self) -> None:
        """Close; again is harmless."""
        self._socket.close()
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors.clear()

    def _fill(self) -> None:
        try:
            piece, descriptors, _, _ = socket.recv_fds(self._socket, _PIECE, _MAX_FDS)
        except OSError as error:
            raise Closed(str(error)) from error
        if not piece:
            raise Closed("the other side is gone")
        self._buffer += piece
        self._descriptors += descriptors

    def _taken(self) -> Message | None:
        buffer = self._buffer
        if len(buffer) < _HEAD.size:
            return None
        kind, count, size = _HEAD.unpack_from(buffer)
        if size > MAX_MESSAGE:
            raise Closed("a message is too long")
        end = _HEAD.size + size
        if len(buffer) < end:
            return None
        if count > len(self._descriptors):
            raise Closed("a message without its descriptors")
        body = bytes(buffer[_HEAD.size : end])
        del buffer[:end]
        descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return Message(kind, body, descriptors)


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a channel, before a fork."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
