from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from export.peers import pprof
from store.recordings import HEADER, Scene, small

from unspool.cli.main import main
from unspool.export import profile_pb2 as pb
from unspool.model.symbol import Symbol
from unspool.model.verdict import Trust
from unspool.store.writer import Writer


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pprof")
    assert 0 == main(["export", str(small(folder / "a.unspool")), "-o", str(folder / "a.pb.gz")])
    return folder / "a.pb.gz"


def message(path: Path) -> pb.Profile:
    return pb.Profile.FromString(gzip.decompress(path.read_bytes()))


def test_pprof_prints_the_same_times(exported: Path) -> None:
    top = pprof("-top", exported)
    rows = {tuple(line.split()[index] for index in (0, 3, 5)) for line in top.splitlines() if len(line.split()) == 6}
    assert ("70ms", "70ms", "leaf") in rows
    assert ("0", "80ms", "main") in rows
    assert ("10ms", "10ms", "libfoo.so+0x9000") in rows
    assert "Type: cpu" in top
    assert "Duration: 1s, Total samples = 100ms" in top
    assert "3 samples lost" in top


def test_pprof_shows_the_verdict_of_every_sample(exported: Path) -> None:
    tags = re.sub(r"[ \t]+", " ", pprof("-tags", "-sample_index=samples", exported))
    expected = ["8 (80.00%): reliable", "8 (80.00%): whole", "1 (10.00%): no-unwind-info", "1 (10.00%): /usr/lib/libfoo.so"]
    for line in (*expected, "4 (40.00%): helper"):
        assert line in tags


def test_pprof_can_choose_by_verdict(exported: Path) -> None:
    assert "Showing nodes accounting for 10ms, 10.00% of 100ms total" in pprof("-top", "-tagfocus=verdict=unreliable", exported)


def test_locations_have_files_lines_and_mappings(exported: Path) -> None:
    raw = pprof("-raw", exported)
    assert re.search(r"0x1000 M=1 main /src/demo\.c:10:0 s=0", raw)
    assert re.search(rf"1: 0x0/0x1201/0x0 /usr/bin/demo {'aa' * 20} \[FN\]", raw)


def test_inlined_calls_are_lines_of_one_location(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.unspool", HEADER) as out:
        scene = Scene(out)
        frame = out.frame(scene.modules["demo"], 0x10, 0x10, "user", Trust.REGISTERS)
        out.name(frame, (Symbol("tiny", 0, "a.c", 1, inlined=True), Symbol("big", 9, "b.c", 3)))
        process = out.process(1, 1, "demo")
        out.sample(HEADER.monotonic_ns, process, out.thread(process, 1, "demo"), 0, "syscalls", "read", 5, scene.stack(frame))
    assert 0 == main(["export", str(tmp_path / "a.unspool"), "-o", str(tmp_path / "a.pprof")])
    found = message(tmp_path / "a.pprof")
    names = [found.string_table[found.function[line.function_id - 1].name] for line in found.location[0].line]
    assert ["tiny", "big"] == names
    labels = {found.string_table[label.key]: found.string_table[label.str] for label in found.sample[0].label if label.str}
    assert "syscalls:read" == labels["event"]


def test_the_bytes_are_the_same_each_time(exported: Path, tmp_path: Path) -> None:
    assert 0 == main(["export", str(exported.with_name("a.unspool")), "-o", str(tmp_path / "b.pb.gz")])
    assert exported.read_bytes() == (tmp_path / "b.pb.gz").read_bytes()
