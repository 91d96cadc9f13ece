from __future__ import annotations

import json
from pathlib import Path

import pytest
from store.recordings import HEADER, Scene, guests, small

from unspool.cli.main import main
from unspool.model.symbol import Unnamed
from unspool.model.verdict import Trust
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
    error = {"self": (0.7 * 0.3 / 10 + 0.5 * 0.5 / 4) ** 0.5, "total": (0.8 * 0.2 / 10) ** 0.5, "fresh": (0.5 * 0.5 / 4) ** 0.5}
    assert pytest.approx({"before": 0.7, "after": 0.5, "change": -0.2, "error": error["self"]}) == changes["leaf"]["self"]
    assert pytest.approx({"before": 0.8, "after": 1.0, "change": 0.2, "error": error["total"]}) == changes["main"]["total"]
    assert pytest.approx({"before": 0.0, "after": 0.5, "change": 0.5, "error": error["fresh"]}) == changes["fresh"]["self"]
    assert "fresh" == found["functions"][0]["function"]


def test_the_text_has_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(small(tmp_path / "a.unspool")), str(second(tmp_path / "b.unspool"))]
    assert 0 == main(["diff", *files, "--sort", "total", "-n", "2"])
    lines = capsys.readouterr().out.splitlines()
    sides = "samples in 1.0 s, 0.10 s of CPU time, 88.9 % of user stacks whole, 3 lost  ./demo --fast"
    assert f"before         10 {sides}" == lines[0]
    assert lines[1].startswith("after           4 samples in ")
    assert lines[2].startswith("note: the shares of whole stacks differ much")
    assert "  change  before   after    change  before   after  function" == lines[5]
    assert {"fresh", "work"} == {line.split()[6] for line in lines[6:]}
    assert "  +50.00    0.00   50.00    +50.00    0.00   50.00  fresh  (demo)  new" in lines
    assert any(line.endswith("work  (demo)  gone") for line in lines)


def test_a_small_change_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """70 % of ten samples and 50 % of four are no difference that means anything."""
    files = [str(small(tmp_path / "a.unspool")), str(second(tmp_path / "b.unspool"))]
    assert 0 == main(["diff", *files])
    [leaf] = [line for line in capsys.readouterr().out.splitlines() if " leaf " in line]
    assert "~-20.00" == leaf.split()[0]


def nameless(path: Path, *offsets: int) -> Path:
    """Two samples: one with both places on the stack, one with the first."""
    with Writer(path, HEADER) as out:
        scene = Scene(out)
        process = out.process(77, 5, "demo")
        thread = out.thread(process, 77, "demo")
        frames = [out.frame(scene.modules["libfoo.so"], 0x7000 + offset, offset, "user", Trust.CFI) for offset in offsets]
        for frame in frames:
            out.name(frame, Unnamed("no symbol table"))
        for index, stack in enumerate((scene.stack(*frames), scene.stack(frames[0]))):
            out.sample(HEADER.monotonic_ns + index, process, thread, 0, "cpu", "", 1, stack)
    return path


def test_functions_without_names_are_one_and_count_once_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their offsets change with every build."""
    files = [str(nameless(tmp_path / "a.unspool", 0x10, 0x20)), str(nameless(tmp_path / "b.unspool", 0x30, 0x40))]
    assert 0 == main(["diff", *files, "--json"])
    [change] = json.loads(capsys.readouterr().out)["functions"]
    assert ("[no names]", "libfoo.so") == (change["function"], change["module"])
    assert (1.0, 1.0) == (change["total"]["before"], change["total"]["after"])


def test_a_recording_does_not_differ_from_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(small(tmp_path / "a.unspool"))
    assert 0 == main(["diff", file, file])
    assert "nothing changed" in capsys.readouterr().out


def test_filters_hold_for_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(small(tmp_path / "a.unspool")), str(second(tmp_path / "b.unspool"))]
    assert 0 == main(["diff", *files, "--json", "--comm", "demo"])
    found = json.loads(capsys.readouterr().out)
    assert (9, 4) == (found["before"]["samples"], found["after"]["samples"])


def test_guests_are_compared_with_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(guests(tmp_path / f"{name}.unspool")) for name in "ab"]
    assert 0 == main(["diff", *files, "--json", "--guest", "web", "--vcpu", "0"])
    found = json.loads(capsys.readouterr().out)
    assert (5, 5) == (found["before"]["samples"], found["after"]["samples"])
    assert {("gsys", "[guest.kernel]"), ("gentry", "[guest.kernel]")} <= {(row["function"], row["module"]) for row in found["functions"]}
