"""The GDB remote serial protocol, as much of it as stepping an emulated program takes (GDB manual, appendix E)."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_PATIENCE = 30.0


class Exited(Exception):
    """The program ended."""


class Remote:
    """A connection to a gdbstub on a Unix socket."""

    def __init__(self, path: Path) -> None:
        """Connect as soon as the stub listens, and leave out the acknowledgements if it can (QEMU 7.2 cannot)."""
        self._socket = _connect(path)
        self._input = b""
        self._acknowledge = True
        self._acknowledge = self.ask("QStartNoAckMode") != b"OK"
        self.ask("qXfer:features:read:target.xml:0,ffb")  # QEMU answers `p` only to who has asked for it

    def ask(self, command: str) -> bytes:
        """The stub's answer to a command."""
        body = command.encode()
        self._socket.sendall(b"$%s#%02x" % (body, sum(body) & 0xFF))
        return self._answer()

    def registers(self) -> bytes:
        """All general registers, in the order and byte order of the target."""
        return bytes.fromhex(self.ask("g").decode().replace("x", "0"))

    def register(self, number: int) -> bytes:
        """One register by the stub's number."""
        return bytes.fromhex(self.ask(f"p{number:x}").decode())

    def read(self, address: int, size: int) -> bytes | None:
        """Memory, None when some of it cannot be read."""
        parts = []
        for start in range(address, address + size, 1024):
            answer = self.ask(f"m{start:x},{min(1024, address + size - start):x}")
            if answer.startswith(b"E"):
                return None
            parts.append(bytes.fromhex(answer.decode()))
        data = b"".join(parts)
        return data if len(data) == size else None

    def step(self) -> None:
        """Run one instruction; Exited when it was the last one."""
        self._went_on(self.ask("s"))

    def run_to(self, address: int) -> None:
        """Run until that instruction is next."""
        self.ask(f"Z0,{address:x},4")
        answer = self.ask("c")
        self._went_on(answer)
        self.ask(f"z0,{address:x},4")

    def close(self) -> None:
        """End the connection; the emulator ends with it."""
        self._socket.close()

    def __enter__(self) -> Self:
        """The connection."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close()

    @staticmethod
    def _went_on(answer: bytes) -> None:
        if answer[:1] in {b"W", b"X", b""}:
            raise Exited

    def _answer(self) -> bytes:
        while True:
            begin = self._input.find(b"$")
            end = self._input.find(b"#", begin)
            if begin >= 0 and end >= 0 and len(self._input) >= end + 3:
                body = self._input[begin + 1 : end]
                self._input = self._input[end + 3 :]
                if self._acknowledge:
                    self._socket.sendall(b"+")
                return body
            data = self._socket.recv(65536)
            if not data:
                raise Exited
            self._input += data


def _connect(path: Path) -> socket.socket:
    until = time.monotonic() + _PATIENCE
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
            continue
        connection.settimeout(_PATIENCE)
        return connection
