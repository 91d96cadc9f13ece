"""A small process that lets a stopped machine run when we die, or hang, in the middle of a hold.

It shares the control socket and the reading end of a pipe. A byte on the pipe says "holding" or "released"; the end of the pipe says that
we are gone. It speaks on the socket in that one case only: when we are gone, or silent for `HOLD_SECONDS`, while the machine is held. Then
it stays until the machine has obeyed: QEMU drops the commands of a client that leaves before their turn comes (monitor/qmp.c,
monitor_qmp_cleanup_queue_and_resume).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

HOLD_SECONDS = 10.0
"""No hold may take longer."""
HOLDING, RELEASED = b"H", b"R"
_END_SECONDS = 5.0
CHILD = Path(__file__).with_name("watchdog_child.py")


class Watchdog:
    """The parent's side."""

    def __init__(self, pipe: int, child: subprocess.Popen[bytes]) -> None:
        """Take over both."""
        self._pipe: int | None = pipe
        self._child = child
        self.pid = child.pid

    @classmethod
    def start(cls, connection: socket.socket, resume: bytes, obeyed: Sequence[bytes]) -> Self:
        """The watchdog of a machine that `resume`, sent over that connection, lets run; that it runs is said by all of `obeyed` in turn."""
        reading, writing = os.pipe()
        try:
            child = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(CHILD),
                    str(reading),
                    str(connection.fileno()),
                    str(HOLD_SECONDS),
                    resume.hex(),
                    *(mark.hex() for mark in obeyed),
                ],
                pass_fds=(reading, connection.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Ctrl-C in the terminal reaches our process group, not this one.
                start_new_session=True,
            )
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        return cls(writing, child)

    def holding(self) -> bool:
        """Say that the machine is about to be stopped; False when the watchdog is gone."""
        return self._say(HOLDING)

    def released(self) -> bool:
        """Say that the machine was let run; False when the watchdog is gone, most likely because it did so itself."""
        return self._say(RELEASED)

    def close(self) -> None:
        """End it; it does not touch the machine. After `abandon` this does nothing."""
        if self._pipe is None:
            return
        self.released()
        self.abandon()
        self.wait(_END_SECONDS)

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, at most so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(seconds)

    def died(self) -> bool:
        """Whether somebody ended it before it could do anything."""
        return bool(self._child.poll())

    def watches(self) -> bool:
        """Whether it is there and has not begun to let the machine run: it closes the pipe before."""
        if self._pipe is None:
            return False
        poll = select.poll()
        poll.register(self._pipe, 0)
        return not poll.poll(0)

    def abandon(self) -> None:
        """Leave the machine to it: when it is held now, it is let run, however long that takes; we may close our end of the connection."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def _say(self, word: bytes) -> bool:
        if self._pipe is None:
            return False
        try:
            os.write(self._pipe, word)
        except OSError:
            return False
        return True
