"""The unwinders as libraries: the Python reference and the C walk on one stopped thread, beside `perf script` on copied stacks."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import PROGRAMS, ROOT, UNSPOOL, Bench, Figure, running

from unspool.model.thread import Thread
from unspool.native import Walker, structures, walker
from unspool.targets.process import Process
from unspool.targets.stopping import Visited, visit
from unspool.unwind.api import Unwinder

FRAMES = 400_000
"""Frames that each measurement walks at least."""


def frames_a_second(walk: Callable[[], int]) -> float:
    """How many frames a second the walk gives, after one call that fills its caches; in millions."""
    walk()
    began, frames = time.perf_counter(), 0
    while frames < FRAMES:
        frames += walk()
    return frames / (time.perf_counter() - began) / 1e6


def native_walk(thread: Thread) -> Callable[[], int]:
    """The C walk into one buffer, without Python values for its frames."""
    opened = Walker(thread)
    library, context, given = opened._library, opened._context, walker._thread(thread)  # noqa: SLF001 - what is measured is below the face
    room = (structures.Frame * 4096)()
    result = structures.Stack(frames=room, capacity=4096)

    def walk() -> int:
        library.unspool_forget(context)
        library.unspool_walk(context, ctypes.byref(given), ctypes.byref(result))
        assert opened is not None
        return int(result.count)

    return walk


def library(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Millions of frames a second on repeated pcs."""
    reference, native = [], []

    def look(visited: Visited) -> None:
        assert isinstance(visited.thread, Thread)
        thread = visited.thread
        unwinder = Unwinder()
        walk = native_walk(thread)
        for _ in range(rounds):
            reference.append(frames_a_second(lambda: len(unwinder.unwind(thread).frames)))
            native.append(frames_a_second(walk))

    with running(bench.deep, "100", "600") as pid:
        visit(Process(pid), look)
    script = [_perf_script(bench) for _ in range(rounds)]
    yield Figure("Python reference, 105 frames", "M frames/s", reference, script, "perf script, stacks copied by perf record", ">= 1 M/s")
    yield Figure("C library, 105 frames", "M frames/s", native, script, "perf script, stacks copied by perf record")


def _perf_script(bench: Bench) -> float:
    data = bench.fresh(".data")
    command = ["perf", "record", "-q", "-B", "-N", "-e", "cpu-clock", "-F", "999", "--call-graph", "dwarf,16384", "-o", str(data), "--"]
    subprocess.run([*command, str(bench.deep), "100", "1.5"], check=True, capture_output=True)
    began = time.perf_counter()
    text = subprocess.run(["perf", "script", "--no-inline", "-F", "ip", "-i", data], check=True, capture_output=True, text=True).stdout
    taken = time.perf_counter() - began
    data.unlink()
    return len(re.findall(r"^\s+[0-9a-f]+", text, re.MULTILINE)) / taken / 1e6


def lookup(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Rows found with nothing kept between lookups: SFrame's against CFI's, in the same file at the same addresses."""
    program, file = bench.folder / "lookup", bench.folder / "python3.sframe"
    source = PROGRAMS / "lookup.c"
    subprocess.run(["gcc", "-O2", f"-I{ROOT / 'native'}", "-o", program, source, ROOT / "native" / "library.c"], check=True)
    subprocess.run([UNSPOOL, "sframe", "make", "/usr/bin/python3.11", "-o", file], check=True, capture_output=True)
    found = [json.loads(subprocess.run([program, file, "2"], check=True, capture_output=True).stdout) for _ in range(rounds)]
    ns = [[figures[f"{kind}_ns"] for figures in found] for kind in ("sframe", "cfi")]
    reads = [[figures[f"{kind}_reads"] for figures in found] for kind in ("sframe", "cfi")]
    yield Figure("uncached lookup, SFrame", "ns", ns[0], ns[1], "uncached lookup, .eh_frame", "< 1")
    yield Figure("memory reads of it, SFrame", "reads", reads[0], reads[1], "the same, .eh_frame")


def make(bench: Bench, rounds: int) -> Iterator[Figure]:
    """`unspool sframe make` of libLLVM: 95,000 functions, 861,000 rows."""
    library = Path("/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1")
    if not library.exists():
        return
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([UNSPOOL, "sframe", "make", library, "-o", bench.folder / "llvm"], check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    yield Figure("sframe make, libLLVM", "s", taken, [1.0] * rounds, "limit", "<= 1 s")


PARTS: dict[str, Callable[[Bench, int], Iterator[Figure]]] = {"library": library, "lookup": lookup, "make": make}
