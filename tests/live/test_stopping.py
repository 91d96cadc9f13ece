from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from target_programs import Programs, running, wait_asleep, wait_until

from unspool.model.thread import Thread
from unspool.model.verdict import Stop
from unspool.targets import procfs, stopping
from unspool.targets.process import Process
from unspool.targets.stopping import Refused, Visited, visit, visit_together

pytestmark = pytest.mark.live

Visit = Callable[[Process, Callable[[Visited], Visited]], list[Visited]]
BOTH = pytest.mark.parametrize("look_at", [visit, visit_together], ids=["one after another", "together"])

HOLD = """
import sys, time
from unspool.targets.process import Process
from unspool.targets.stopping import visit_together
def look(visited):
    print("held", flush=True)
    time.sleep(600)
visit_together(Process(int(sys.argv[1])), look)
"""
"""A program that stops all threads of a process and keeps them stopped."""


def itself(visited: Visited) -> Visited:
    return visited


def state_of(pid: int, tid: int | None = None) -> str:
    state = procfs.thread_state(pid, tid or pid)
    assert state is not None
    return state.state


def stop_of(visited: Visited) -> Stop:
    assert isinstance(visited.thread, Refused), visited
    return visited.thread.stop


@BOTH
def test_every_thread_is_looked_at_once_and_sleeps_on_afterwards(look_at: Visit, programs: Programs) -> None:
    with running(programs.build("threads.c", "-O2"), "20") as process:
        tids = procfs.thread_ids(process.pid)
        for tid in tids:
            wait_asleep(process.pid, tid)
        visited = look_at(Process(process.pid), itself)
        assert tids == [one.tid for one in visited]
        for one in visited:
            assert isinstance(one.thread, Thread)
            assert one.name.startswith("threads-")
            code, stack = one.thread.space.find(one.thread.registers.pc), one.thread.space.find(one.thread.registers.sp)
            assert code is not None
            assert code.executable
            assert stack is not None
            assert stack.writable
            assert one.thread.registers.thread_pointer
            assert one.thread.ends.process
            wait_asleep(process.pid, one.tid)


def test_a_thread_is_stopped_exactly_while_it_is_looked_at(programs: Programs) -> None:
    with running(programs.build("threads.c", "-O2"), "2") as process:
        states = visit(Process(process.pid), lambda visited: state_of(process.pid, visited.tid))
        assert ["t", "t", "t"] == states
        together = visit_together(Process(process.pid), lambda _: [state_of(process.pid, tid) for tid in procfs.thread_ids(process.pid)])
        assert [["t", "t", "t"]] * 3 == together


@BOTH
def test_a_process_that_starts_threads_all_the_time_is_no_trouble(look_at: Visit, programs: Programs) -> None:
    with running(programs.build("threads.c", "-O2"), "8", "more") as process:
        steady = set(procfs.thread_ids(process.pid)[:9])
        for _ in range(20):
            visited = look_at(Process(process.pid), itself)
            assert steady <= {one.tid for one in visited}
            for one in visited:
                assert isinstance(one.thread, Thread) or stop_of(one) is Stop.EXITED
        wait_until(lambda: procfs.status_number(process.pid, "TracerPid") == 0, "nobody traces it")


def test_threads_that_are_asked_for_are_the_only_ones(programs: Programs) -> None:
    with running(programs.build("threads.c", "-O2"), "3") as process:
        second = procfs.thread_ids(process.pid)[1]
        gone = 2**22 + 1
        visited = visit(Process(process.pid), itself, tids=[gone, second])
        assert [second, gone] == [one.tid for one in visited]
        assert stop_of(visited[1]) is Stop.EXITED


@BOTH
def test_the_threads_of_a_leader_that_ended_are_still_seen(look_at: Visit, programs: Programs) -> None:
    with running(programs.build("threads.c", "-O2"), "2", "leave") as process:
        wait_until(lambda: state_of(process.pid) == "Z", "the first thread to end")
        leader, *others = look_at(Process(process.pid), itself)
        assert stop_of(leader) is Stop.EXITED
        assert 2 == len(others)
        for one in others:
            assert isinstance(one.thread, Thread)
            assert one.thread.space.find(one.thread.registers.pc) is not None


@BOTH
def test_a_process_that_job_control_stopped_stays_stopped(look_at: Visit, programs: Programs) -> None:
    with running(programs.build("threads.c", "-O2"), "2") as process:
        os.kill(process.pid, signal.SIGSTOP)
        tids = procfs.thread_ids(process.pid)
        wait_until(lambda: all(state_of(process.pid, tid) == "T" for tid in tids), "the process to stop")
        assert all(isinstance(one.thread, Thread) for one in look_at(Process(process.pid), itself))
        wait_until(lambda: all(state_of(process.pid, tid) == "T" for tid in tids), "the process to be stopped again")
        os.kill(process.pid, signal.SIGCONT)
        wait_until(lambda: all(state_of(process.pid, tid) == "S" for tid in tids), "the process to go on")


def test_the_target_runs_on_when_its_tracer_is_killed(programs: Programs) -> None:
    with running(programs.build("threads.c", "-O2"), "3", "more") as process:
        with running(sys.executable, "-c", HOLD, str(process.pid), ready=b"held"):
            wait_until(lambda: state_of(process.pid) == "t", "the target to be held")
        # Leaving the block killed the tracer with SIGKILL.
        wait_until(lambda: procfs.status_number(process.pid, "TracerPid") == 0, "nobody to trace it")
        before = cpu_ticks(process.pid)
        wait_until(lambda: cpu_ticks(process.pid) > before, "the target to compute again")
        assert process.poll() is None


def cpu_ticks(pid: int) -> int:
    """User and system time of the process in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12])


@BOTH
def test_a_thread_that_another_process_traces_is_refused_with_its_number(look_at: Visit, programs: Programs) -> None:
    with (
        running(programs.build("threads.c", "-O2"), "1") as process,
        running(sys.executable, "-c", HOLD, str(process.pid), ready=b"held") as tracer,
    ):
        for one in look_at(Process(process.pid), itself):
            assert Refused(Stop.PERMISSION, f"process {tracer.pid} traces it") == one.thread


@BOTH
def test_no_signal_is_lost(look_at: Visit, programs: Programs) -> None:
    with running(programs.build("signals.c", "-O2")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        sent = 200
        for _ in range(sent):
            os.kill(process.pid, signal.SIGRTMIN)
            look_at(Process(process.pid), itself)
        process.stdin.write(b"\n")
        assert b"%d\n" % sent == process.stdout.readline()


@BOTH
def test_a_process_that_calls_execve_from_its_threads_is_let_go(look_at: Visit, programs: Programs) -> None:
    """Neither does it keep us waiting for ever: the kernel can wait for us while we wait for it (ptrace.Reaper)."""
    with running(programs.build("exec_again.c", "-O2")) as process:
        for _ in range(100):
            for one in look_at(Process(process.pid), itself):
                # A thread in the middle of execve cannot be stopped, and for an instant the leader's number belongs to nobody.
                assert isinstance(one.thread, Thread) or stop_of(one) in {Stop.EXITED, Stop.THREAD_RUNNING, Stop.PERMISSION}
        wait_until(lambda: procfs.status_number(process.pid, "TracerPid") == 0, "nobody to trace it")
        wait_until(lambda: state_of(process.pid) != "t", "the process to go on")


@BOTH
def test_a_thread_that_waits_uninterruptibly_is_left_alone(look_at: Visit, programs: Programs) -> None:
    with running(programs.build("vfork.c", "-O2")) as process:
        wait_until(lambda: state_of(process.pid) == "D", "the parent to wait for its child")
        assert [Stop.THREAD_RUNNING] == [stop_of(one) for one in look_at(Process(process.pid), itself)]
        assert 0 == procfs.status_number(process.pid, "TracerPid")


@BOTH
def test_a_thread_that_does_not_stop_in_time_is_let_go_by_the_next_look(
    look_at: Visit, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "STOP_SECONDS", 0.1)
    monkeypatch.setattr(stopping, "_settled", lambda *_: True)
    with running(programs.build("vfork.c", "-O2")) as process:
        wait_until(lambda: state_of(process.pid) == "D", "the parent to wait for its child")
        assert [Stop.THREAD_RUNNING] == [stop_of(one) for one in look_at(Process(process.pid), itself)]
        assert os.getpid() == procfs.status_number(process.pid, "TracerPid")
        assert process.stdin is not None
        process.stdin.close()
        wait_until(lambda: state_of(process.pid) == "t", "the parent to wake up and stop")
        assert [True] == [isinstance(one.thread, Thread) for one in look_at(Process(process.pid), itself)]
        wait_until(lambda: state_of(process.pid) == "S", "the parent to run on")
        assert 0 == procfs.status_number(process.pid, "TracerPid")


@BOTH
def test_a_zombie_is_exited(look_at: Visit) -> None:
    process = subprocess.Popen(["true"])
    try:
        wait_until(lambda: state_of(process.pid) == "Z", "the process to end")
        assert [Stop.EXITED] == [stop_of(one) for one in look_at(Process(process.pid), itself)]
    finally:
        process.wait()


@BOTH
def test_32_bit_code_is_an_unsupported_rule(look_at: Visit, programs: Programs) -> None:
    with running(programs.build("mode32.S", "-m32", "-nostdlib", "-static")) as process:
        assert [Stop.UNSUPPORTED_RULE] == [stop_of(one) for one in look_at(Process(process.pid), itself)]


AS_NOBODY = """
import os, sys
from unspool.targets.process import Process
from unspool.targets.stopping import visit, visit_together
import unspool.errors
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for look_at in (visit, visit_together):
    for one in look_at(Process(int(sys.argv[1])), lambda visited: visited):
        print(one.thread.stop.label)
"""


def test_another_users_process_is_refused_for_want_of_permission(programs: Programs) -> None:
    with running(programs.build("threads.c", "-O2"), "1") as process:
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, str(process.pid)], capture_output=True, text=True, check=True, timeout=60)
        assert ["permission"] * 4 == done.stdout.split()


def test_a_process_cannot_look_at_itself_and_says_so() -> None:
    for one in visit(Process(os.getpid()), itself):
        assert stop_of(one) in {Stop.PERMISSION, Stop.EXITED}
