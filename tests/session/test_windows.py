"""Samples in memory give the same profile as samples that went through a recording."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from store.recordings import HEADER

from unspool.model.guest import Guest
from unspool.model.symbol import Named, Symbol, Unnamed
from unspool.model.verdict import Judgement, Stop, Trust, Verdict
from unspool.profile.columns import About, Profile
from unspool.profile.paths import paths
from unspool.profile.quality import quality
from unspool.profile.rows import functions, machines, processes
from unspool.profile.slices import slices
from unspool.session import windows
from unspool.session.windows import Windows
from unspool.store.load import load
from unspool.store.reader import open_recording
from unspool.store.writer import Writer


def fed(sink: Writer | Windows, samples: int = 300) -> None:
    """The same random scene for both sinks."""
    dice = random.Random(11)
    modules = [sink.module("/usr/bin/demo", "aa" * 20), sink.module("/lib/libfoo.so"), sink.module("[kernel]", "", "kernel")]
    frames = [sink.frame(None, 0xFFFF_8000_0000_0000, None, "user", Trust.SCAN)]
    named: list[Named] = [Unnamed("nowhere")]
    for number in range(40):
        module = dice.choice(modules)
        is_kernel = module == modules[2]
        frames.append(sink.frame(module, 0x1000 + number, None if is_kernel else number, "kernel" if is_kernel else "user", Trust.CFI))
        outer = Symbol(f"f{number % 30}", 4, "/src/a.c", number)
        choices: list[Named] = [(outer,), (Symbol(f"inlined{number}", 0, "/src/b.h", 7, inlined=True), outer), Unnamed("no symbol table")]
        named.append(dice.choice(choices))
    for frame, names in zip(frames, named, strict=True):
        sink.name(frame, names)
    threads: list[tuple[int, int, int | None]] = []
    for pid in (10, 20):
        process = sink.process(pid, 5, f"demo{pid}", "/usr/bin/demo" if pid == 10 else None, 1)
        threads += [(process, sink.thread(process, pid + index, f"t{index}"), None) for index in range(3)]
    for guest in (Guest("web", 7), Guest("web", 8, kernel_release="6.1"), Guest("web", 7, kernel_release="6.2")):
        process = sink.process(10, 5, "nginx", guest=sink.guest(guest))
        frames.append(sink.frame(sink.module("/usr/bin/demo", guest=sink.guest(guest)), 5, 5, "user", Trust.CFI))
        named.append(Unnamed("not there"))
        sink.name(frames[-1], named[-1])
        threads += [(process, sink.thread(process, 10, "nginx"), vcpu) for vcpu in (0, 1)]
    whole, cut = Judgement(Verdict.RELIABLE), Judgement(Verdict.UNRELIABLE, Stop.NO_UNWIND_INFO, 2)
    for index in range(samples):
        chain = tuple(dice.choices(frames, k=dice.randrange(1, 12)))
        is_cut = dice.random() < 0.3
        end = (Stop.NO_UNWIND_INFO, modules[1], cut) if is_cut else (Stop.END_PROCESS_ENTRY, None, whole)
        stack = sink.stack(chain, 0, *end, kernel_whole=dice.choice([None, False, True]))
        event = dice.choice([("cpu", ""), ("syscalls", "read")])
        process, thread, vcpu = dice.choice(threads)
        sink.sample(HEADER.monotonic_ns + index, process, thread, index % 4, *event, 1, stack, vcpu=vcpu)


@pytest.fixture
def stored(tmp_path: Path) -> Profile:
    with Writer(tmp_path / "a.unspool", HEADER) as writer:
        fed(writer)
    with open_recording(tmp_path / "a.unspool") as recording:
        return load(recording, timed=True)


def single(profile: Profile) -> list[tuple[object, ...]]:
    """Every sample in words: time, CPU, thread, event, weight, and the calls and end of its stack."""
    assert profile.timed is not None
    timed, stacks, of = profile.timed, profile.stacks, paths(profile)
    found = []
    for time_ns, cpu, vcpu, task, event, stack, weight in zip(
        *(getattr(timed, name).tolist() for name in ("time_ns", "cpu", "vcpu", "task", "event", "stack", "weight")), strict=True
    ):
        calls = []
        for entry in of.entries[of.start[stack] : of.start[stack + 1]].tolist():
            function = profile.functions[int(profile.entries.function[entry])]
            module = profile.modules[function.module].path if function.module >= 0 else ""
            file = int(profile.entries.file[entry])
            place = (profile.files[file] if file >= 0 else "", int(profile.entries.line[entry]), bool(profile.entries.inlined[entry]))
            calls.append((function.name, function.named, module, *place))
        who = profile.tasks[task]
        end = (int(stacks.stop[stack]), profile.module_name(int(stacks.stop_module[stack])), int(stacks.verdict[stack]))
        bad = int(stacks.bad[stack]), int(stacks.kernel_end[stack])
        guest = profile.guest_of(who)
        machine = (vcpu, guest and (guest.label, guest.kernel_release))
        ids = (who.pid, who.tid, who.process, who.thread, who.exe)
        found.append((time_ns, cpu, machine, *ids, str(profile.events[event]), weight, *end, *bad, tuple(calls)))
    return found


def test_they_are_the_same_samples(stored: Profile) -> None:
    memory = Windows()
    fed(memory)
    profile = memory.profile([memory.take()], About())
    assert single(stored) == single(profile)
    assert sorted(map(str, functions(stored))) == sorted(map(str, functions(profile)))
    assert quality(stored) == quality(profile)
    assert sorted(map(str, processes(stored))) == sorted(map(str, processes(profile)))
    assert sorted(map(str, machines(stored))) == sorted(map(str, machines(profile)))


def test_windows_can_be_joined_and_cut(stored: Profile) -> None:
    memory, taken = Windows(), []
    for _ in range(2):
        fed(memory, 150)
        taken.append(memory.take())
    assert [150, 150] == [len(window) for window in taken]
    joined = memory.profile(reversed(taken), About())
    assert 300 == joined.samples
    assert single(joined) == [row for part in slices(joined, 37) for row in single(part)]
    assert single(stored) == [row for part in slices(stored, 64) for row in single(part)]


def test_nothing_gives_an_empty_profile() -> None:
    memory = Windows()
    assert 0 == memory.profile([], About()).samples
    assert 0 == memory.profile([memory.take()], About()).samples


def test_when_nobody_takes_samples_the_new_ones_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MOST_SAMPLES", 100)
    memory = Windows()
    fed(memory)
    assert (100, 200) == (len(memory.take()), memory.dropped)


@pytest.mark.parametrize(("limit", "most"), [("MOST_STACKS", 50), ("MOST_FRAMES", 20), ("MOST_THREADS", 3)])
def test_it_says_when_it_remembers_too_much(limit: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Windows()
    fed(memory)
    assert not memory.full
    monkeypatch.setattr(windows, limit, most)
    assert memory.full
