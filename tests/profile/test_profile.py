from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from store.recordings import HEADER, Scene, big, small

from unspool.model.symbol import Symbol
from unspool.model.verdict import Stop, Trust, Verdict
from unspool.profile.arrays import distinct, grouped, spans
from unspool.profile.columns import Profile
from unspool.profile.paths import function_totals, paths
from unspool.profile.quality import quality
from unspool.profile.rows import functions, processes
from unspool.profile.tree import grow
from unspool.store.load import load
from unspool.store.reader import open_recording
from unspool.store.writer import Writer


def profile_of(path: Path, **options: bool) -> Profile:
    with open_recording(path) as recording:
        return load(recording, **options)


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    return profile_of(small(tmp_path / "small.unspool"))


def test_grouping_equals_numpys() -> None:
    dice = np.random.default_rng(1)
    for size in (0, 1, 1000):
        keys = dice.integers(-5, 50, size)
        expected, places = np.unique(keys, return_inverse=True)
        assert expected.tolist() == distinct(keys).tolist() == grouped(keys)[0].tolist()
        assert places.tolist() == grouped(keys)[1].tolist()
    assert [] == spans(np.array([], dtype=np.int64), np.array([], dtype=np.int64)).tolist()
    assert [7, 3, 4, 5] == spans(np.array([7, 9, 3]), np.array([1, 0, 3])).tolist()


def test_own_and_total_of_functions_count_recursion_once(profile: Profile) -> None:
    found = {row.name: (row.own, row.total) for row in functions(profile)}
    expected = {"leaf": (7, 7), "main": (0, 8), "work": (0, 5), "ksys": (2, 2), "read": (0, 1), "libfoo.so+0x9000": (1, 1)}
    assert expected == found


def test_quality_names_the_modules_that_cause_a_stop(profile: Profile) -> None:
    found = quality(profile)
    assert (10, 8, 1, 1) == (found.samples, found.whole, found.cut, found.none)
    assert {Verdict.RELIABLE: 8, Verdict.UNRELIABLE: 1, Verdict.NONE: 1} == found.verdicts
    causes = {cause.stop: (cause.samples, cause.modules) for cause in found.causes}
    assert (8, ()) == causes[Stop.END_PROCESS_ENTRY]
    assert (1, (("/usr/lib/libfoo.so", 1),)) == causes[Stop.NO_UNWIND_INFO]


def test_processes_say_how_much_of_them_is_whole(profile: Profile) -> None:
    assert [(10, "demo", 9, 8), (20, "kworker/0:1", 1, 0)] == [(row.pid, row.comm, row.samples, row.whole) for row in processes(profile)]


def test_the_tree_starts_with_groups_and_marks(profile: Profile) -> None:
    tree = grow(profile)
    names = [
        ("  " * depth + tree.functions[tree.function[node]].name, int(tree.own[node]), int(tree.total[node])) for node, depth in tree.walk()
    ]
    expected = [
        ("demo", 0, 9),
        ("  main", 0, 8),
        ("    work", 0, 5),
        ("      leaf", 5, 5),
        ("    leaf", 0, 2),
        ("      leaf", 2, 2),
        ("    read", 0, 1),
        ("      ksys", 1, 1),
        ("  [cut: no-unwind-info in libfoo.so]", 0, 1),
        ("    libfoo.so+0x9000", 1, 1),
        ("kworker/0:1", 0, 1),
        ("  [no user stack]", 0, 1),
        ("    ksys", 1, 1),
    ]
    assert expected == names


@pytest.mark.parametrize(("by", "first"), [("none", "main"), ("process", "demo (10)"), ("thread", "demo (10) demo (10)")])
def test_the_tree_groups_as_it_is_told(profile: Profile, by: str, first: str) -> None:
    tree = grow(profile, by=by, marks=False)
    assert first == tree.functions[tree.function[tree.children(0)[0]]].name
    assert 10 == tree.total[0] == tree.own.sum()
    assert not any(tree.functions[number].name.startswith("[cut") for number in tree.function)


def test_inlined_calls_are_functions_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.unspool"
    with Writer(path, HEADER) as out:
        scene = Scene(out)
        frame = out.frame(scene.modules["demo"], 0x10, 0x10, "user", Trust.REGISTERS)
        out.name(frame, (Symbol("tiny", 0, "a.c", 1, inlined=True), Symbol("small", 0, "a.c", 2, inlined=True), Symbol("big", 9, "b.c", 3)))
        process = out.process(1, 1, "demo")
        out.sample(HEADER.monotonic_ns, process, out.thread(process, 1, "demo"), 0, "cpu", "", 1, scene.stack(frame, scene.frame("main")))
    profile = profile_of(path)
    assert [("tiny", 1, 1), ("big", 0, 1), ("main", 0, 1), ("small", 0, 1)] == sorted(
        ((row.name, row.own, row.total) for row in functions(profile)), key=lambda row: (-row[1], row[0])
    )
    tree = grow(profile)
    assert ["demo", "main", "big", "small", "tiny"] == [tree.functions[tree.function[node]].name for node, _ in tree.walk()]
    assert ["a.c", "a.c", "b.c", ""] == [profile.files[file] if file >= 0 else "" for file in profile.entries.file]


def test_an_empty_recording_is_an_empty_profile(tmp_path: Path) -> None:
    Writer(tmp_path / "a.unspool", HEADER).finish(5)
    profile = profile_of(tmp_path / "a.unspool", timed=True)
    assert (0, 0) == (profile.samples, profile.weight)
    assert [] == functions(profile) == processes(profile)
    assert 1 == len(grow(profile))
    assert 0 == quality(profile).share(0)
    assert () == quality(profile).causes


def slow_totals(profile: Profile) -> tuple[Counter[str], Counter[str], Counter[tuple[str, ...]]]:
    """Own and total of functions, and weight of paths, counted one sample after the other."""
    own, total, whole_paths = Counter[str](), Counter[str](), Counter[tuple[str, ...]]()
    found = paths(profile)
    for stack, weight in zip(profile.counted.stack.tolist(), profile.counted.weight.tolist(), strict=True):
        calls = found.entries[found.start[stack] : found.start[stack + 1]]
        names = [profile.functions[number].name for number in profile.entries.function[calls]]
        own[names[0]] += weight
        whole_paths[tuple(reversed(names))] += weight
        for name in set(names):
            total[name] += weight
    return own, total, whole_paths


def test_columns_count_as_a_loop_does(tmp_path: Path) -> None:
    profile = profile_of(big(tmp_path / "a.unspool", samples=3000, stacks=400, depth=9, functions=12))
    own, total, whole_paths = slow_totals(profile)
    totals = function_totals(profile)
    by_name_own, by_name_total = Counter[str](), Counter[str]()
    for function, mine, all_of_it in zip(profile.functions, totals.own.tolist(), totals.total.tolist(), strict=True):
        by_name_own[function.name] += mine
        by_name_total[function.name] += all_of_it
    assert (own, total) == (by_name_own, by_name_total)
    tree = grow(profile, by="none")
    lines = Counter[tuple[str, ...]]()
    line: list[str] = []
    for node, depth in tree.walk():
        line[depth:] = [tree.functions[tree.function[node]].name]
        if tree.own[node]:
            lines[tuple(line)] += int(tree.own[node])
    assert whole_paths == lines


def test_a_stack_of_many_thousand_frames_needs_no_recursion(tmp_path: Path) -> None:
    path = tmp_path / "a.unspool"
    dice = random.Random(3)
    with Writer(path, HEADER) as out:
        scene = Scene(out)
        frames = [scene.frame(f"f{number}") for number in range(50)]
        process = out.process(1, 1, "deep")
        thread = out.thread(process, 1, "deep")
        for index in range(20):
            out.sample(HEADER.monotonic_ns + index, process, thread, 0, "cpu", "", 1, scene.stack(*dice.choices(frames, k=6000)))
    tree = grow(profile_of(path))
    assert 100_000 < len(tree)
    assert 6001 == max(depth for _, depth in tree.walk()) + 1


def test_samples_in_time_are_the_same_samples(tmp_path: Path) -> None:
    profile = profile_of(small(tmp_path / "a.unspool"), timed=True)
    assert profile.timed is not None
    assert profile.timed.time_ns.tolist() == sorted(profile.timed.time_ns.tolist())
    counts = Counter[int]()
    for stack, count in zip(profile.counted.stack.tolist(), profile.counted.count.tolist(), strict=True):
        counts[stack] += count
    assert counts == Counter(profile.timed.stack.tolist())
