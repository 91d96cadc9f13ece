"""A program in a real terminal of tests: keys go in, and what it showed is waited for."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence

PATIENCE = 120.0


class Terminal:
    """A terminal of 80x24 with a program in it. `shown` is everything that the program wrote."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None, *, rows: int = 24, columns: int = 80) -> None:
        """Start the program."""
        self.shown = ""
        self.status: int | None = None
        with warnings.catch_warnings():
            # Python 3.12 warns of threads; the child does nothing but to start a program.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid, self._file = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                os.execvpe(command[0], list(command), {**os.environ, "TERM": "xterm-256color", **(env or {})})
            finally:
                os._exit(127)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._file, keys.encode())

    def wait_for(self, text: str, *, since: int = 0) -> None:
        """Wait until the program has shown that text (after character number `since`); AssertionError with what it showed instead."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown[since:]:
            assert self._read(deadline), f"{text!r} was never shown, but {self.shown[-3000:]!r}"

    def wait_for_end(self) -> int:
        """The exit status (128 and more: a signal), when the program has ended."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        while self.status is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                self.status = 128 - code if code < 0 else code
            assert time.monotonic() < deadline, f"it did not end; it showed {self.shown[-3000:]!r}"
            time.sleep(0.01)
        return self.status

    def close(self) -> None:
        """Kill what still runs."""
        os.close(self._file)
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _read(self, deadline: float) -> bool:
        """Take what was shown; False when the program has ended, or the time is over."""
        ready, _, _ = select.select([self._file], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._file, 65536)
        except OSError:
            # EIO: nobody has the other side open any more (pty(7)).
            return False
        self.shown += data.decode("utf-8", "replace")
        return bool(data)


@contextlib.contextmanager
def terminal(*command: str, env: Mapping[str, str] | None = None) -> Iterator[Terminal]:
    """A program in a terminal for as long as the block."""
    running = Terminal(command, env)
    try:
        yield running
    finally:
        running.close()
