"""The model of processes: what /proc says, what events say, and which of the two is newer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from capture.fakes import CODE, SECOND, mapped

from unspool.capture import processes as module
from unspool.capture.proc import Found, control_group, read_process, read_stat, running
from unspool.capture.processes import GRACE_NS, Processes
from unspool.capture.sideband import Exited, Forked, Named
from unspool.model.module import Mapping

GHOST = 1 << 23
FORK = Forked(10, GHOST, 1, GHOST, 1)


def fed(*events: object, watched: list[int] | None = None, follow: bool = True) -> Processes:
    model = Processes([1] if watched is None else watched, follow=follow)
    for event in events:
        model.apply(event)  # type: ignore[arg-type]
    return model


def paths(model: Processes, pid: int, time_ns: int = SECOND) -> list[str]:
    process = model.newest(pid)
    assert process is not None
    return [region.file.path for region in process.program_at(time_ns).regions()]


def test_this_very_process_is_read_from_proc() -> None:
    found = read_process(os.getpid())
    assert found is not None
    assert (os.getppid(), str(Path("/proc/self/exe").readlink())) == (found.parent, found.exe)
    assert any("libc" in mapping.path for mapping in found.mappings)
    assert all(mapping.executable for mapping in found.mappings)
    assert 0 < found.start_ns <= found.time_ns <= time.monotonic_ns()


def test_a_process_that_is_gone_is_none() -> None:
    assert read_process(GHOST) is None
    assert read_stat(GHOST) is None


def test_ours_is_among_those_that_run() -> None:
    assert os.getpid() in running()


def test_a_scan_knows_the_mappings_of_those_that_run() -> None:
    model = Processes([os.getpid()])
    model.scan()
    assert any("libc" in path for path in paths(model, os.getpid()))


def test_events_older_than_the_scan_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rings are opened first and the scan made then: what happened in between is in both, and the scan is right."""
    new = Mapping(CODE, CODE + 0x1000, readable=True, writable=False, executable=True, offset=0, path="/new", inode=5)
    monkeypatch.setattr(module, "read_process", lambda pid: Found(pid, 100, 10, 1, "ghost", "/new", (new,)))
    model = Processes([GHOST])
    model.scan()
    for event in (FORK, Named(50, GHOST, GHOST, "old", exec=True), mapped("/old", pid=GHOST, time_ns=60)):
        model.apply(event)
    assert (["/new"], 1) == (paths(model, GHOST), len(model))
    model.apply(mapped("/newer", pid=GHOST, time_ns=200))
    assert ["/newer"] == paths(model, GHOST)


def test_an_exec_starts_with_nothing_mapped_and_the_old_program_stays_known() -> None:
    model = fed(FORK, mapped("/old", pid=GHOST, time_ns=20), Named(30, GHOST, GHOST, "next", exec=True))
    assert ([], ["/old"]) == (paths(model, GHOST), paths(model, GHOST, 25))


def test_a_name_is_the_threads_own() -> None:
    model = fed(FORK, Named(20, GHOST, GHOST, "main", exec=False), Named(20, GHOST, GHOST + 1, "worker", exec=False))
    process = model.newest(GHOST)
    assert process is not None
    assert ("main", {GHOST + 1: "worker"}) == (process.program.comm, process.program.threads)


def test_children_of_those_watched_are_watched_when_asked_for() -> None:
    events = (FORK, Forked(11, GHOST + 1, GHOST, GHOST + 1, GHOST), Forked(12, GHOST + 2, 2, GHOST + 2, 2))
    assert {GHOST, GHOST + 1} == {process.pid for process in fed(*events)}
    assert set() == {process.pid for process in fed(*events, follow=False)}


def test_a_new_thread_is_no_new_process() -> None:
    assert 1 == len(fed(FORK, Forked(11, GHOST, GHOST, GHOST + 1, GHOST)))


def test_a_process_is_forgotten_some_time_after_its_end() -> None:
    model = fed(FORK, Exited(20, GHOST, 1, GHOST + 5), Exited(30, GHOST, 1, GHOST))
    assert [] == model.forget(30 + GRACE_NS)
    assert [GHOST] == [process.pid for process in model.forget(31 + GRACE_NS)]
    assert 0 == len(model)


def test_an_exit_in_the_middle_of_an_exec_is_none() -> None:
    """What the kernel tells of a set-user-ID program (sudo): it goes on, and its children are watched."""
    middle = Exited(40, GHOST, 1, GHOST)
    before = (FORK, mapped("/old", pid=GHOST, time_ns=20), Named(30, GHOST, GHOST, "sudo", exec=True))
    model = fed(*before, middle, mapped("/sudo", pid=GHOST, time_ns=50), Forked(60, GHOST + 1, GHOST, GHOST + 1, GHOST), watched=[GHOST])
    newest = model.newest(GHOST)
    assert newest is not None
    assert (None, ["/sudo"], ["/sudo"]) == (newest.exit_ns, paths(model, GHOST), paths(model, GHOST + 1))
    model.apply(Exited(70, GHOST, 1, GHOST))
    assert 70 == newest.exit_ns


def test_a_process_that_nobody_told_of_is_known_without_mappings() -> None:
    model = Processes([1])
    process = model.find(GHOST, SECOND)
    assert (GHOST, 0) == (process.pid, len(process.program))
    assert process is model.find(GHOST, SECOND)


def test_processes_with_one_id_are_told_apart_by_their_start() -> None:
    model = fed(FORK, Exited(20, GHOST, 1, GHOST), Forked(5 * SECOND, GHOST, 1, GHOST, 1))
    assert [10, 5 * SECOND] == [model.find(GHOST, start).start_ns for start in (0, 5 * SECOND - 100)]


def test_a_file_is_new_once() -> None:
    model = fed(FORK, mapped("/a", pid=GHOST, time_ns=20), mapped("/a", CODE + 0x9000, pid=GHOST, time_ns=21), mapped("//anon", pid=GHOST))
    assert ["/a"] == [file.path for file, _, _ in model.new_files]


def test_a_process_has_the_control_group_of_its_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {GHOST: "/a"}
    monkeypatch.setattr(module, "control_group", answers.get)
    model = fed(FORK)
    process = model.newest(GHOST)
    assert process is not None
    assert "/a" == model.cgroup(process)
    answers[GHOST] = "/moved"
    assert "/a" == model.cgroup(process)


def test_a_process_that_is_gone_has_the_control_group_of_the_nearest_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "control_group", {GHOST: "/a"}.get)
    events = [FORK, Forked(20, GHOST + 1, GHOST, GHOST + 1, GHOST), Forked(30, GHOST + 2, GHOST + 1, GHOST + 2, GHOST + 1)]
    model = fed(*events, Exited(40, GHOST + 1, 0, GHOST + 1), Exited(50, GHOST + 2, 0, GHOST + 2))
    grandchild, orphan = model.newest(GHOST + 2), model.find(GHOST + 9, SECOND)
    assert grandchild is not None
    assert "/a" == model.cgroup(grandchild)
    assert "" == model.cgroup(orphan)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0::/system.slice/web.service\n", "/system.slice/web.service"),
        (b"0::/gone.scope (deleted)\n", "/gone.scope"),
        (b"12:cpu,cpuacct:/\n4:memory:/docker/abc\n1:name=systemd:/docker\n0::/\n", "/docker/abc"),
        (b"4:memory:/docker/abc\n0::/user.slice\n", "/user.slice"),
        (b"0::/a:b/c\n", "/a:b/c"),
        (b"0::/\n", "/"),
        (b"", "/"),
        (b"nothing\n\xff", "/"),
    ],
)
def test_the_most_specific_control_group_is_taken(monkeypatch: pytest.MonkeyPatch, text: bytes, expected: str) -> None:
    monkeypatch.setattr("unspool.capture.proc.read_file", lambda _: text)
    assert expected == control_group(1)


def test_this_very_process_has_a_control_group() -> None:
    assert (control_group(os.getpid()) or "").startswith("/")
    assert control_group(GHOST) is None
