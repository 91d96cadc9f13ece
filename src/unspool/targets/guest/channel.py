"""Connections to a virtual machine monitor's control sockets: found through the monitor's own eyes, bounded in time and size.

A path in a command line is text of the process that wrote it, so it is never opened as ours. It is looked up in that process's root
(absolute) or working directory (relative), without symbolic links that lead out of it (openat2(2)), must be a socket, and the process that
listens on it must be the very process that named it (SO_PEERCRED). A path that the user gave is opened as any program would.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

from unspool.errors import BadInput, NoSuchTarget, NotPermitted, UnspoolError, Unsupported
from unspool.targets.guest import sockets

CONNECT_SECONDS = 5.0
"""How long a monitor may take to answer a new client. One that serves another client never does."""
ANSWER_SECONDS = 20.0
"""How long a monitor may take for one answer: far longer than a busy one needs."""
_LEAVE_SECONDS = 5.0
LONGEST_MESSAGE = 16 << 20
_CHUNK = 1 << 16
_OPENAT2 = 437  # the same number on every machine
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH, _RESOLVE_IN_ROOT = 0x02, 0x08, 0x10


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A control socket: a path, or a TCP port of this host; `pid` is the process that named it, None when the user did."""

    path: str = ""
    port: int = 0
    pid: int | None = None

    def __str__(self) -> str:
        """The socket as QEMU's options write it; a path is the machine's own text, to be escaped."""
        return f"unix:{self.path}" if self.path else f"tcp:127.0.0.1:{self.port}"


class Channel:
    """A connected control socket. Reads raise TimeoutError, ConnectionError or BadInput (a message without end), never wait for ever."""

    patience = ANSWER_SECONDS

    def __init__(self, connection: socket.socket) -> None:
        """Take over the connection."""
        self.socket = connection
        self._received = bytearray()

    def deadline(self, seconds: float | None = None) -> float:
        """The time of time.monotonic() until which an answer is waited for."""
        return time.monotonic() + min(self.patience, seconds or self.patience)

    def send(self, data: bytes) -> None:
        """Send it all."""
        self.socket.settimeout(self.patience)
        self.socket.sendall(data)

    def take_until(self, mark: bytes, deadline: float, extra: int = 0) -> bytes:
        """Everything up to and with `mark` and `extra` bytes after it."""
        searched = 0
        while True:
            found = self._received.find(mark, searched)
            end = found + len(mark) + extra
            if found >= 0 and end <= len(self._received):
                data = bytes(self._received[:end])
                del self._received[:end]
                return data
            searched = max(0, (found if found >= 0 else len(self._received)) - len(mark))
            self._receive(deadline)

    def pending(self) -> bytes:
        """What has arrived without being asked for; it is taken."""
        self.socket.settimeout(0)
        with suppress(BlockingIOError):
            while len(self._received) <= LONGEST_MESSAGE:
                data = self.socket.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError
                self._received += data
        data = bytes(self._received)
        self._received.clear()
        return data

    def put_back(self, data: bytes) -> None:
        """Have it come first at the next call, as if it had not been taken."""
        self._received[:0] = data

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _receive(self, deadline: float) -> None:
        if len(self._received) > LONGEST_MESSAGE:
            raise BadInput("a message of a virtual machine monitor that does not end")
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.socket.settimeout(left)
        data = self.socket.recv(_CHUNK)
        if not data:
            raise ConnectionResetError
        self._received += data


@contextmanager
def as_request(what: str) -> Iterator[None]:
    """Failures of a connection inside the block as the errors of a user's request; `what` names the socket."""
    try:
        yield
    except TimeoutError:
        raise Unsupported(
            f"{what} does not answer",
            hint="It serves one client at a time: end the other one (libvirt keeps the QMP socket for itself; docs/guest-back-ends.md).",
        ) from None
    except PermissionError:
        raise NotPermitted(f"{what} is not ours to use", hint="Run as root, or as the user that runs the machine.") from None
    except OSError as error:
        raise NoSuchTarget(
            f"{what}: {error.strerror or 'the connection was closed'}", hint="`unspool guest list` shows the machines."
        ) from None


def refuse_paused() -> NoReturn:
    """Say that the machine does not run, so that there is nothing to stop and nothing that may be let run."""
    raise Unsupported(
        "the machine is paused",
        hint="Let it run first (`virsh resume NAME`, QMP `cont`), or look at it as it is: --guest-registers qmp-live, or tcg-state.",
    )


def new_socket(endpoint: Endpoint) -> socket.socket:
    """A socket of the endpoint's kind that is not connected yet."""
    if endpoint.path:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)


def connect(endpoint: Endpoint, seconds: float = CONNECT_SECONDS, connection: socket.socket | None = None) -> Channel:
    """A connection, made on `connection` (see `new_socket`) when it is given; OSError (TimeoutError, PermissionError) or an UnspoolError.

    A socket that serves another client is refused without touching it: a client that waits in its queue would be served later, when it is
    gone, and a gdbstub stops the machine for every client.
    """
    connection = connection or new_socket(endpoint)
    try:
        _wait_until_free(endpoint)
        connection.settimeout(seconds)
        if endpoint.path:
            _connect_unix(connection, endpoint)
        else:
            if endpoint.pid is not None and not sockets.listens(endpoint.pid, endpoint.port):
                raise NoSuchTarget(
                    f"process {endpoint.pid} does not listen on port {endpoint.port} of this network namespace",
                    hint=f"`nsenter -t {endpoint.pid} -n unspool ...` runs Unspool in that of the process.",
                )
            connection.connect(("127.0.0.1", endpoint.port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, UnspoolError):
        connection.close()
        raise
    return Channel(connection)


def _wait_until_free(endpoint: Endpoint) -> None:
    """TimeoutError when the socket serves another client, and not only for the moment that a monitor takes to see one leave."""
    deadline = time.monotonic() + _LEAVE_SECONDS
    while endpoint.pid is not None and sockets.busy(endpoint.pid, endpoint.path, endpoint.port):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


def _connect_unix(connection: socket.socket, endpoint: Endpoint) -> None:
    descriptor = _open_path(endpoint)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise NoSuchTarget(f"{endpoint.path!r} is not a socket")
        # With a timeout a socket does not wait for room in the queue of waiting clients: the kernel says EAGAIN.
        connection.connect(f"/proc/self/fd/{descriptor}")
        _check_peer(connection, endpoint)
    except BlockingIOError:
        raise TimeoutError from None
    finally:
        os.close(descriptor)


def _check_peer(connection: socket.socket, endpoint: Endpoint) -> None:
    if endpoint.pid is None:
        return
    # struct ucred of the process that called listen(2).
    peer, _, _ = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if peer != endpoint.pid:
        raise NoSuchTarget(f"{endpoint.path!r} is the socket of process {peer}, not of {endpoint.pid} that names it")


def _open_path(endpoint: Endpoint) -> int:
    """The path as an O_PATH descriptor; see the rule at the top of this file."""
    if endpoint.pid is None:
        return os.open(endpoint.path, os.O_PATH | os.O_CLOEXEC)
    absolute = endpoint.path.startswith("/")
    directory = os.open(f"/proc/{endpoint.pid}/{'root' if absolute else 'cwd'}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        inside = _RESOLVE_IN_ROOT if absolute else _RESOLVE_BENEATH
        return _openat2(directory, endpoint.path, os.O_PATH | os.O_CLOEXEC, inside | _RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(directory)


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def _openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    how = ctypes.create_string_buffer(struct.pack("=QQQ", flags, 0, resolve), 24)  # struct open_how
    size = ctypes.c_size_t(24)
    result = _libc().syscall(ctypes.c_long(_OPENAT2), ctypes.c_int(directory), os.fsencode(path), how, size)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)
