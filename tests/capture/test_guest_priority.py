"""The priority of who reads a guest that stands still."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from unspool.capture.guest_priority import at_once

_MAY = os.geteuid() == 0
POLICY = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process that waits for the end of its input."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def fail_within(pid: int) -> None:
    """See the priority of this process and that one, and fail."""
    with at_once(0, pid):
        assert [POLICY] * 2 == [os.sched_getscheduler(number) for number in (0, pid)]
        raise ZeroDivisionError


@pytest.mark.skipif(not _MAY, reason="root alone may ask for a real-time priority")
def test_it_lasts_for_the_block_and_covers_the_other_process(sleeper: int) -> None:
    """Both are ordinary again afterwards, also when the block fails."""
    with pytest.raises(ZeroDivisionError):
        fail_within(sleeper)
    assert [os.SCHED_OTHER] * 2 == [os.sched_getscheduler(pid) for pid in (0, sleeper)]


def test_a_process_that_is_gone_changes_nothing(sleeper: int) -> None:
    """A decoder may die at any moment."""
    gone = os.fork()
    if not gone:
        os._exit(0)
    os.waitpid(gone, 0)
    with at_once(gone, sleeper):
        assert (POLICY if _MAY else os.SCHED_OTHER) == os.sched_getscheduler(sleeper)
    assert os.SCHED_OTHER == os.sched_getscheduler(sleeper)
