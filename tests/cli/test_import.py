from __future__ import annotations

import gzip
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store.recordings import small

from unspool.cli.main import main
from unspool.errors import BadInput
from unspool.export import profile_pb2 as pb
from unspool.export import read_folded, read_perf_script, read_pprof
from unspool.export.reading import ReadSample
from unspool.model.verdict import Stop

FOLDED = """\
demo;[cut: no-unwind-info in libfoo.so];libfoo.so+0x9000 1
demo;main;leaf;leaf 2
demo;main;read;ksys 1
demo;main;work;leaf 5
kworker/0:1;[no user stack];ksys 1
"""


def imported(folder: Path, name: str, content: bytes, *options: str) -> Path:
    (folder / name).write_bytes(content)
    assert 0 == main(["import", str(folder / name), "-o", str(folder / "imported.unspool"), *options])
    return folder / "imported.unspool"


def folded(recording: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> str:
    assert 0 == main(["export", str(recording), "--format", "folded", "-o", "-"])
    return capsysbinary.readouterr().out.decode()


def report(recording: Path, capsys: pytest.CaptureFixture[Any]) -> dict[str, Any]:
    assert 0 == main(["report", str(recording), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("suffix", [".folded", ".pb.gz", ".perf"])
def test_what_was_exported_comes_back(tmp_path: Path, suffix: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Paths, counts and the reasons for cut stacks survive the way out and in; perf script keeps no names for addresses."""
    assert 0 == main(["export", str(small(tmp_path / "a.unspool")), "-o", str(tmp_path / f"a{suffix}")])
    assert 0 == main(["import", str(tmp_path / f"a{suffix}"), "-o", str(tmp_path / "b.unspool")])
    capsysbinary.readouterr()
    expected = FOLDED.replace("libfoo.so+0x9000", "[unknown]") if suffix == ".perf" else FOLDED
    assert expected == folded(tmp_path / "b.unspool", capsysbinary)


def test_files_that_are_often_tried_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    perf = tmp_path / "perf.data"
    perf.write_bytes(b"PERFILE2" + bytes(96))
    for file, hint in ((perf, "hint: perf script -i "), (small(tmp_path / "a.unspool"), "hint: `unspool report`")):
        assert 1 == main(["import", str(file), "-o", str(tmp_path / "out.unspool")])
        assert hint in capsys.readouterr().err
    assert 1 == main(["import", str(perf), "--format", "folded", "-o", "-"])
    assert "stdout" in capsys.readouterr().err


def test_pprof_brings_the_verdict_back(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert 0 == main(["export", str(small(tmp_path / "a.unspool")), "-o", str(tmp_path / "a.pb.gz")])
    assert 0 == main(["import", str(tmp_path / "a.pb.gz"), "-o", str(tmp_path / "b.unspool")])
    capsysbinary.readouterr()
    before, after = (report(tmp_path / name, capsysbinary) for name in ("a.unspool", "b.unspool"))
    for key in ("samples", "whole", "cut", "none", "stops", "verdicts", "reasons", "causes", "functions", "duration_s", "frequency"):
        assert before[key] == after[key], key


def test_a_profile_that_says_nothing_of_ends_is_not_called_whole_or_cut(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    recording = imported(tmp_path, "a.folded", b"prog;main;f 3\nprog;main;vfs_read_[k] 1\n")
    capsysbinary.readouterr()
    found = report(recording, capsysbinary)
    assert (4, 0, 0, 4) == (found["samples"], found["whole"], found["cut"], found["unknown"])
    assert "prog;main;f 3\nprog;main;vfs_read 1\n" == folded(recording, capsysbinary)


def test_go_profiles_are_read(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """A profile with two sample types of which none counts samples: the last one is taken, as pprof does."""
    message = pb.Profile()
    strings = ["", "alloc_space", "bytes", "main.f", "f.go", "/bin/prog"]
    message.string_table.extend(strings)
    message.sample_type.add(type=1, unit=2)
    message.function.add(id=1, name=3, filename=4)
    message.mapping.add(id=1, memory_start=0x400000, memory_limit=0x500000, file_offset=0x1000, filename=5)
    message.location.add(id=1, mapping_id=1, address=0x401234).line.add(function_id=1, line=7)
    message.sample.add(location_id=[1], value=[4096])
    recording = imported(tmp_path, "heap.pprof", gzip.compress(message.SerializeToString()))
    capsysbinary.readouterr()
    assert (1, 4096) == tuple(report(recording, capsysbinary)[key] for key in ("samples", "weight"))
    main(["query", str(recording), 'SELECT f."offset", file, line FROM frames f JOIN symbols USING (frame)', "--json"])
    assert [{"offset": 0x2234, "file": "f.go", "line": 7}] == json.loads(capsysbinary.readouterr().out)


def test_perfs_own_text_is_read(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    text = b"""\
# captured on: Fri
perl 1234/1235 [001] 4711.000001:     250000 cycles:u:
        ffffffff81000010 native_write_msr+0x10 ([kernel.kallsyms])
            7f0000001234 tiny (inlined)
            7f0000001234 Perl_pp_add+0x44 (/usr/bin/perl)
            7f0000001300 [unknown] (/usr/lib/my lib.so)

swapper     0 [000] 4711.500001: sched:sched_switch: prev_comm=a
        ffffffff81000020 schedule ([kernel.kallsyms])
"""
    recording = imported(tmp_path, "out.txt", text, "--format", "perf-script")
    capsysbinary.readouterr()
    assert "perl;[unknown];Perl_pp_add;tiny;native_write_msr 1\nswapper;schedule 1\n" == folded(recording, capsysbinary)
    main(["query", str(recording), "SELECT trigger, detail, cpu, time_ns FROM samples ORDER BY time_ns", "--json"])
    rows = json.loads(capsysbinary.readouterr().out)
    assert [("cpu", "", 1, 0), ("sched", "sched_switch", 0, 500_000_000)] == [tuple(row.values()) for row in rows]


@pytest.mark.live
def test_a_real_perf_recording_is_read(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Every sample that perf script prints is in the recording."""
    work = ["perl", "-e", "my $x = 0; for (1 .. 3_000_000) { $x += sqrt($_) }"]
    # Without the cache of build ids that all perfs of the user share: perf aborts when another one is at work in it.
    perf = ["perf", "--buildid-dir", str(tmp_path / "ids")]
    record = [*perf, "record", "-q", "-B", "-N", "-e", "cpu-clock", "-F", "499", "-g", "-o", str(tmp_path / "p"), "--", *work]
    subprocess.run(record, check=True)
    text = subprocess.run([*perf, "script", "-i", str(tmp_path / "p")], check=True, capture_output=True).stdout
    heads = re.findall(rb"^\S.*cpu-clock", text, re.MULTILINE)
    assert heads
    recording = imported(tmp_path, "perl.perf", text)
    capsysbinary.readouterr()
    found = report(recording, capsysbinary)
    assert len(heads) == found["samples"]
    assert any("perl" in function["module"] for function in found["functions"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.folded", b"main;f\n", "line 1 is not"),
        ("a.folded", b"main;f 1\nmain;g x\n", "line 2 is not"),
        ("a.pb.gz", b"\x1f\x8bbroken", "not a pprof profile"),
        ("a.pprof", b"hello there, this is text", "not a pprof profile"),
        ("a.perf", b"main;f 1\n", "line 1 is neither"),
        ("a.txt", b"main;f 1\n", "--format"),
        ("a.pprof", b"", "not a pprof profile"),
    ],
)
def test_what_is_no_profile_is_refused(tmp_path: Path, name: str, content: bytes, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(content)
    assert 1 == main(["import", str(tmp_path / name), "-o", str(tmp_path / "b.unspool")])
    error = capsys.readouterr().err
    assert message in error
    assert "hint: " in error
    assert not (tmp_path / "b.unspool").exists()


def test_a_profile_that_refers_to_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = pb.Profile(string_table=["", "samples", "count"])
    message.sample_type.add(type=1, unit=2)
    message.sample.add(location_id=[9], value=[1])
    (tmp_path / "a.pprof").write_bytes(message.SerializeToString())
    assert 1 == main(["import", str(tmp_path / "a.pprof"), "-o", str(tmp_path / "b.unspool")])
    assert "location 9" in capsys.readouterr().err


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(alphabet="ab;[]: \n\t0123456789/x+().-", max_size=300).map(str.encode))
def test_any_bytes_are_samples_or_an_error(data: bytes) -> None:
    readers = (read_folded.samples, read_perf_script.samples, lambda content: read_pprof.read(content)[1])
    for read in readers:
        try:
            found = list(read(data))
        except BadInput:
            continue
        assert all(isinstance(sample, ReadSample) for sample in found)


def test_marks_are_understood(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    recording = imported(tmp_path, "a.folded", b"p;[unreliable: heuristic-used];main 1\np;[cut: nonsense-word];main 1\n")
    capsysbinary.readouterr()
    found = report(recording, capsysbinary)
    assert {"none": 2} == found["stops"]
    assert {Stop.HEURISTIC_USED.label: 1} == found["reasons"]
