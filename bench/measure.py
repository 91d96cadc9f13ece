"""Running programs, recordings and peers for the benchmarks; every figure comes with the spread of its rounds."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

ROOT = Path(__file__).parents[1]
UNSPOOL = str(ROOT / ".venv" / "bin" / "unspool")
PROGRAMS = Path(__file__).parent / "programs"
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")


@dataclass(frozen=True)
class Figure:
    """One line of the table: ours and the peer's (or the limit's) values of every round, in `unit`."""

    name: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float]
    against: str
    goal: str = ""

    def ratio(self) -> str:
        """The ratio of the medians, and the lowest and highest ratio of a round."""
        if not self.peer:
            return ""
        ratios = [ours / peer for ours, peer in zip(self.ours, self.peer, strict=False) if peer]
        middle = statistics.median(self.ours) / statistics.median(self.peer) if statistics.median(self.peer) else float("nan")
        return f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""

    def cells(self) -> list[str]:
        """The line's columns."""
        return [
            self.name,
            spread(self.ours, self.unit),
            spread(self.peer, self.unit) if self.peer else "",
            self.against,
            self.ratio(),
            self.goal,
        ]


def spread(values: Sequence[float], unit: str) -> str:
    """Median, and lowest to highest."""
    if len(values) == 1:
        return f"{values[0]:,.4g} {unit}"
    return f"{statistics.median(values):,.4g} {unit} ({min(values):,.4g} to {max(values):,.4g})"


@contextmanager
def bpf_stats() -> Iterator[None]:
    """The kernel counts the run time of BPF programs meanwhile."""
    before = STATS.read_text()
    STATS.write_text("1")
    try:
        yield
    finally:
        STATS.write_text(before)


class Bench:
    """A folder with the built peers and target programs."""

    def __init__(self, folder: Path) -> None:
        """Build what is needed."""
        self.folder = folder
        self.peer = folder / "peer"
        self.object = folder / "peer.bpf.o"
        clang = [
            "clang",
            "-target",
            "bpf",
            "-O2",
            "-g",
            "-I/usr/include/x86_64-linux-gnu",
            "-c",
            PROGRAMS / "peer.bpf.c",
            "-o",
            self.object,
        ]
        subprocess.run(clang, check=True)
        subprocess.run(["gcc", "-O2", "-o", self.peer, PROGRAMS / "peer.c", "-lbpf"], check=True)
        self.deep = self._build("deep", "-fomit-frame-pointer")
        self.deep_fp = self._build("deep-fp", "-fno-omit-frame-pointer")

    def _build(self, name: str, flag: str) -> Path:
        output = self.folder / name
        subprocess.run(["gcc", "-O2", flag, "-o", output, PROGRAMS / "deep.c"], check=True)
        return output

    def get_stack(self, pid: int, seconds: float, *, hz: int = 4999) -> dict[str, int]:
        """The kernel's walk by frame pointers, of one process."""
        return self._peer("peer_get_stack", hz, seconds, pid)

    def _peer(self, program: str, hz: int, seconds: float, pid: int) -> dict[str, int]:
        command = [self.peer, self.object, program, str(hz), str(seconds), str(pid)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return json.loads(text.splitlines()[-1])

    @contextmanager
    def attached(self, program: str, hz: int) -> Iterator[None]:
        """A peer program on every CPU until the block ends."""
        command = [self.peer, self.object, program, str(hz), "3600", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield
            finally:
                process.kill()

    def program_stats(self, name: str) -> dict[str, int]:
        """Runs and run time of the loaded programs of that name."""
        return json.loads(subprocess.run([self.peer, "--stats", name], check=True, capture_output=True, text=True).stdout)

    def fresh(self, suffix: str = ".unspool") -> Path:
        """A new file name in the folder."""
        return Path(tempfile.mktemp(suffix=suffix, dir=self.folder))

    def record(self, *arguments: str, seconds: float) -> tuple[Path, float]:
        """A recording, and the mean run time of its sampling program in ns (all runs, filtered ones too)."""
        output = self.fresh()
        command = [UNSPOOL, "record", "-d", str(seconds), "-o", str(output), *arguments]
        mean = 0.0
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                figures = self.program_stats("sample_cpu")
                if figures["runs"]:
                    mean = figures["run_ns"] / figures["runs"]
                time.sleep(0.1)
        return output, mean


def query(file: Path, sql: str) -> list[tuple[float, ...]]:
    """Rows of a recording."""
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.sql(sql).fetchall()


def counters(file: Path) -> dict[str, int]:
    """A recording's counters."""
    return {str(name): int(value) for name, value in query(file, "select name, value from counters")}


@contextmanager
def running(*command: str | Path) -> Iterator[int]:
    """A program that runs meanwhile; its pid."""
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL) as process:
        time.sleep(0.3)
        try:
            yield process.pid
        finally:
            process.kill()
