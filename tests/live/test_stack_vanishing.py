"""Processes that end, are killed or change their mappings while they are looked at, and huge ones: marked stacks, or a clear error."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys

import pytest
from target_programs import Programs, running, wait_asleep, wait_until

from unspool.errors import NoSuchTarget
from unspool.model.stack import Stack
from unspool.model.thread import Thread
from unspool.model.verdict import Stop, Verdict
from unspool.session.stacks import stacks_of, walker_of
from unspool.session.walking import Method, Walking
from unspool.targets import procfs
from unspool.targets.process import Process
from unspool.targets.stopping import Visited, visit, visit_together

pytestmark = pytest.mark.live

METHODS = pytest.mark.parametrize("method", ["native", "python"])


@METHODS
@pytest.mark.parametrize("together", [False, True])
def test_a_process_that_ends_at_any_moment_gives_stacks_or_is_not_there(method: Method, together: bool) -> None:  # noqa: FBT001
    for _ in range(40):
        with subprocess.Popen(["true"]) as process:
            with contextlib.suppress(NoSuchTarget):
                for thread in stacks_of(process.pid, Walking(method), together=together).threads:
                    assert isinstance(thread.stack.stop, Stop)
            process.wait(timeout=60)


@pytest.mark.parametrize("look_at", [visit, visit_together], ids=["one after another", "together"])
@METHODS
def test_a_process_that_is_killed_while_it_is_walked_is_no_trouble(look_at: object, method: Method, programs: Programs) -> None:
    with running(programs.build("threads.c", "-O2"), "4") as process:
        walk = walker_of(process.pid, Walking(method))

        def kill_and_walk(visited: Visited) -> Stack | None:
            os.kill(process.pid, signal.SIGKILL)
            return walk(visited.thread) if isinstance(visited.thread, Thread) else None

        assert callable(look_at)
        results = look_at(Process(process.pid), kill_and_walk)
        assert results
        for stack in results:
            assert stack is None or stack.judgement.verdict in {Verdict.RELIABLE, Verdict.UNRELIABLE}
        assert -signal.SIGKILL == process.wait(timeout=60)


MAPPING = """
import ctypes, mmap, sys, threading
def map_and_unmap():
    while True:
        mmap.mmap(-1, 1 << 20).close()
for _ in range(2):
    threading.Thread(target=map_and_unmap, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""


@METHODS
def test_a_process_that_changes_its_mappings_all_the_time_still_has_whole_stacks(method: Method) -> None:
    with running(sys.executable, "-c", MAPPING) as process:
        for _ in range(20):
            for thread in stacks_of(process.pid, Walking(method), named=False).threads:
                # A thread may be met anywhere, also where a stack is not reliable; but what it maps is no code on a stack.
                assert Stop.MAPS_STALE is not thread.stack.judgement.reason


@METHODS
def test_a_stack_of_a_hundred_thousand_frames_is_whole(method: Method, programs: Programs) -> None:
    depth = 100_000
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))
    try:
        target = running(programs.build("deep.c", "-O2"), str(depth))
        process = target.__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
    with contextlib.ExitStack() as stack:
        stack.push(target.__exit__)
        wait_asleep(process.pid)
        [thread] = stacks_of(process.pid, Walking(method), named=False).threads
        assert depth < len(thread.stack.frames) < depth + 100
        assert Stop.END_PROCESS_ENTRY is thread.stack.stop
        assert Verdict.RELIABLE is thread.stack.judgement.verdict


def test_a_thousand_threads_all_run_on(programs: Programs) -> None:
    with running(programs.build("threads.c", "-O2"), "1000") as process:
        wait_until(lambda: all(is_asleep(process.pid, tid) for tid in procfs.thread_ids(process.pid)), "all threads to sleep")
        for together in (False, True):
            threads = stacks_of(process.pid, together=together, named=False).threads
            assert 1001 == len(threads)
            assert {Verdict.RELIABLE} == {thread.stack.judgement.verdict for thread in threads}
            wait_until(lambda: all(is_asleep(process.pid, tid) for tid in procfs.thread_ids(process.pid)), "all threads to sleep again")


def is_asleep(pid: int, tid: int) -> bool:
    state = procfs.thread_state(pid, tid)
    return state is not None and state.state == "S"
