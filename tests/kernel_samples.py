"""Samples of the kernel's walk for tests, and threads that are made to enter their system call once more."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from target_programs import wait_asleep, wait_until

from unspool.capture.kernel import Sampler
from unspool.capture.records import RawSample, RecordFlag, samples
from unspool.capture.request import Request
from unspool.capture.triggers import Trigger
from unspool.targets import procfs

SYSCALLS = Trigger("syscalls", (), "syscalls")


def addresses(sample: RawSample) -> list[int]:
    """The user frames' addresses, innermost first."""
    return [frame.address for frame in sample.user]


def gathered(sampler: Sampler, enough: Callable[[list[RawSample]], bool], what: str) -> list[RawSample]:
    """The samples that came until there were enough of them."""
    found: list[RawSample] = []

    def look() -> bool:
        found.extend(samples(sampler.drain()))
        return enough(found)

    wait_until(look, what)
    return found


def state_of(pid: int, tid: int) -> str:
    """The thread's state letter in /proc, "" when it is gone."""
    state = procfs.thread_state(pid, tid)
    return state.state if state else ""


def enter_again(pid: int) -> None:
    """Stop the process and let it go on: every thread that is blocked enters its system call once more, with the stack that it had.

    (A stop interrupts the call with ERESTART*; see signal(7), "Interruption of system calls and library functions by stop signals".)
    """
    threads = procfs.thread_ids(pid)
    os.kill(pid, signal.SIGSTOP)
    for tid in threads:
        wait_until(lambda tid=tid: state_of(pid, tid) == "T", f"thread {tid} to stop")
    os.kill(pid, signal.SIGCONT)
    for tid in threads:
        wait_asleep(pid, tid)


def samples_of_blocked(pid: int) -> dict[int, list[RawSample]]:
    """What the kernel's walk says of each thread of a process whose threads all sleep in system calls, by thread.

    They enter their calls twice: what had to wait for the first call's end, because a page was not there, is walked when the second stop
    ends it.
    """
    found: dict[int, list[RawSample]] = {tid: [] for tid in procfs.thread_ids(pid)}
    with Sampler(Request(pids=(pid,), trigger=SYSCALLS)) as sampler:
        sampler.start()
        enter_again(pid)
        enter_again(pid)
        sampler.stop()
        sampler.flush()
        for sample in samples(sampler.drain()):
            if not sample.flags & RecordFlag.NOT_RESUMED:
                found[sample.tid].append(sample)
    assert all(found.values()), "no sample of some thread"
    return found
