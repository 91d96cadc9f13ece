"""When a recording ends: Ctrl-C, the end of the command or of the processes that were asked for, or its time."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Literal, Self

from unspool.capture.command import Command

Why = Literal["interrupted", "time", "command", "processes"]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """Watches for the end of a recording. As a context manager it catches the signals; the second one raises KeyboardInterrupt.

    `why` is None until it is time to end.
    """

    def __init__(self, *, seconds: float | None = None, command: Command | None = None, processes: Sequence[int] = ()) -> None:
        """End after `seconds`, with the command, or with the last of `processes` (descriptors, which are closed), whatever comes first."""
        self.why: Why | None = None
        self.signal: signal.Signals | None = None
        self._seconds = seconds
        self._deadline: float | None = None
        self._command = command
        self._processes = list(processes)
        self._poll = select.poll()
        for descriptor in (*self._processes, *([command.pidfd] if command else [])):
            self._poll.register(descriptor, select.POLLIN)
        self._handlers: dict[signal.Signals, object] = {}

    def start(self) -> None:
        """The time runs from now on."""
        if self._seconds is not None:
            self._deadline = time.monotonic() + self._seconds

    def wait(self, seconds: float) -> bool:
        """Wait that long, or shorter when it is time to end; whether it is."""
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
        if self.why is None:
            self._look(self._poll.poll(max(0.0, seconds) * 1000))
        if self.why is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.why = "time"
        return self.why is not None

    def _look(self, ready: list[tuple[int, int]]) -> None:
        for descriptor, _ in ready:
            self._poll.unregister(descriptor)
            if self._command is not None and descriptor == self._command.pidfd:
                self.why = self.why or "command"
            elif descriptor in self._processes:
                self._processes.remove(descriptor)
                os.close(descriptor)
                if not self._processes:
                    self.why = self.why or "processes"

    def _caught(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        self.why = "interrupted"

    def __enter__(self) -> Self:
        """Catch the signals, except those that our caller ignores (nohup)."""
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the signals as they were."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        while self._processes:
            os.close(self._processes.pop())
