"""Samples become rows: with the program and the mappings of their own time, each stack once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from capture.fakes import CODE, SECOND, FakeSampler, FakeSideband, FakeSink, mapped, marked, record

from unspool.capture.proc import read_stat
from unspool.capture.processes import Processes
from unspool.capture.recorder import Recorder
from unspool.capture.sideband import Event, Exited, Forked, Named
from unspool.model.verdict import Stop, Trust, Verdict

# No process of this machine: ids end at 2^22 (include/linux/threads.h, PID_MAX_LIMIT).
GHOST = 1 << 23
AT = marked(CODE + 8)
FORK = Forked(0, GHOST, 1, GHOST, 1)


@pytest.fixture(autouse=True)
def _never_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unspool.capture.recorder.suspended_ns", lambda: 0)


def recorded(records: list[bytes], *events: Event) -> FakeSink:
    """What a recorder makes of records and events, all of them in one step."""
    sink = FakeSink()
    recorder = Recorder(FakeSampler(b"".join(records)), FakeSideband(FORK, *events), Processes([1]), sink)
    recorder.step(final=True)
    recorder.count()
    recorder.close()
    return sink


def test_a_sample_is_stored_with_its_process_thread_cpu_and_stack() -> None:
    sink = recorded(
        [record(pid=GHOST, tid=GHOST + 1, user=[marked(CODE + 8, trust=Trust.REGISTERS, exact=True), marked(CODE + 0x20)])],
        Named(1, GHOST, GHOST, "ghost", exec=True),
        mapped("/bin/ghost", pid=GHOST, time_ns=2, offset=0x3000),
        Named(3, GHOST, GHOST + 1, "worker", exec=False),
    )
    assert [(SECOND, 1, 1, 1, "cpu", "", 1, 1)] == sink.samples
    assert [(GHOST, 0, "ghost", "/bin/ghost", 1)] == sink.processes
    assert [(1, GHOST + 1, "worker")] == sink.threads
    [(frames, kernel_frames, stop, stop_module, judgement)] = sink.stacks
    places = [(1, CODE + 8, 0x3008, "user", Trust.REGISTERS), (1, CODE + 0x20, 0x3020, "user", Trust.CFI)]
    assert places == [sink.frames[frame - 1] for frame in frames]
    assert (0, Stop.END_PROCESS_ENTRY, None, Verdict.RELIABLE) == (kernel_frames, stop, stop_module, judgement.verdict)
    assert 1 == sink.counters["stored"]


def test_a_process_is_stored_with_its_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unspool.capture.processes.control_group", {GHOST: "/web.slice"}.get)
    assert {GHOST: "/web.slice"} == recorded([record(pid=GHOST, user=[AT])]).cgroups


def test_a_return_address_at_the_end_of_a_mapping_belongs_to_the_call_before_it() -> None:
    """A call to a function that never returns can be the last instruction of its file's code."""
    sink = recorded(
        [record(pid=GHOST, user=[marked(CODE + 0x1000)])],
        mapped("/bin/first", CODE, pid=GHOST, time_ns=2),
        mapped("/bin/second", CODE + 0x1000, pid=GHOST, time_ns=2),
    )
    assert ["/bin/first"] == sink.paths()


def test_the_same_stack_is_stored_once_and_sampled_twice() -> None:
    twice = [record(pid=GHOST, time_ns=SECOND + n, user=[AT]) for n in range(2)]
    sink = recorded(twice, mapped("/bin/ghost", pid=GHOST))
    assert (1, 2) == (len(sink.stacks), len(sink.samples))


def test_an_address_means_the_file_that_was_mapped_at_the_samples_time() -> None:
    addresses = [AT]
    sink = recorded(
        [record(pid=GHOST, time_ns=time_ns, user=addresses) for time_ns in (15, 25, 12, 35)],
        mapped("/lib/old.so", pid=GHOST, time_ns=10),
        mapped("/lib/new.so", pid=GHOST, time_ns=20),
        Named(30, GHOST, GHOST, "next", exec=True),
        mapped("/bin/next", pid=GHOST, time_ns=31),
    )
    assert [["/lib/old.so"], ["/lib/new.so"], ["/lib/old.so"], ["/bin/next"]] == [sink.paths(n) for n in range(4)]


def test_samples_of_a_forked_child_before_its_exec_use_the_parents_mappings() -> None:
    child = GHOST + 7
    sink = recorded(
        [record(pid=child, start_ns=40, time_ns=time_ns, user=[AT]) for time_ns in (45, 55)],
        Named(1, GHOST, GHOST, "shell", exec=True),
        mapped("/bin/shell", pid=GHOST, time_ns=2),
        Forked(40, child, GHOST, child, GHOST),
        Named(50, child, child, "tool", exec=True),
        mapped("/bin/tool", pid=child, time_ns=51),
        Exited(60, child, GHOST, child),
    )
    assert [["/bin/shell"], ["/bin/tool"]] == [sink.paths(n) for n in range(2)]
    assert [(child, 40, "shell", "/bin/shell", GHOST), (child, 40, "tool", "/bin/tool", GHOST)] == sink.processes
    assert {1: 60, 2: 60} == sink.exits


def test_a_process_id_that_was_used_again_is_another_process() -> None:
    sink = recorded(
        [record(pid=GHOST, start_ns=start, time_ns=start + 10, user=[AT]) for start in (0, SECOND)],
        mapped("/bin/first", pid=GHOST, time_ns=2),
        Exited(SECOND // 2, GHOST, 1, GHOST),
        Forked(SECOND, GHOST, 1, GHOST, 1),
        mapped("/bin/second", pid=GHOST, time_ns=SECOND + 2),
    )
    assert [["/bin/first"], ["/bin/second"]] == [sink.paths(n) for n in range(2)]
    assert [0, SECOND] == [row[1] for row in sink.processes]


def test_kernel_frames_stand_before_user_frames() -> None:
    kernel = [0xFFFFFFFF81000010, 0xFFFFFFFF81000020]
    sink = recorded([record(pid=GHOST, kernel=kernel, user=[AT])], mapped("/bin/ghost", pid=GHOST))
    assert ["[kernel]", "[kernel]", "/bin/ghost"] == sink.paths()
    assert 2 == sink.stacks[0][1]
    assert [(1, kernel[0], None, "kernel", Trust.KERNEL), (1, kernel[1], None, "kernel", Trust.KERNEL)] == sink.frames[:2]


def test_a_cut_stack_names_the_module_that_cut_it() -> None:
    cut = record(pid=GHOST, user=[AT], stop=Stop.NO_UNWIND_INFO, stop_address=CODE + 0x10)
    sink = recorded([cut], mapped("/bin/ghost", pid=GHOST))
    assert (Stop.NO_UNWIND_INFO, 1) == sink.stacks[0][2:4]


def test_frames_outside_all_mappings_are_kept_without_a_module() -> None:
    sink = recorded([record(pid=GHOST, user=[AT, marked(0x10)])], mapped("/bin/ghost", pid=GHOST))
    assert ["/bin/ghost", None] == sink.paths()


def test_system_calls_are_named() -> None:
    calls = [record(pid=GHOST, trigger=2, detail=1), record(pid=GHOST, trigger=2, detail=4, flags=2)]
    sink = recorded(calls)
    assert [("syscalls", "write"), ("syscalls", "32-bit-4")] == [sample[4:6] for sample in sink.samples]


def test_what_is_younger_than_the_hold_back_waits_for_the_next_step() -> None:
    now = time.monotonic_ns()
    samples = FakeSampler(record(pid=GHOST, time_ns=SECOND, user=[AT]) + record(pid=GHOST, time_ns=now + 60 * SECOND))
    sink = FakeSink()
    recorder = Recorder(samples, FakeSideband(FORK, mapped("/bin/ghost", pid=GHOST)), Processes([1]), sink)
    assert 1 == recorder.step()
    assert 0 == recorder.step()
    assert 1 == len(sink.samples)


def test_a_record_that_is_cut_off_ends_the_batch() -> None:
    whole = record(pid=GHOST, user=[AT])
    assert 1 == len(recorded([whole, whole[:-1]]).samples)


def test_an_event_that_comes_a_drain_later_still_counts_before_a_younger_sample() -> None:
    """The rings of two CPUs are read one after the other: an exec may be read before the fork that made it possible."""
    now = time.monotonic_ns()
    child = GHOST + 7
    events = FakeSideband(FORK, mapped("/bin/shell", pid=GHOST, time_ns=2), Named(now + 2, child, child, "tool", exec=True))
    sink = FakeSink()
    recorder = Recorder(FakeSampler(record(pid=child, start_ns=now + 1, time_ns=now + 3, user=[AT])), events, Processes([1]), sink)
    recorder.step()
    events.events = [Forked(now + 1, child, GHOST, child, GHOST), mapped("/bin/tool", pid=child, time_ns=now + 3)]
    recorder.step()
    events.events = []
    recorder._apply_events(now + SECOND)
    recorder._store_samples(now + SECOND)
    assert [["/bin/tool"]] == [sink.paths(n) for n in range(len(sink.samples))]
    assert [(child, now + 1, "tool", "/bin/tool", GHOST)] == sink.processes


def test_after_a_loss_of_events_proc_is_read_again() -> None:
    events, processes = FakeSideband(FORK), Processes([1, os.getpid()])
    recorder = Recorder(FakeSampler(), events, processes, FakeSink())
    recorder.step(final=True)
    assert processes.newest(os.getpid()) is None
    events.lost = 3
    recorder.step(final=True)
    assert processes.newest(os.getpid()) is not None


def test_a_process_that_was_never_told_of_is_read_when_its_sample_comes() -> None:
    stat = read_stat(os.getpid())
    assert stat is not None
    sink = FakeSink()
    sample = record(pid=os.getpid(), start_ns=stat.start_ns, time_ns=time.monotonic_ns() - SECOND, user=[AT])
    Recorder(FakeSampler(sample), FakeSideband(), Processes([1]), sink).step(final=True)
    [(pid, _, comm, exe, parent)] = sink.processes
    assert (os.getpid(), stat.comm, str(Path("/proc/self/exe").readlink()), os.getppid()) == (pid, comm, exe, parent)
