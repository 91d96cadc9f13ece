from __future__ import annotations

import json
from pathlib import Path

import pytest
from store.recordings import HEADER, Scene, small

from unspool.cli.main import main
from unspool.store.writer import Writer


def second(path: Path) -> Path:
    """Four samples: `leaf` is half of them, `main` all, and `fresh` is new; demo has another build id and place."""
    with Writer(path, HEADER) as out:
        scene = Scene(out)
        scene.modules["demo"] = out.module("/opt/new/demo", "dd" * 20)
        process = out.process(77, 5, "demo")
        thread = out.thread(process, 77, "demo")
        leaf, fresh = (scene.stack(scene.frame(name), scene.frame("main")) for name in ("leaf", "fresh"))
        for index, stack in enumerate((leaf, leaf, fresh, fresh)):
            out.sample(HEADER.monotonic_ns + index, process, thread, 0, "cpu", "", 1, stack)
    return path


def test_shares_are_compared_not_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(small(tmp_path / "a.unspool")), str(second(tmp_path / "b.unspool"))]
    assert 0 == main(["diff", *files, "--json"])
    found = json.loads(capsys.readouterr().out)
    changes = {entry["function"]: entry for entry in found["functions"]}
    assert (10, 4) == (found["before"]["samples"], found["after"]["samples"])
    assert pytest.approx({"before": 0.7, "after": 0.5, "change": -0.2}) == changes["leaf"]["self"]
    assert pytest.approx({"before": 0.8, "after": 1.0, "change": 0.2}) == changes["main"]["total"]
    assert pytest.approx({"before": 0.0, "after": 0.5, "change": 0.5}) == changes["fresh"]["self"]
    assert "fresh" == found["functions"][0]["function"]


def test_the_text_has_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(small(tmp_path / "a.unspool")), str(second(tmp_path / "b.unspool"))]
    assert 0 == main(["diff", *files, "--sort", "total", "-n", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert "before         10 samples, 88.9 % of user stacks whole, 3 lost" == lines[0]
    assert "after           4 samples, 100.0 % of user stacks whole, 0 lost" == lines[1]
    assert {"fresh", "work"} == {line.split()[6] for line in lines[4:]}


def test_a_recording_does_not_differ_from_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(small(tmp_path / "a.unspool"))
    assert 0 == main(["diff", file, file])
    assert "nothing changed" in capsys.readouterr().out


def test_filters_hold_for_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(small(tmp_path / "a.unspool")), str(second(tmp_path / "b.unspool"))]
    assert 0 == main(["diff", *files, "--json", "--comm", "demo"])
    found = json.loads(capsys.readouterr().out)
    assert (9, 4) == (found["before"]["samples"], found["after"]["samples"])
