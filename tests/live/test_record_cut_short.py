"""A recorder that is killed, and one whose disk is full: the file can be read, and nothing is left in the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live.recorded import committed, record, rows, started
from target_programs import wait_until

pytestmark = pytest.mark.live

PROGRAM_BY_ID, SYSCALL_BPF = 13, 321


def programs_of(pid: int) -> set[int]:
    """The numbers of the BPF programs that a process holds (/proc/PID/fdinfo)."""
    numbers = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in info.read_text(encoding="utf-8").splitlines():
                if line.startswith("prog_id:"):
                    numbers.add(int(line.split()[1]))
    return numbers


def is_loaded(number: int) -> bool:
    """Whether a BPF program of that number is in the kernel."""
    attributes = ctypes.create_string_buffer(struct.pack("<III", number, 0, 0), 128)
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(SYSCALL_BPF, PROGRAM_BY_ID, attributes, 128)
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


def test_a_killed_recording_is_read_to_its_last_second_and_nothing_stays(tmp_path: Path) -> None:
    output = tmp_path / "out.unspool"
    recorder = started("-a", "-F", 499, "-o", output, stdout=subprocess.DEVNULL)
    try:
        committed(output)
        loaded = programs_of(recorder.pid)
        assert loaded
        assert all(map(is_loaded, loaded))
        # The last of two commits at least: the one before was a second ago.
        held = (tmp_path / "out.unspool.wal").stat().st_size
        wait_until(lambda: (tmp_path / "out.unspool.wal").stat().st_size > held, "another commit", 120)
    finally:
        killed_ns = time.monotonic_ns()
        recorder.kill()
        recorder.communicate()
    wait_until(lambda: not any(map(is_loaded, loaded)), "the kernel to drop the programs", 60)
    assert [(False, None)] == rows(output, "SELECT finished, duration_ns FROM recording")
    [(samples, last_ns)] = rows(output, "SELECT count(*), max(time_ns) FROM samples")
    assert samples > 0
    # All but the recorder's last second is there; a busy machine may have stopped the recorder itself for a while.
    assert killed_ns - last_ns < 30 * 10**9
    assert rows(output, "SELECT count(*) FROM counters")[0][0] > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that is full after some megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(place)], check=False, capture_output=True, timeout=60)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, timeout=60)


def test_a_full_disk_ends_the_recording_with_one_message_and_a_readable_file(small_disk: Path) -> None:
    output = small_disk / "out.unspool"
    # Different stacks without end: the loop's system calls come from ever new depths.
    script = "import os\ndef f(n):\n    os.getppid()\n    return n and f(n - 1)\nwhile True: f(200)"
    done = record("--on", "syscalls:getppid", "-o", output, "--", "python3", "-c", script)
    assert 74 == done.returncode, done.stderr
    assert 1 == done.stderr.count("unspool record:")
    assert "Traceback" not in done.stderr
    assert "hint: Is the disk full?" in done.stderr
    assert rows(output, "SELECT schema FROM recording")
