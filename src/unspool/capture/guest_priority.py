"""A processor at once while a guest is held: its time is lost while those who read it wait for their turn."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_FIRST = os.sched_param(1)
_NONE = os.sched_param(0)


@contextlib.contextmanager
def at_once(*pids: int) -> Iterator[None]:
    """These processes (0: the caller) go before every ordinary one, up to the end of the block; nothing changes where that is not allowed.

    A nice value is not enough: the scheduler lets who runs finish its slice of some milliseconds (kernel/sched/fair.c, RUN_TO_PARITY). The
    block must be bounded, because it keeps a processor from all others; nothing that is forked in it inherits the priority.
    """
    changed = []
    try:
        for pid in pids:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(pid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, _FIRST)
                changed.append(pid)
        yield
    finally:
        for pid in reversed(changed):
            # It may have died meanwhile.
            with contextlib.suppress(OSError):
                os.sched_setscheduler(pid, os.SCHED_OTHER, _NONE)
