"""A small process that lets a stopped machine run when we die, or hang, in the middle of a hold.

It shares the control socket and the reading end of a pipe. A byte on the pipe says "holding" or "released"; the end of the pipe says that
we are gone. It speaks on the socket in that one case only: when we are gone, or silent for `HOLD_SECONDS`, while the machine is held. Then
it stays until the machine has obeyed: QEMU drops the commands of a client that leaves before their turn comes (monitor/qmp.c,
monitor_qmp_cleanup_queue_and_resume).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
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
    def start(cls, connection: socket.socket, resume: bytes, obeyed: bytes) -> Self:
        """The watchdog of a machine that `resume`, sent over that connection, lets run; an answer with `obeyed` in it says that it does."""
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
                    obeyed.hex(),
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
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_END_SECONDS)

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
