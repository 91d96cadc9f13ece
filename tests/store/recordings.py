"""Recordings made of nothing, for the tests of whatever reads recordings: small ones with known numbers, and big ones."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import duckdb

from unspool.model.guest import Guest
from unspool.model.symbol import Symbol, Unnamed
from unspool.model.verdict import Judgement, Stop, Trust, Verdict
from unspool.store.header import Header
from unspool.store.writer import Writer

SECOND = 1_000_000_000
MONOTONIC = 100 * SECOND
STARTED = 1_700_000_000 * SECOND
HEADER = Header(
    started_ns=STARTED,
    monotonic_ns=MONOTONIC,
    hostname="testhost",
    kernel="6.18.0",
    arch="x86_64",
    cpus=2,
    frequency=100.0,
    trigger="cpu",
    command="./demo --fast",
)
UNJUDGED = Judgement(Verdict.NONE)
RELIABLE = Judgement(Verdict.RELIABLE)


class Scene:
    """A writer with short words for what tests put on a stack: `call("main")`, `stack("leaf", "main")`."""

    def __init__(self, writer: Writer) -> None:
        """Open the modules that every scene has."""
        self.writer = writer
        self.modules = {
            "demo": writer.module("/usr/bin/demo", "aa" * 20),
            "libfoo.so": writer.module("/usr/lib/libfoo.so", "bb" * 20),
            "kernel": writer.module("[kernel]", "cc" * 20, "kernel"),
        }
        self._offsets: dict[tuple[str, str], int] = {}

    def frame(self, function: str, module: str = "demo", trust: Trust = Trust.CFI, *, line: int | None = None) -> int:
        """A frame in that function of that module; `line` gives it a source line."""
        offset = self._offsets.setdefault((module, function), 0x1000 + 0x100 * len(self._offsets))
        space = "kernel" if module in {"kernel", "guest"} else "user"
        frame = self.writer.frame(self.modules[module], 0x7F00_0000_0000 + offset, offset, space, trust)
        file = f"/src/{module}.c" if line else None
        self.writer.name(frame, (Symbol(function, 4, file, line),))
        return frame

    def stack(
        self, *frames: int, stop: Stop = Stop.END_PROCESS_ENTRY, cause: str | None = None, kernel: int = 0, kernel_whole: bool | None = None
    ) -> int:
        """A stack of those frames, innermost first."""
        if stop is Stop.NO_USER_STACK:
            judgement = UNJUDGED
        else:
            judgement = RELIABLE if stop.is_end else Judgement(Verdict.UNRELIABLE, stop, max(len(frames) - kernel - 1, 0))
        return self.writer.stack(frames, kernel, stop, self.modules[cause] if cause else None, judgement, kernel_whole=kernel_whole)


def small(path: Path) -> Path:
    """Ten samples of two processes over one second.

    demo (pid 10, threads 10 and 11): 5 x leaf<-work<-main whole, 2 x leaf<-leaf<-main whole (recursive),
    1 x ksys<-read<-main whole (kernel), 1 x inner cut by no-unwind-info in libfoo.so.
    kworker (pid 20): 1 x ksys, no user stack. 3 samples lost.
    """
    with Writer(path, HEADER) as writer:
        scene = Scene(writer)
        main, work = scene.frame("main", line=10), scene.frame("work", line=20)
        leaf, ksys = scene.frame("leaf", trust=Trust.REGISTERS, line=30), scene.frame("ksys", "kernel", Trust.KERNEL)
        caller, read = scene.frame("leaf", line=30), scene.frame("read", "libfoo.so")
        inner = writer.frame(scene.modules["libfoo.so"], 0x7F00_0000_9000, 0x9000, "user", Trust.REGISTERS)
        writer.name(inner, Unnamed("no symbol table"))
        demo = writer.process(10, 5, "demo", "/usr/bin/demo", 1)
        kworker = writer.process(20, 6, "kworker/0:1")
        threads = [writer.thread(demo, 10, "demo"), writer.thread(demo, 11, "helper")]
        plain = scene.stack(leaf, work, main)
        stacks = [plain] * 5 + [scene.stack(leaf, caller, main)] * 2
        stacks += [scene.stack(ksys, read, main, kernel=1), scene.stack(inner, stop=Stop.NO_UNWIND_INFO, cause="libfoo.so")]
        for index, stack in enumerate(stacks):
            moment = MONOTONIC + index * SECOND // 10
            writer.sample(moment, demo, threads[index % 2], index % 2, "cpu", "", 1, stack)
        bare = scene.stack(ksys, stop=Stop.NO_USER_STACK, kernel=1)
        writer.sample(MONOTONIC + 9 * SECOND // 10, kworker, writer.thread(kworker, 20, "kworker/0:1"), 1, "cpu", "", 1, bare)
        writer.machine({"cpu-model": "Test CPU"})
        writer.counter("lost-ring", 3)
        writer.counter("deferred", 1)
        writer.exited(demo, MONOTONIC + SECOND)
        writer.finish(SECOND)
    return path


WEB = Guest("web", 4000, 7, 1, "0b6c2f6e-0000-4000-8000-000000000001", "6.1.0-50-cloud-amd64", "ee" * 20, "kvm", "kvm-hold", "memfd")
AGAIN = replace(WEB, generation=2)
DATABASE = Guest("db", 5000, 8)


def guests(path: Path) -> Path:
    """Twelve samples over 1.2 s: of this host and of two guests, one of which boots again.

    Host (demo, pid 10, cgroup /user.slice): 2 x leaf<-main, whole.
    web, kernel 6.1.0, vCPU 0: 3 x gsys<-gentry<-serve<-main of nginx (pid 10, user frames too), whole and reliable;
    vCPU 1: 2 x leaf<-main of nginx in user mode, reliable. web again (generation 2), vCPU 0: 2 x gsys<-gentry of swapper (pid 0), reliable.
    db, kernel unknown, vCPU 0: 3 x gsys, cut by guest-pt, unreliable.
    """
    with Writer(path, HEADER) as writer:
        scene = Scene(writer)
        scene.modules["guest"] = writer.module("[guest.kernel]", "ee" * 20, "kernel")
        main, leaf = scene.frame("main", line=10), scene.frame("leaf", trust=Trust.REGISTERS, line=30)
        gsys, gentry = scene.frame("gsys", "guest", Trust.REGISTERS), scene.frame("gentry", "guest", Trust.ORC)
        numbers = {guest.label: writer.guest(guest) for guest in (replace(WEB, kernel_release=""), WEB, AGAIN, DATABASE)}
        host = writer.process(10, 5, "demo", "/usr/bin/demo", 1, cgroup="/user.slice")
        nginx = writer.process(10, 0, "nginx", guest=numbers["web"])
        idle = writer.process(0, 0, "swapper/0", guest=numbers["web#2"])
        postgres = writer.process(77, 0, "postgres", guest=numbers["db"])
        user = scene.stack(leaf, main)
        both = scene.stack(gsys, gentry, leaf, main, kernel=2, kernel_whole=True)
        kernel = scene.stack(gsys, gentry, kernel=2, stop=Stop.END_KERNEL_ENTRY, kernel_whole=True)
        torn = scene.stack(gsys, kernel=1, stop=Stop.GUEST_PT, kernel_whole=False)
        rows = (
            [(host, None, user)] * 2 + [(nginx, 0, both)] * 3 + [(nginx, 1, user)] * 2 + [(idle, 0, kernel)] * 2 + [(postgres, 0, torn)] * 3
        )
        for index, (process, vcpu, stack) in enumerate(rows):
            thread = writer.thread(process, 10, "thread")
            writer.sample(MONOTONIC + index * SECOND // 10, process, thread, -1 if vcpu is not None else 1, "cpu", "", 1, stack, vcpu=vcpu)
        writer.finish(12 * SECOND // 10)
    return path


def twins(path: Path) -> Path:
    """Three samples of two guests that have one name, the second on two virtual CPUs; and one of this host."""
    with Writer(path, HEADER) as writer:
        scene = Scene(writer)
        stack = scene.stack(scene.frame("main", line=10))
        for index, (pid, vcpu) in enumerate([(1, 0), (2, 0), (2, 1), (None, None)]):
            process = writer.process(10, 0, "sh", guest=writer.guest(Guest("web", pid)) if pid else None)
            thread = writer.thread(process, 10, "sh")
            writer.sample(MONOTONIC + index, process, thread, 0, "cpu", "", 1, stack, vcpu=vcpu)
        writer.finish(SECOND)
    return path


def of_schema_1(path: Path) -> Path:
    """The samples of `small` in a file as an Unspool of schema 1 made it, by its own CREATE TABLE statements."""
    with duckdb.connect(str(path)) as connection:
        connection.execute((Path(__file__).parent / "schema_1.sql").read_text())
    return path


def big(path: Path, *, samples: int, stacks: int, depth: int = 30, functions: int = 5_000) -> Path:
    """Many samples of random stacks, the same ones each time."""
    dice = random.Random(7)
    with Writer(path, HEADER) as writer:
        scene = Scene(writer)
        names = [scene.frame(f"function_{number}", dice.choice(("demo", "libfoo.so"))) for number in range(functions)]
        process = writer.process(10, 5, "demo", "/usr/bin/demo")
        thread = writer.thread(process, 10, "demo")
        trunks = [tuple(dice.choices(names, k=depth // 2)) for _ in range(max(stacks // 50, 1))]
        made = [scene.stack(*dice.choices(names, k=depth - depth // 2), *dice.choice(trunks)) for _ in range(stacks)]
        for index in range(samples):
            writer.sample(MONOTONIC + index * SECOND // 1000, process, thread, 0, "cpu", "", 1, dice.choice(made))
            if index % 100_000 == 0:
                writer.commit()
        writer.finish(samples * SECOND // 1000)
    return path
