"""Recordings that the page is tried with."""

from __future__ import annotations

from pathlib import Path

from store.recordings import HEADER, MONOTONIC, SECOND, Scene

from unspool.model.guest import Guest
from unspool.model.verdict import Stop
from unspool.store.writer import Writer

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">{{script}}\u2028'\"&amp;"


def changed(path: Path) -> Path:
    """After a change: of ten samples `work` has nothing left, `leaf` under main has four, and a new `wait` six."""
    with Writer(path, HEADER) as writer:
        scene = Scene(writer)
        process = writer.process(30, 5, "demo", "/usr/bin/demo")
        thread = writer.thread(process, 30, "demo")
        main, leaf, wait = scene.frame("main", line=10), scene.frame("leaf", line=30), scene.frame("wait", "libfoo.so")
        for index, stack in enumerate([scene.stack(leaf, main)] * 4 + [scene.stack(wait, main)] * 6):
            writer.sample(MONOTONIC + index * SECOND // 10, process, thread, 0, "cpu", "", 1, stack)
        writer.finish(SECOND)
    return path


def empty(path: Path) -> Path:
    """A recording without a sample."""
    with Writer(path, HEADER) as writer:
        writer.finish(SECOND)
    return path


LONG = f"std::vector<{'std::pair<int, char const*>, ' * 100}std::allocator<int> >::insert"


def crowded(path: Path) -> Path:
    """A function with a name of 2,900 letters, under which 3,000 others ran once each, one of them called `needle` and one cut."""
    with Writer(path, HEADER) as writer:
        scene = Scene(writer)
        process = writer.process(30, 5, "demo", "/usr/bin/demo")
        thread = writer.thread(process, 30, "demo")
        main = scene.frame(LONG, line=10)
        for index in range(3000):
            stack = scene.stack(scene.frame("needle" if index == 2000 else f"hay{index}"), main)
            writer.sample(MONOTONIC + index * SECOND // 3000, process, thread, 0, "cpu", "", 1, stack)
        writer.sample(MONOTONIC, process, thread, 0, "cpu", "", 1, scene.stack(main, stop=Stop.NO_UNWIND_INFO, cause="demo"))
        writer.finish(SECOND)
    return path


def many_causes(path: Path) -> Path:
    """Nine stacks, each cut by another library."""
    with Writer(path, HEADER) as writer:
        scene = Scene(writer)
        process = writer.process(30, 5, "demo", "/usr/bin/demo")
        thread = writer.thread(process, 30, "demo")
        for index in range(9):
            library = f"lib{index}.so"
            scene.modules[library] = writer.module(f"/usr/lib/{library}", f"{index}" * 40)
            stack = scene.stack(scene.frame("run", library), stop=Stop.NO_UNWIND_INFO, cause=library)
            writer.sample(MONOTONIC + index, process, thread, 0, "cpu", "", 1, stack)
        writer.finish(SECOND)
    return path


def hostile(path: Path) -> Path:
    """Every name in it is markup."""
    with Writer(path, HEADER) as writer:
        scene = Scene(writer)
        scene.modules["demo"] = writer.module(f"/lib/{EVIL}", "dd")
        guest = writer.guest(Guest(EVIL, 1, uuid=EVIL, kernel_release=EVIL, accel=EVIL, registers_by=EVIL))
        process = writer.process(1, 1, EVIL, EVIL, guest=guest, cgroup=EVIL)
        thread = writer.thread(process, 1, EVIL)
        stacks = [scene.stack(scene.frame(EVIL, line=3)), scene.stack(scene.frame(EVIL), stop=Stop.NO_UNWIND_INFO, cause="demo")]
        for index, stack in enumerate(stacks):
            writer.sample(HEADER.monotonic_ns + index, process, thread, 0, "cpu", EVIL, 1, stack, vcpu=0)
        writer.finish(SECOND)
    return path
