"""`unspool stack` on real processes: what it prints, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from target_programs import Programs, running, wait_asleep

from unspool.cli.main import main
from unspool.targets import procfs

pytestmark = pytest.mark.live

METHODS = pytest.mark.parametrize("method", ["native", "python"])
GONE = 2**22 + 1


def stack(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert 0 == main(["stack", *map(str, arguments), "--json"])
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@METHODS
def test_json_has_every_thread_with_names_lines_and_inlined_calls(
    method: str, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    path = programs.build("live.c", "-O2", "-g")
    with running(path) as process:
        for tid in procfs.thread_ids(process.pid):
            wait_asleep(process.pid, tid)
        answer = stack(capsys, process.pid, "--method", method)
        assert (process.pid, procfs.thread_ids(process.pid)) == (answer["pid"], [thread["tid"] for thread in answer["threads"]])
    first, second = answer["threads"]
    assert (True, "end-process-entry", "reliable", None, None) == tuple(
        first[key] for key in ("whole", "stop", "verdict", "reason", "first_bad_frame")
    )
    assert "end-thread-entry" == second["stop"]
    frames = {frame["function"]: frame for frame in first["frames"] if frame["module"] == str(path)}
    assert ["inlined_everywhere", "waiting", "main", "_start"] == list(frames)
    inlined, around = frames["inlined_everywhere"], frames["waiting"]
    assert (True, False) == (inlined["inlined"], around["inlined"])
    assert inlined["ip"] == around["ip"]
    assert inlined["file"].endswith("live.c")
    source = (Path(__file__).parents[1] / "programs" / "live.c").read_text(encoding="utf-8").splitlines()
    assert "read(0, line" in source[inlined["line"] - 1]
    assert "registers" == first["frames"][0]["trust"]
    assert {"cfi"} == {frame["trust"] for frame in first["frames"] if frame["ip"] != first["frames"][0]["ip"]}


def test_without_lines_there_are_functions_only(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    with running(programs.build("live.c", "-O2", "-g")) as process:
        wait_asleep(process.pid)
        [thread] = stack(capsys, process.pid, "-t", process.pid, "--no-lines")["threads"]
    assert {(None, None, False)} == {(frame["file"], frame["line"], frame["inlined"]) for frame in thread["frames"]}
    assert {"waiting", "main"} <= {frame["function"] for frame in thread["frames"]}


@METHODS
def test_a_cut_stack_says_why_and_what_to_do(method: str, programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    with running(programs.build("live.c", "-O2", "-g"), "bare") as process:
        wait_asleep(process.pid)
        thread = stack(capsys, process.pid, "-t", process.pid, "--method", method)["threads"][0]
        assert (False, "no-unwind-info", "unreliable", "no-unwind-info") == tuple(
            thread[key] for key in ("whole", "stop", "verdict", "reason")
        )
        bad = thread["frames"][thread["first_bad_frame"]]
        assert "bare" == bad["function"]
        assert 0 == main(["stack", str(process.pid), "--method", method])
        text = capsys.readouterr().out
    assert "unreliable, cut (no-unwind-info)" in text
    assert "cut: The file has no unwind data for this code." in text
    assert "hint: Build it with" in text


@METHODS
@pytest.mark.parametrize(
    ("guess", "flags"), [("frame-pointer", ("-O1", "-fno-omit-frame-pointer")), ("scan", ("-O1", "-fomit-frame-pointer"))]
)
def test_a_guess_goes_on_where_code_has_no_unwind_data_and_is_marked(
    method: str, guess: str, flags: tuple[str, ...], programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(programs.build("deep.c", "-fno-asynchronous-unwind-tables", *flags), "20") as process:
        wait_asleep(process.pid)
        [cut] = stack(capsys, process.pid, "--method", method)["threads"]
        [guessed] = stack(capsys, process.pid, "--method", method, "--guess", guess)["threads"]
    assert ("no-unwind-info", False) == (cut["stop"], cut["whole"])
    assert cut["frames"] == guessed["frames"][: len(cut["frames"])]
    assert ("unreliable", "no-unwind-info") == (guessed["verdict"], guessed["reason"])
    assert guess in {frame["trust"] for frame in guessed["frames"]}
    assert "main" in [frame["function"] for frame in guessed["frames"]]


def test_only_the_threads_that_were_asked_for_are_shown(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    with running(programs.build("threads.c", "-O2"), "3") as process:
        second = procfs.thread_ids(process.pid)[1]
        answer = stack(capsys, process.pid, "-t", second, "-t", GONE)
    assert [(second, "reliable"), (GONE, "none")] == [(thread["tid"], thread["verdict"]) for thread in answer["threads"]]
    assert "exited" == answer["threads"][1]["stop"]


def test_a_limit_of_frames_cuts_the_stack_and_says_so(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    with running(programs.build("deep.c", "-O2"), "100") as process:
        wait_asleep(process.pid)
        [thread] = stack(capsys, process.pid, "--max-frames", 10)["threads"]
    assert (10, "frame-limit", "frame-limit") == (len(thread["frames"]), thread["stop"], thread["reason"])


def test_a_process_that_is_not_there_is_an_error_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["stack", str(GONE)])
    assert f"unspool stack: there is no process {GONE}\nhint: `ps -e` lists the processes.\n" == capsys.readouterr().err
