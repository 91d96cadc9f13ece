"""Samples chosen in memory are the ones that SQL chooses."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store.recordings import guests, small

from unspool.model.verdict import Stop, Verdict
from unspool.profile.columns import Profile
from unspool.profile.filters import EVERYTHING, Filter
from unspool.store.load import load
from unspool.store.reader import open_recording
from unspool.web.opened import Opened
from unspool.web.selection import select

filters = st.builds(
    Filter,
    pids=st.sampled_from([(), (10,), (20,), (10, 20), (99,)]),
    tids=st.sampled_from([(), (), (10,), (11, 20)]),
    comms=st.sampled_from([(), (), ("demo",), ("h*r",), ("kworker/?:1",), ("[d]emo", "x")]),
    modules=st.sampled_from([(), (), ("libfoo.so",), ("/usr/bin/*",), ("[[]kernel]",)]),
    triggers=st.sampled_from([(), (), ("cpu",), ("c*",), ("cpu:x",)]),
    cpus=st.sampled_from([(), (), (0,), (0, 1), (7,)]),
    verdicts=st.sampled_from([(), (), (Verdict.RELIABLE,), (Verdict.UNRELIABLE, Verdict.NONE)]),
    endings=st.sampled_from([(), (), ("whole",), ("cut", "none")]),
    stops=st.sampled_from([(), (), (Stop.NO_UNWIND_INFO,), (Stop.END_PROCESS_ENTRY, Stop.CYCLE)]),
    since=st.sampled_from([None, None, 0.0, 0.2, 0.35]),
    until=st.sampled_from([None, None, 0.2, 0.9, 0.0]),
    guests=st.sampled_from([(), (), ("web",), ("web#1", "[host]"), ("web#2",), ("d?",), ("5000",), ("none",), ("[host]",)]),
    vcpus=st.sampled_from([(), (), (0,), (1, 2), (9,)]),
    kernels=st.sampled_from([(), (), ("6.18*",), ("6.1.0*",), ("*",)]),
    cgroups=st.sampled_from([(), (), ("/user.slice",), ("/user",), ("*",), ("/",)]),
    modes=st.sampled_from([(), (), ("kernel",), ("user",), ("user", "kernel")]),
)


@pytest.fixture(scope="module", params=[small, guests])
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = request.param(tmp_path_factory.mktemp("selection") / "a.unspool")
    return made


@pytest.fixture(scope="module")
def whole(recording: Path) -> Profile:
    with open_recording(recording) as opened:
        return load(opened, timed=True)


def rows(profile: Profile) -> list[tuple[int, ...]]:
    counted = profile.counted
    return sorted(zip(*(getattr(counted, name).tolist() for name in ("task", "event", "stack", "vcpu", "count", "weight")), strict=True))


@given(only=filters)
def test_memory_and_sql_choose_the_same_samples(recording: Path, whole: Profile, only: Filter) -> None:
    with open_recording(recording) as opened:
        expected = load(opened, only, timed=True)
    found = select(whole, only)
    assert rows(expected) == rows(found)
    assert expected.timed is not None
    assert found.timed is not None
    assert expected.timed.time_ns.tolist() == found.timed.time_ns.tolist()
    assert expected.timed.stack.tolist() == found.timed.stack.tolist()
    assert expected.timed.vcpu.tolist() == found.timed.vcpu.tolist()


def test_without_a_filter_everything_passes(whole: Profile) -> None:
    assert rows(whole) == rows(select(whole, EVERYTHING))


def test_a_picture_is_freed_when_nobody_needs_it(whole: Profile) -> None:
    """Without the garbage collector: a live page makes one a second, and each may hold a hundred megabytes."""
    opened = Opened("a", whole)
    assert whole is opened.select(EVERYTHING)
    chosen = weakref.ref(opened.select(Filter(pids=(10,))))
    picture = weakref.ref(opened)
    del opened
    assert (picture(), chosen()) == (None, None)
