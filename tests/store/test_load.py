from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from store.recordings import guests, small, twins

from unspool.errors import RecordingError
from unspool.model.verdict import Stop, Verdict
from unspool.profile.filters import Filter
from unspool.store.load import load
from unspool.store.reader import open_recording


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("recording") / "small.unspool")


@pytest.mark.parametrize(
    ("only", "samples"),
    [
        (Filter(), 10),
        (Filter(pids=(10,)), 9),
        (Filter(pids=(10, 20)), 10),
        (Filter(pids=(99,)), 0),
        (Filter(tids=(11,)), 4),
        (Filter(comms=("dem?",)), 9),
        (Filter(comms=("helper",)), 4),
        (Filter(comms=("kworker*", "nothing")), 1),
        (Filter(modules=("libfoo.so",)), 2),
        (Filter(modules=("/usr/*",)), 9),
        (Filter(modules=("libfoo.so", "[[]kernel]")), 3),
        (Filter(triggers=("cpu",)), 10),
        (Filter(triggers=("syscalls",)), 0),
        (Filter(cpus=(0,)), 5),
        (Filter(verdicts=(Verdict.RELIABLE,)), 8),
        (Filter(verdicts=(Verdict.UNRELIABLE, Verdict.NONE)), 2),
        (Filter(endings=("cut",)), 1),
        (Filter(stops=(Stop.NO_UNWIND_INFO,)), 1),
        (Filter(since=0.5), 5),
        (Filter(until=0.5), 5),
        (Filter(since=0.2, until=0.4), 2),
        (Filter(since=0.2, until=0.4, tids=(10,)), 1),
    ],
    ids=str,
)
def test_a_filter_keeps_the_samples_it_names(recording: Path, only: Filter, samples: int) -> None:
    with open_recording(recording) as opened:
        profile = load(opened, only, timed=True)
    assert profile.timed is not None
    assert samples == profile.samples == profile.weight == len(profile.timed)


@pytest.mark.parametrize(
    ("only", "samples"),
    [
        (Filter(guests=("web",)), 7),
        (Filter(guests=("web#1",)), 5),
        (Filter(guests=("web#2", "d*")), 5),
        (Filter(guests=("0b6c2f6e-0000-4000-8000-000000000001",)), 7),
        (Filter(guests=("5000",)), 3),
        (Filter(guests=("[host]",)), 2),
        (Filter(guests=("other",)), 0),
        (Filter(guests=("other", "[host]", "db")), 5),
        (Filter(kernels=("6.1.0-*",)), 7),
        (Filter(kernels=("6.18*",)), 2),
        (Filter(vcpus=(0,)), 8),
        (Filter(vcpus=(0, 1)), 10),
        (Filter(pids=(10,)), 7),
        (Filter(pids=(10,), guests=("web",)), 5),
        (Filter(modes=("kernel",)), 8),
        (Filter(modes=("user",)), 4),
        (Filter(modes=("user",), guests=("web",), vcpus=(1,)), 2),
        (Filter(cgroups=("/user.slice",)), 2),
        (Filter(cgroups=("/",)), 0),
        (Filter(cgroups=("/user*",)), 2),
        (Filter(endings=("cut",)), 3),
        (Filter(verdicts=(Verdict.RELIABLE,)), 9),
    ],
    ids=str,
)
def test_guests_vcpus_and_control_groups_are_filters_too(tmp_path_factory: pytest.TempPathFactory, only: Filter, samples: int) -> None:
    path = tmp_path_factory.mktemp("guests") / "a.unspool"
    with open_recording(guests(path)) as opened:
        profile = load(opened, only, timed=True)
    assert profile.timed is not None
    assert samples == profile.samples == len(profile.timed)


def test_a_process_below_a_control_group_belongs_to_it() -> None:
    only = Filter(cgroups=("/system.slice", "/user.slice/*.scope"))
    inside = ("/system.slice", "/system.slice/web.service", "/user.slice/a.scope", "/user.slice/u/b.scope/c")
    assert all(only.chooses_cgroup(cgroup) for cgroup in inside)
    assert not any(only.chooses_cgroup(cgroup) for cgroup in ("", "/", "/system.slices", "/user.slice"))


def test_a_reference_to_nothing_is_an_error_not_a_wrong_answer(tmp_path: Path) -> None:
    path = small(tmp_path / "a.unspool")
    with duckdb.connect(str(path)) as connection:
        connection.execute("DELETE FROM frames WHERE frame = 2")
    with open_recording(path) as opened, pytest.raises(RecordingError, match="table frames"):
        load(opened)


def test_where_it_comes_from_is_kept(recording: Path) -> None:
    with open_recording(recording) as opened:
        about = load(opened).about
    assert ("testhost", 3, 1.0, 10_000_000) == (about.hostname, about.lost, about.duration_s, about.period_ns)


def test_guests_of_one_name_are_told_apart_by_their_vmm(tmp_path: Path) -> None:
    with open_recording(twins(tmp_path / "a.unspool")) as opened:
        assert ["web@1", "web@2"] == [guest.label for guest in load(opened).guests]
        found = {name: load(opened, Filter(guests=(name,))).samples for name in ("web", "web#1", "web@1", "web@2#1", "2", "web@3")}
    assert {"web": 3, "web#1": 3, "web@1": 1, "web@2#1": 2, "2": 2, "web@3": 0} == found
