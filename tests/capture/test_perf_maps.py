"""A program's perf map is believed when its own user wrote it, and read when the program is gone."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from unspool.capture import perf_maps
from unspool.capture.perf_maps import PerfMaps, inner_pid, open_perf_map
from unspool.capture.processes import Process


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def map_of(child: subprocess.Popen[bytes]) -> Iterator[Path]:
    path = Path(f"/tmp/perf-{child.pid}.map")
    yield path
    path.unlink(missing_ok=True)


def test_a_map_is_read_also_after_its_process_ended(child: subprocess.Popen[bytes], map_of: Path) -> None:
    map_of.write_bytes(b"1000 10 one\n")
    maps = PerfMaps()
    assert maps.has(Process(child.pid, 0))
    map_of.write_bytes(b"1000 10 two\n")
    assert child.stdin is not None
    child.stdin.close()
    child.wait(60)
    assert b"1000 10 two\n" == maps.read(child.pid)
    maps.close()


def test_without_a_map_there_is_none(child: subprocess.Popen[bytes]) -> None:
    maps = PerfMaps()
    assert not maps.has(Process(child.pid, 0))
    assert maps.read(child.pid) is None


def test_a_map_that_comes_late_is_found_and_what_was_known_is_forgotten(
    child: subprocess.Popen[bytes], map_of: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic_ns()
    monkeypatch.setattr(perf_maps.time, "monotonic_ns", lambda: now)
    maps, process = PerfMaps(), Process(child.pid, 0)
    process.program.frames[1] = 1
    assert not maps.has(process)
    map_of.write_bytes(b"")
    assert not maps.has(process)
    now += perf_maps.AGAIN_NS
    assert maps.has(process)
    assert {} == process.program.frames
    maps.close()


@pytest.mark.parametrize("spoil", ["link", "name", "fifo"])
def test_what_a_stranger_may_have_put_there_is_refused(child: subprocess.Popen[bytes], map_of: Path, tmp_path: Path, spoil: str) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"1000 10 one\n")
    if spoil == "link":
        map_of.symlink_to(other)
    elif spoil == "fifo":
        os.mkfifo(map_of)
    else:
        map_of.write_bytes(b"1000 10 one\n")
        (other.parent / "second").hardlink_to(map_of)
    assert open_perf_map(child.pid) is None


@pytest.mark.live
def test_a_map_of_another_user_is_refused(child: subprocess.Popen[bytes], map_of: Path) -> None:
    map_of.write_bytes(b"1000 10 one\n")
    os.chown(map_of, 65534, 65534)
    assert open_perf_map(child.pid) is None


def test_outside_containers_the_inner_id_is_the_id() -> None:
    assert os.getpid() == inner_pid(os.getpid())
    assert 1 << 23 == inner_pid(1 << 23)
