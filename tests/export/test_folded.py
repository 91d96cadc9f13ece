from __future__ import annotations

import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from store.recordings import HEADER, Scene, small

from unspool.cli.main import main
from unspool.store.writer import Writer

FLAMEGRAPH = "/usr/share/perl5/Devel/NYTProf/flamegraph.pl"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def recording(tmp_path: Path) -> str:
    return str(small(tmp_path / "a.unspool"))


def exported(capsysbinary: pytest.CaptureFixture[bytes], *arguments: str) -> str:
    assert 0 == main(["export", *arguments, "-o", "-"])
    return capsysbinary.readouterr().out.decode()


def test_folded_stacks_are_root_first(recording: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    expected = """\
demo;[cut: no-unwind-info in libfoo.so];libfoo.so+0x9000 1
demo;main;leaf;leaf 2
demo;main;read;ksys 1
demo;main;work;leaf 5
kworker/0:1;[no user stack];ksys 1
"""
    assert expected == exported(capsysbinary, recording, "--format", "folded")


def test_folded_stacks_without_marks_and_groups(recording: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    expected = "ksys 1\nlibfoo.so+0x9000 1\nmain;leaf;leaf 2\nmain;read;ksys 1\nmain;work;leaf 5\n"
    assert expected == exported(capsysbinary, recording, "--format", "folded", "--no-marks", "--by", "none")


def test_folded_stacks_by_thread(recording: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert "demo (10) helper (11);main;leaf;leaf 1\n" in exported(capsysbinary, recording, "--format", "folded", "--by", "thread")


def test_flamegraph_pl_reads_folded_stacks(recording: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Every sample arrives in the program the format comes from."""
    text = exported(capsysbinary, recording, "--format", "folded")
    drawn = subprocess.run(["perl", FLAMEGRAPH], input=text, capture_output=True, text=True, check=True)
    assert "leaf (7 samples" not in drawn.stdout
    for title in ("main (8 samples, 80.00%)", "[cut: no-unwind-info in libfoo.so] (1 samples, 10.00%)", "work (5 samples, 50.00%)"):
        assert f"<title>{title}</title>" in drawn.stdout
    assert "" == drawn.stderr


def test_names_cannot_break_the_lines(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    with Writer(tmp_path / "a.unspool", HEADER) as out:
        scene = Scene(out)
        process = out.process(1, 1, "a;b\nc 5")
        out.sample(HEADER.monotonic_ns, process, out.thread(process, 1, "t"), 0, "cpu", "", 3, scene.stack(scene.frame("f(int; char) 1\r")))
    assert "a:b\\nc 5;f(int: char) 1\\r 3\n" == exported(capsysbinary, str(tmp_path / "a.unspool"), "--format", "folded")


def test_the_picture_shows_every_box(recording: str, tmp_path: Path) -> None:
    assert 0 == main(["export", recording, "-o", str(tmp_path / "a.svg")])
    root = ET.parse(tmp_path / "a.svg").getroot()
    titles = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert "./demo --fast" == titles[0]
    assert "main (demo): 8 samples, 80.00 %; self 0" in titles
    assert "[cut: no-unwind-info in libfoo.so]: 1 samples, 10.00 %; self 0" in titles
    assert 15 == len(titles), "the picture's, and one for each of 14 boxes"
    widths = {group.find(f"{SVG}title").text.split(":")[0]: float(group.find(f"{SVG}rect").get("width")) for group in root.iter(f"{SVG}g")}
    assert pytest.approx(0.8, abs=0.001) == widths["main (demo)"] / widths["all"]
    assert not [element for element in root.iter() if element.tag.endswith("script")]


def test_the_picture_is_text_whatever_the_names_are(tmp_path: Path) -> None:
    evil = "</title><script>alert(1)</script>]]>\x00\x1b\ufffe&"
    with Writer(tmp_path / "a.unspool", HEADER) as out:
        scene = Scene(out)
        process = out.process(1, 1, evil)
        out.sample(HEADER.monotonic_ns, process, out.thread(process, 1, evil), 0, "cpu", "", 3, scene.stack(scene.frame(evil)))
    assert 0 == main(["export", str(tmp_path / "a.unspool"), "--title", evil, "-o", str(tmp_path / "a.svg")])
    root = ET.parse(tmp_path / "a.svg").getroot()
    assert not [element for element in root.iter() if element.tag.endswith("script")]
