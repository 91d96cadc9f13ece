"""Every export format on one recording: samples a CPU second after the start, the start itself, and bytes a sample, beside peers.

The samples are perf's: `perf record` takes them from two Python programs, `perf script` prints them, and `unspool import` makes the
recording of that text, so that Unspool and perf export the same stacks. A second recording of a few samples gives the start of each
command, which is taken off before samples are divided by seconds: how long a program needs to start says nothing of how fast it writes.
Seconds are of CPU time, user and system, because other programs may keep the machine busy.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measure import UNSPOOL, Bench, Figure, query

from unspool.export.formats import FORMATS

WORK = """
import json, re, sys, time
def work(n):
    return json.dumps([{"a": i, "b": re.sub("[0-9]", "x", str(i))} for i in range(n)]) if n < 40 else work(n // 2)
while time.process_time() < float(sys.argv[1]):
    work(300)
"""
SECONDS = 8
"""CPU time of each program, so that as many samples are taken on a busy machine."""
ROUNDS = 3
"""At most: a round of all formats and peers takes half a minute on a quiet machine."""
STACKCOLLAPSE = "/usr/lib/perf-core/scripts/python/stackcollapse.py"
FLAMEGRAPH = "/usr/share/perl5/Devel/NYTProf/flamegraph.pl"


@dataclass(frozen=True)
class Sampled:
    """The same samples as perf's file and as a recording, and how many they are."""

    data: Path
    recording: Path
    samples: int


@dataclass
class Taken:
    """CPU seconds of a command in every round, on the few samples and on the many, and the bytes of the many."""

    start: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    size: int = 0

    def speeds(self, samples: int) -> list[float]:
        """Thousands of samples a CPU second of each round, when it has started."""
        return [samples / max(whole - start, 1e-3) / 1000 for start, whole in zip(self.start, self.whole, strict=True)]


Command = list[str | Path]
Peer = Callable[[Sampled], Command]
"""The command that writes those samples to its standard output."""


def exports(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Samples a CPU second and bytes a sample of each format, and the start of all commands."""
    few, many = sampled(bench, "99", "0.2"), sampled(bench, "19999", str(SECONDS))
    samples = many.samples - few.samples
    peers = peers_of((few, many))
    starts = []
    for name, form in FORMATS.items():
        who, peer = peers.get(name, ("", None))
        ours, theirs = Taken(), Taken()
        for _ in range(min(rounds, ROUNDS)):
            measure(ours, bench.folder / f"export{form.suffixes[0]}", (few, many), lambda of, name=name: export(of.recording, name))
            if peer:
                measure(theirs, bench.folder / f"peer{form.suffixes[0]}", (few, many), peer)
        starts += ours.start
        yield Figure(f"export {name}", "k samples/s", ours.speeds(samples), theirs.speeds(samples), who)
        peer_size = [theirs.size / many.samples] if peer else []
        yield Figure(f"export {name}, bytes a sample", "B", [ours.size / many.samples], peer_size, who)
    yield Figure("export, start of the command", "ms", [start * 1000 for start in starts], [], "")


def measure(taken: Taken, output: Path, inputs: tuple[Sampled, Sampled], command: Peer) -> None:
    """Run the command on the few samples and on the many."""
    for times, given in zip((taken.start, taken.whole), inputs, strict=True):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with output.open("wb") as file:
            subprocess.run(command(given), check=True, stdout=file, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    taken.size = output.stat().st_size


def export(recording: Path, form: str) -> Command:
    """Our command."""
    return [UNSPOOL, "export", recording, "--format", form, "-o", "-"]


def sampled(bench: Bench, hz: str, seconds: str) -> Sampled:
    """Samples of two Python programs, as perf's file and as a recording."""
    data, text, recording = bench.fresh(".data"), bench.fresh(".perf"), bench.fresh()
    record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", hz, "--sample-cpu", "-g", "-o", data, "--"]
    both = '/usr/bin/python3 -c "$0" "$1" & /usr/bin/python3 -c "$0" "$1"; wait'
    for attempt in range(3):
        # perf 6.1 aborts now and then at its end.
        if not subprocess.run([*record, "sh", "-c", both, WORK, seconds], check=attempt == 2, capture_output=True).returncode:
            break
    with text.open("wb") as file:
        subprocess.run(["perf", "script", "-i", data, *FIELDS], check=True, stdout=file, stderr=subprocess.DEVNULL)
    subprocess.run([UNSPOOL, "import", text, "-o", recording], check=True, capture_output=True)
    text.unlink()
    return Sampled(data, recording, int(query(recording, "select count(*) from samples")[0][0]))


FIELDS = ["-F", "comm,pid,tid,cpu,time,period,event,ip,sym,symoff,dso"]
"""What our own text holds too."""


def peers_of(inputs: Sequence[Sampled]) -> dict[str, tuple[str, Peer]]:
    """For each format that another program writes its name and the command."""
    found: dict[str, tuple[str, Peer]] = {"perf-script": ("perf script", lambda of: ["perf", "script", "-i", of.data, *FIELDS])}
    if Path(STACKCOLLAPSE).exists():
        found["folded"] = ("perf script stackcollapse.py", lambda of: ["perf", "script", "-i", of.data, "-s", STACKCOLLAPSE])
    for of in inputs:
        for suffix in (".folded", ".pb.gz"):
            subprocess.run([UNSPOOL, "export", of.recording, "-o", f"{of.recording}{suffix}"], check=True, capture_output=True)
    if Path(FLAMEGRAPH).exists():
        found["svg"] = ("flamegraph.pl, of folded text", lambda of: ["perl", FLAMEGRAPH, f"{of.recording}.folded"])
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if go:
        words = [go, "tool", "pprof", "-proto", "-output", "/dev/stdout"]
        found["pprof"] = ("go tool pprof -proto, of pprof", lambda of: [*words, f"{of.recording}.pb.gz"])
    return found


PARTS: dict[str, Callable[[Bench, int], Iterator[Figure]]] = {"exports": exports}
