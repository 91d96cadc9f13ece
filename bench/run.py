"""`make bench`: prints ratios against peers or limits, measured in one run, each with its spread.

run.py [--rounds N] [--only TEXT] [--write FILE]; with --only the other lines of FILE stay
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import exports
import library
from measure import UNSPOOL, Bench, Figure, bpf_stats, counters, query, running

PYTHON_WORK = """
import json, re, time
end = time.monotonic() + 60
def work(n):
    return json.dumps([{"a": i, "b": re.sub("[0-9]", "x", str(i))} for i in range(n)]) if n < 40 else work(n // 2)
while time.monotonic() < end:
    work(300)
"""


def walk(bench: Bench, rounds: int) -> Iterator[Figure]:
    """The walk of 105 frames, against the kernel's walk by frame pointers of the same program built with them."""
    ours, peer = [], []
    for _ in range(rounds):
        with running(bench.deep_fp, "100", "60") as pid:
            figures = bench.get_stack(pid, 2)
            peer.append(figures["run_ns"] / figures["frames"])
        with running(bench.deep, "100", "60") as pid:
            file, mean = bench.record("-p", str(pid), "-F", "4999", seconds=2)
            frames = query(file, "select sum(len(frames)) from samples join stacks using (stack)")[0][0]
            ours.append(mean * counters(file)["program-perf"] / frames)
    yield Figure("walk, a frame of 105", "ns", ours, peer, "bpf_get_stack, frame-pointer build", "<= 1.0")


def python(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Samples of a Python program after its first second, and how many of them had to be deferred."""
    cost, frames, deferred, size = [], [], [], []
    for _ in range(rounds):
        with running("/usr/bin/python3", "-c", PYTHON_WORK) as pid:
            file, mean = bench.record("-p", str(pid), "-F", "999", seconds=4)
        seen = counters(file)
        samples = seen["samples"]
        cost.append(mean * seen["program-perf"] / samples / 1000)
        frames.append(query(file, "select avg(len(frames)) from samples join stacks using (stack)")[0][0])
        deferred.append(100 * seen.get("deferred", 0) / samples)
        with running("/usr/bin/python3", "-c", PYTHON_WORK) as pid:
            file, _ = bench.record("-p", str(pid), "-F", "4999", seconds=6)
        size.append(file.stat().st_size / counters(file)["samples"])
    yield Figure("python3, a sample", "us", cost, [], f"{sum(frames) / len(frames):.0f} frames on average")
    yield Figure("python3, deferred samples", "%", deferred, [1.0] * rounds, "limit", "<= 1 % after warm-up")
    dwarf = [_perf_bytes(bench) for _ in range(rounds)]
    yield Figure("bytes a sample", "B", size, dwarf, "perf record --call-graph dwarf")


def _perf_bytes(bench: Bench) -> float:
    output = bench.fresh(".data")
    with running("/usr/bin/python3", "-c", PYTHON_WORK) as pid:
        command = [
            "perf",
            "record",
            "-q",
            "-e",
            "cpu-clock",
            "-F",
            "999",
            "--call-graph",
            "dwarf",
            "-p",
            str(pid),
            "-o",
            output,
            "sleep",
            "2",
        ]
        subprocess.run(command, check=True, capture_output=True)
    text = subprocess.run(["perf", "report", "--stats", "-i", output], capture_output=True, text=True, check=False).stdout
    samples = int((re.findall(r"SAMPLE events:\s+(\d+)", text) or [0])[0])
    size = output.stat().st_size
    output.unlink()
    return size / samples if samples else float("nan")


def slowdown(bench: Bench, rounds: int) -> Iterator[Figure]:
    """A fixed job at a depth of 30 frames under each sampler, against the same job alone."""
    # Two seconds: a shorter job would be measured beside the recorder's start (docs/performance.md).
    work = [str(bench.deep), "30", "1", "100000"]

    def seconds(before: list[str] | None = None) -> float:
        return float(subprocess.run([*(before or []), *work], check=True, capture_output=True, text=True).stdout.split()[-1])

    for hz in (999, 4999):
        alone, empty, ours, dwarf = [], [], [], []
        for _ in range(rounds):
            alone.append(seconds())
            with bench.attached("peer_empty", hz):
                empty.append(seconds())
            output = bench.fresh()
            ours.append(seconds([UNSPOOL, "record", "-F", str(hz), "-o", str(output), "--"]))
            data = bench.fresh(".data")
            dwarf.append(
                seconds(
                    ["perf", "record", "-q", "-B", "-N", "-e", "cpu-clock", "-F", str(hz), "--call-graph", "dwarf", "-o", str(data), "--"]
                )
            )
            data.unlink(missing_ok=True)
        slow = [[100 * (value / base - 1) for value, base in zip(values, alone, strict=True)] for values in (empty, ours, dwarf)]
        yield Figure(f"slow-down at {hz} Hz", "%", slow[1], slow[0], "an empty BPF program")
        yield Figure(f"slow-down at {hz} Hz", "%", slow[1], slow[2], "perf record --call-graph dwarf")


def start(bench: Bench, rounds: int) -> Iterator[Figure]:
    """From the start of `unspool record` to its first sample of a command."""
    taken = []
    for _ in range(rounds):
        output = bench.fresh()
        began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        command = [UNSPOOL, "record", "-F", "4999", "-o", str(output), "--", str(bench.deep), "10", "0.5"]
        subprocess.run(command, check=True, capture_output=True)
        taken.append((query(output, "select min(time_ns) from samples")[0][0] - began) / 1e6)
    yield Figure("start to first sample", "ms", taken, [250.0] * rounds, "limit", "<= 250 ms")


def stack(bench: Bench, rounds: int) -> Iterator[Figure]:
    """`unspool stack` of a process with 105 frames, against eu-stack."""
    ours, peer = [], []
    with running(bench.deep, "100", "120") as pid:
        for _ in range(rounds):
            for times, command in ((ours, [UNSPOOL, "stack", str(pid)]), (peer, ["eu-stack", "-p", str(pid)])):
                began = time.perf_counter()
                subprocess.run(command, check=False, capture_output=True)
                times.append((time.perf_counter() - began) * 1000)
    yield Figure("stack of one process", "ms", ours, peer, "eu-stack")


def page(bench: Bench, rounds: int) -> Iterator[Figure]:
    """The page's first picture and its frames a second, against speedscope in the same Chromium."""
    from page import figures  # it needs a browser and its driver

    yield from figures(bench.folder, rounds)


PARTS: dict[str, Callable[[Bench, int], Iterator[Figure]]] = {
    "walk": walk,
    "python": python,
    "slowdown": slowdown,
    "start": start,
    "stack": stack,
    **library.PARTS,
    **exports.PARTS,
    "page": page,
}


def table(figures: list[Figure], before: str = "") -> str:
    """A Markdown table; lines of the table before that were not measured now stay, where they stood."""
    head = ["what", "Unspool", "peer or limit", "which", "ratio", "goal"]
    old = [[cell.strip() for cell in line.split("|")[1:-1]] for line in before.splitlines() if line.startswith("| ")][2:]
    rows = {(row[0], row[3]): row for row in old if len(row) == len(head)}
    rows |= {(cells[0], cells[3]): cells for cells in (figure.cells() for figure in figures)}
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows.values()]) + "\n"


def main() -> int:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory(prefix="unspool-bench-") as folder, bpf_stats():
        bench = Bench(Path(folder))
        for name, part in PARTS.items():
            if arguments.only not in name:
                continue
            for figure in part(bench, arguments.rounds):
                figures.append(figure)
                print("  ".join(cell for cell in figure.cells() if cell), flush=True)
    if arguments.write:
        marker = "<!-- figures: written by make bench -->\n"
        text, _, old = arguments.write.read_text(encoding="utf-8").partition(marker)
        machine = f"Linux {os.uname().release}, {os.cpu_count()} CPUs, {arguments.rounds} rounds; median (lowest to highest)."
        lines = table(figures, old if arguments.only else "")
        arguments.write.write_text(f"{text}{marker}{machine}\n\n{lines}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
