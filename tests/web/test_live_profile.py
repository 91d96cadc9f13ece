"""A profile that grew from what was sent is the one that the file holds."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from store import recordings
from store.recordings import HEADER, MONOTONIC, SECOND, Scene, guests, small
from web.feeding import bodies

from unspool.errors import BadInput
from unspool.model.symbol import Symbol
from unspool.model.verdict import Stop, Trust
from unspool.profile.columns import Profile
from unspool.profile.filters import EVERYTHING
from unspool.profile.paths import paths
from unspool.store import wire
from unspool.store.load import load
from unspool.store.reader import open_recording
from unspool.web import live_profile
from unspool.web.live_profile import LiveProfile
from unspool.web.selection import select


def many(path: Path) -> Path:
    """Forty commits: frames that get their names later, samples that come late, new stacks and threads all the time."""
    chance = random.Random(7)
    with recordings.Writer(path, HEADER) as writer:
        scene = Scene(writer)
        frames = [writer.frame(scene.modules["demo"], 0x1000 + 16 * number, 0x1000 + 16 * number, "user", Trust.CFI) for number in range(5)]
        unnamed = list(frames)
        for commit in range(40):
            fresh = writer.frame(scene.modules["libfoo.so"], 0x9000 + commit, 0x9000 + commit, "user", Trust.REGISTERS)
            frames.append(fresh)
            unnamed.append(fresh)
            process = writer.process(100 + commit // 4, 1, "demo")
            thread = writer.thread(process, 100 + commit, "demo")
            for index in range(10):
                stack = scene.stack(*chance.choices(frames, k=4), stop=chance.choice([Stop.END_PROCESS_ENTRY, Stop.NO_UNWIND_INFO]))
                moment = MONOTONIC + (commit * 10 + index) * SECOND // 400 - chance.choice([0, 0, SECOND // 50])
                writer.sample(moment, process, thread, index % 2, "syscalls", f"call{index % 3}", 1 + index, stack)
            while len(unnamed) > 3:
                frame = unnamed.pop(0)
                writer.name(frame, (Symbol(f"inlined{frame % 3}", 1, "/a.c", 3, inlined=True), Symbol(f"f{frame}", 4, "/a.c", None)))
            writer.counter("lost-ring", commit)
            writer.commit()
        writer.finish(SECOND)
    return path


def samples(profile: Profile) -> list[tuple[object, ...]]:
    """Everything that a profile says of each sample, in words."""
    timed, of = profile.timed, paths(profile)
    assert timed is not None
    rows = []
    for index in range(len(timed)):
        stack = int(timed.stack[index])
        calls = []
        for entry in of.entries[of.start[stack] : of.start[stack + 1]].tolist():
            function, file = profile.functions[int(profile.entries.function[entry])], int(profile.entries.file[entry])
            module = profile.modules[function.module] if function.module >= 0 else None
            line, inlined = int(profile.entries.line[entry]), bool(profile.entries.inlined[entry])
            calls.append((function.name, function.named, module, profile.files[file] if file >= 0 else "", line, inlined))
        task = profile.tasks[int(timed.task[index])]
        rows.append(
            (
                *(int(getattr(timed, name)[index]) for name in ("time_ns", "cpu", "weight", "vcpu")),
                *(task.pid, task.tid, task.process, task.thread, task.exe, task.cgroup, profile.machine_name(task)),
                str(profile.events[int(timed.event[index])]),
                profile.mark(stack),
                *(int(getattr(profile.stacks, name)[stack]) for name in ("kernel_frames", "bad")),
                *calls,
            )
        )
    return sorted(rows, key=repr)


def counted(profile: Profile) -> list[tuple[object, ...]]:
    rows = zip(*(getattr(profile.counted, name).tolist() for name in ("task", "event", "stack", "vcpu", "count", "weight")), strict=True)
    return sorted(
        (profile.tasks[task].tid, profile.tasks[task].process, str(profile.events[event]), stack, *rest)
        for task, event, stack, *rest in rows
    )


@pytest.mark.parametrize("build", [small, guests, many])
@pytest.mark.parametrize("crowded", [False, True])
def test_what_was_sent_is_what_the_file_holds(
    build: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, crowded: bool
) -> None:
    if crowded:
        # Too many threads to count them in one number.
        monkeypatch.setitem(live_profile.BITS, "task", 0)
    grown = LiveProfile()
    for body in bodies(build, tmp_path / "a.unspool", monkeypatch):
        grown.add(wire.decoded(body))
    with open_recording(tmp_path / "a.unspool") as recording:
        expected = load(recording, timed=True)
    found = grown.profile()
    assert samples(expected) == samples(found)
    assert counted(expected) == counted(found)
    assert expected.samples == found.samples == grown.samples
    assert (expected.about.hostname, expected.about.lost, expected.about.counters) == (
        found.about.hostname,
        found.about.lost,
        found.about.counters,
    )
    assert found.timed is not None
    assert sorted(found.timed.time_ns.tolist()) == found.timed.time_ns.tolist()


def test_an_earlier_picture_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = bodies(many, tmp_path / "a.unspool", monkeypatch)
    grown = LiveProfile()
    pictures = []
    for body in sent:
        grown.add(wire.decoded(body))
        picture = grown.profile()
        assert counted(select(picture, EVERYTHING)) == counted(picture), "what was counted as it came is what counting again gives"
        pictures.append((picture, counted(picture), samples(picture) if len(pictures) < 8 else None))
    for picture, rows, each in pictures:
        assert rows == counted(picture)
        assert each is None or each == samples(picture)


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": ("thread", 99)},
        {"samples": ("stack", 0)},
        {"threads": ("process", -5)},
        {"frames": ("module", 77)},
        {"modules": ("module", 2)},
        {"symbols": ("depth", 1)},
        {"stacks": ("stack", 9)},
        {"processes": ("guest", 3)},
    ],
)
def test_rows_that_refer_to_nothing_are_refused(
    changes: dict[str, tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [wire.decoded(body) for body in bodies(small, tmp_path / "a.unspool", monkeypatch)]
    for body in rows:
        for table, (column, value) in changes.items():
            if table in body:
                column_values = body[table][column].copy()
                column_values[:1] = value
                body[table][column] = column_values
    grown = LiveProfile()

    def add_all() -> None:
        for body in rows:
            grown.add(body)

    with pytest.raises(BadInput):
        add_all()
