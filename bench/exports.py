"""Every export format on one recording: samples a second of the whole command, and bytes a sample, beside programs that write the same.

The samples are perf's: `perf record` takes them from a Python program, `perf script` prints them, and `unspool import` makes the
recording of that text, so that Unspool and perf export the same stacks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measure import UNSPOOL, Bench, Figure, query

from unspool.export.formats import FORMATS

WORK = """
import json, re, time
end = time.monotonic() + 12
def work(n):
    return json.dumps([{"a": i, "b": re.sub("[0-9]", "x", str(i))} for i in range(n)]) if n < 40 else work(n // 2)
while time.monotonic() < end:
    work(300)
"""
STACKCOLLAPSE = "/usr/lib/perf-core/scripts/python/stackcollapse.py"
FLAMEGRAPH = "/usr/share/perl5/Devel/NYTProf/flamegraph.pl"


@dataclass
class Taken:
    """What writing one format took in every round: seconds of a command, and the bytes it gave."""

    seconds: list[float] = field(default_factory=list)
    size: int = 0

    def run(self, command: Sequence[str | Path], output: Path, *, stdout: bool = False) -> None:
        """Run the command once; with `stdout` the file is what it prints."""
        output.unlink(missing_ok=True)
        began = time.perf_counter()
        if stdout:
            with output.open("wb") as file:
                subprocess.run(command, check=True, stdout=file, stderr=subprocess.DEVNULL)
        else:
            subprocess.run(command, check=True, capture_output=True)
        self.seconds.append(time.perf_counter() - began)
        self.size = output.stat().st_size


def exports(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Samples a second and bytes a sample of each format."""
    data, recording = sampled(bench)
    samples = query(recording, "select count(*) from samples")[0][0]
    peers = peers_of(bench, data, recording)
    for name, form in FORMATS.items():
        suffix = form.suffixes[0]
        ours, theirs, output = Taken(), Taken(), bench.folder / f"export{suffix}"
        who, command = peers.get(name, ("", []))
        for _ in range(rounds):
            ours.run([UNSPOOL, "export", recording, "--format", name, "-o", output], output)
            if command:
                theirs.run(command, bench.folder / f"peer{suffix}", stdout=True)
        speeds = [[samples / seconds / 1000 for seconds in taken.seconds] for taken in (ours, theirs)]
        yield Figure(f"export {name}", "k samples/s", *speeds, who)
        yield Figure(f"export {name}, bytes a sample", "B", [ours.size / samples], [theirs.size / samples] if command else [], who)


def sampled(bench: Bench) -> tuple[Path, Path]:
    """A perf.data file, and the recording of the same samples."""
    data, text, recording = bench.fresh(".data"), bench.fresh(".perf"), bench.fresh()
    command = [
        "perf",
        "record",
        "-q",
        "-e",
        "cpu-clock",
        "-F",
        "9999",
        "--sample-cpu",
        "-g",
        "-o",
        data,
        "--",
        "/usr/bin/python3",
        "-c",
        WORK,
    ]
    for attempt in range(3):
        # perf 6.1 aborts now and then at its end.
        if not subprocess.run(command, check=attempt == 2, capture_output=True).returncode:
            break
    with text.open("wb") as file:
        subprocess.run(["perf", "script", "-i", data, *FIELDS], check=True, stdout=file, stderr=subprocess.DEVNULL)
    subprocess.run([UNSPOOL, "import", text, "-o", recording], check=True, capture_output=True)
    return data, recording


FIELDS = ["-F", "comm,pid,tid,cpu,time,period,event,ip,sym,symoff,dso"]
"""What our own text holds too."""


def peers_of(bench: Bench, data: Path, recording: Path) -> dict[str, tuple[str, list[str | Path]]]:
    """For each format that another program writes its name and the command."""
    found: dict[str, tuple[str, list[str | Path]]] = {"perf-script": ("perf script", ["perf", "script", "-i", data, *FIELDS])}
    if Path(STACKCOLLAPSE).exists():
        found["folded"] = ("perf script stackcollapse.py", ["perf", "script", "-i", data, "-s", STACKCOLLAPSE])
    folded, proto = bench.folder / "input.folded", bench.folder / "input.pb.gz"
    for output in (folded, proto):
        subprocess.run([UNSPOOL, "export", recording, "-o", output], check=True, capture_output=True)
    if Path(FLAMEGRAPH).exists():
        found["svg"] = ("flamegraph.pl, of folded text", ["perl", FLAMEGRAPH, folded])
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if go:
        found["pprof"] = ("go tool pprof -proto, of pprof", [go, "tool", "pprof", "-proto", "-output", "/dev/stdout", proto])
    return found


PARTS: dict[str, Callable[[Bench, int], Iterator[Figure]]] = {"exports": exports}
