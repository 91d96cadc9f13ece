"""What a recording says about itself, before the first sample."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import unspool


@dataclass(frozen=True, slots=True)
class Header:
    """When, where and how a recording is made.

    `started_ns` is wall-clock time since 1970, `monotonic_ns` the same moment on the samples' clock.
    """

    started_ns: int
    monotonic_ns: int
    hostname: str
    kernel: str
    arch: str
    cpus: int
    frequency: float = 0.0
    trigger: str = "cpu"
    command: str = ""
    unspool_version: str = unspool.__version__

    @classmethod
    def here(cls, *, frequency: float = 0.0, trigger: str = "cpu", command: str = "") -> Header:
        """The header of a recording that starts now on this machine."""
        machine = os.uname()
        return cls(
            started_ns=time.time_ns(),
            monotonic_ns=time.monotonic_ns(),
            hostname=machine.nodename,
            kernel=machine.release,
            arch=machine.machine,
            cpus=os.cpu_count() or 1,
            frequency=frequency,
            trigger=trigger,
            command=command,
        )
