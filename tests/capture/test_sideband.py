"""The kernel's records of mappings, names, forks and exits, made byte by byte, and some real ones."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.capture.sideband import (
    MISC_COMM_EXEC,
    MISC_MMAP_BUILD_ID,
    Exited,
    Forked,
    Mapped,
    Named,
    Sideband,
    parse_cpu_list,
    parse_records,
)

COMM, EXIT, FORK, LOST, MMAP2 = 3, 4, 7, 2, 10
BUILD_ID = bytes(range(20))


def record(kind: int, body: bytes, *, misc: int = 0, time_ns: int = 77) -> bytes:
    """A record with its sample id, padded as the kernel pads it."""
    body += bytes(-len(body) % 8) + struct.pack("<Q", time_ns)
    return struct.pack("<IHH", kind, misc, 8 + len(body)) + body


def mmap2(file: bytes, name: bytes, *, misc: int = 0) -> bytes:
    return record(MMAP2, struct.pack("<IIQQQ", 5, 6, 0x1000, 0x2000, 0x3000) + file + struct.pack("<II", 5, 2) + name + b"\0", misc=misc)


def test_a_mapping_with_a_build_id() -> None:
    file = struct.pack("<BBH20s", 20, 0, 0, BUILD_ID)
    [event] = parse_records(mmap2(file, b"/lib/a.so", misc=MISC_MMAP_BUILD_ID)).events
    assert Mapped(77, 5, 0x1000, 0x2000, 0x3000, "/lib/a.so", BUILD_ID.hex(), (0, 0), 0, deleted=False) == event


def test_a_mapping_with_device_and_inode_of_a_deleted_file() -> None:
    file = struct.pack("<IIQQ", 8, 1, 4242, 9)
    [event] = parse_records(mmap2(file, b"/tmp/a b (deleted)")).events
    assert Mapped(77, 5, 0x1000, 0x2000, 0x3000, "/tmp/a b", "", (8, 1), 4242, deleted=True) == event


def test_a_build_id_longer_than_its_room_is_cut() -> None:
    [event] = parse_records(mmap2(struct.pack("<BBH20s", 255, 0, 0, BUILD_ID), b"x", misc=MISC_MMAP_BUILD_ID)).events
    assert isinstance(event, Mapped)
    assert BUILD_ID.hex() == event.build_id


def test_names_forks_exits_and_losses() -> None:
    task = struct.pack("<IIIIQ", 5, 4, 6, 3, 99)
    data = (
        record(COMM, struct.pack("<II", 5, 6) + b"worker\0")
        + record(COMM, struct.pack("<II", 5, 5) + b"next\0", misc=MISC_COMM_EXEC)
        + record(FORK, task)
        + record(EXIT, task)
        + record(LOST, struct.pack("<QQ", 1, 12))
        + record(99, b"something of a later kernel")
    )
    batch = parse_records(data)
    assert [
        Named(77, 5, 6, "worker", exec=False),
        Named(77, 5, 5, "next", exec=True),
        Forked(99, 5, 4, 6, 3),
        Exited(99, 5, 4, 6),
    ] == batch.events
    assert 12 == batch.lost


@given(st.binary(max_size=400))
def test_any_bytes_end_somewhere(data: bytes) -> None:
    assert parse_records(data).lost >= 0


def test_cpu_lists() -> None:
    assert [[0], [0, 1, 2, 3], [0, 2, 3, 8], []] == [parse_cpu_list(text) for text in ("0\n", "0-3", "0,2-3,8\n", "\n")]


@pytest.mark.live
def test_a_real_program_is_seen_from_fork_to_exit() -> None:
    with Sideband() as sideband:
        child = subprocess.Popen([sys.executable, "-c", "pass"])
        assert 0 == child.wait(60)
        events = []
        deadline = time.monotonic() + 30
        while not any(isinstance(event, Exited) and event.tid == child.pid for event in events):
            assert time.monotonic() < deadline
            events += sideband.drain()
    ours = [event for event in events if event.pid == child.pid]
    assert [Forked, Exited] == [type(ours[0]), type(ours[-1])]
    assert (os.getpid(), child.pid) == (ours[0].parent, ours[0].tid)
    assert any(isinstance(event, Named) and event.exec for event in ours)
    libc = [event for event in ours if isinstance(event, Mapped) and "libc.so" in event.path]
    assert libc
    assert all(event.build_id or event.inode for event in libc)
    assert sorted(events, key=lambda event: event.time_ns) == events
    assert events[0].time_ns <= time.monotonic_ns()
