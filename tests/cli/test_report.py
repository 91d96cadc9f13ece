from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from store.recordings import HEADER, Scene, guests, small

from unspool.cli.main import main
from unspool.model.guest import Guest
from unspool.store.writer import Writer


@pytest.fixture
def recording(tmp_path: Path) -> str:
    return str(small(tmp_path / "a.unspool"))


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert 0 == main(["report", *arguments, "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_json_says_what_the_recording_holds(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = json_of(capsys, recording)
    assert (10, 3, 1.0, 8, 1, 1) == tuple(report[name] for name in ("samples", "lost", "duration_s", "whole", "cut", "none"))
    assert {"end-process-entry": 8, "no-unwind-info": 1, "no-user-stack": 1} == report["stops"]
    assert {"function": "leaf", "module": "/usr/bin/demo", "self": 7, "total": 7} == report["functions"][0]
    assert {"stop": "no-unwind-info", "ending": "cut", "samples": 1, "modules": [{"module": "/usr/lib/libfoo.so", "samples": 1}]} in report[
        "causes"
    ]
    assert "testhost" == report["machine"]["hostname"]
    assert 6 == len(report["functions"])
    assert 10 == sum(function["self"] for function in report["functions"])


def test_json_holds_the_tree_on_request(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    tree = json_of(capsys, recording, "--tree", "--least", "20", "--top", "0")["tree"]
    assert [(0, "demo"), (1, "main"), (2, "work"), (3, "leaf"), (2, "leaf"), (3, "leaf")] == [
        (row["depth"], row["function"]) for row in tree
    ]


def test_filters_choose_samples(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 4 == json_of(capsys, recording, "--comm", "helper")["samples"]
    assert 1 == json_of(capsys, recording, "--stop", "no-unwind-info,page-absent")["samples"]
    assert 10 == json_of(capsys, recording, "-p", "10", "-p", "20")["samples"]
    assert 2 == json_of(capsys, recording, "--from", "0.2", "--to", "0.4", "--ending", "whole", "--verdict", "reliable")["samples"]


@pytest.mark.parametrize(
    ("option", "known"),
    [("--stop", "no-unwind-info"), ("--verdict", "reliable"), ("--ending", "cut"), ("--mode", "kernel"), ("--pid", "number")],
)
def test_a_filter_value_that_does_not_exist_is_refused_with_those_that_do(
    option: str, known: str, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["report", recording, option, "tired"])
    said = capsys.readouterr().err
    assert "'tired' is no" in said
    assert known in said


def test_the_text_says_the_same(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["report", recording, "--tree"])
    text = capsys.readouterr().out
    for line in (
        "samples   10, 3 lost (lost-ring 3)",
        "stacks    9 user stacks; 1 samples without one (kernel threads, exiting threads)",
        "whole       88.9 %          8  reach an accepted end",
        "  11.1 %          1  no-unwind-info         /usr/lib/libfoo.so 1",
        "  70.0 %    70.0 %  leaf  (/usr/bin/demo)",
        "  80.0 %     0.0 %  |  |- main  (demo)",
        "  10.0 %     0.0 %  |  `- [cut: no-unwind-info in libfoo.so]",
    ):
        assert line in text.splitlines()


def test_a_filter_that_nothing_passes_says_so(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["report", recording, "--pid", "99"])
    assert "no sample passes the filters" in capsys.readouterr().out


def test_an_unfinished_recording_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Writer(tmp_path / "a.unspool", HEADER) as out:
        out.commit()
        assert 0 == main(["report", str(tmp_path / "a.unspool")])
    text = capsys.readouterr().out
    assert "not finished" in text
    assert "nothing was sampled" in text


def test_hostile_names_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J\u202eevil\n"
    with Writer(tmp_path / "a.unspool", HEADER) as out:
        guest = out.guest(Guest(evil, 1, kernel_release=evil, registers_by=evil))
        process = out.process(1, 1, evil, evil, guest=guest, cgroup=evil)
        stack = Scene(out).stack(Scene(out).frame(evil))
        out.sample(HEADER.monotonic_ns, process, out.thread(process, 1, evil), 0, "cpu", evil, 1, stack)
        out.machine({"cpu-model": evil})
    assert 0 == main(["report", str(tmp_path / "a.unspool"), "--tree"])
    text = capsys.readouterr().out
    assert "\\x1b[2J\\u202eevil\\n" in text
    assert not set(evil) - set("[2Jevil\n") & set(text)


def test_a_deep_stack_stays_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Writer(tmp_path / "a.unspool", HEADER) as out:
        scene = Scene(out)
        process = out.process(1, 1, "deep")
        thread = out.thread(process, 1, "deep")
        for depth in range(1, 200):
            stack = scene.stack(*(scene.frame(f"f{level}") for level in range(depth, 0, -1)))
            out.sample(HEADER.monotonic_ns, process, thread, 0, "cpu", "", 1, stack)
            out.sample(HEADER.monotonic_ns, process, thread, 0, "cpu", "", 1, scene.stack(scene.frame("g"), scene.frame(f"f{depth}")))
    assert 0 == main(["report", str(tmp_path / "a.unspool"), "--tree", "--least", "0"])
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) < 140


def test_guests_have_rows_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(guests(tmp_path / "a.unspool"))
    assert 0 == main(["report", path])
    text = capsys.readouterr().out.splitlines()
    for line in (
        "stacks    12 user stacks, in guests with their kernel's frames; 0 samples without one (kernel threads, exiting threads)",
        "kernel      62.5 %          5  of 8 in guests' kernels lead to the kernel's entry, whatever their user part is",
        "   41.7 %          5   100.0 %     60.0 %       100.0 %  web, Linux 6.1.0-50-cloud-amd64, registers by kvm-hold; vCPU 0: 3, 1: 2",
        "   16.7 %          2   100.0 %    100.0 %       100.0 %  web#2, Linux 6.1.0-50-cloud-amd64, registers by kvm-hold; vCPU 0: 2",
        "   25.0 %          3     0.0 %    100.0 %         0.0 %  db, kernel not known; vCPU 0: 3",
        "   16.7 %          2   100.0 %      0.0 %             -  [host]",
        "   41.7 %          5   100.0 %       10  guest:web nginx",
        "   16.7 %          2   100.0 %       10  demo",
        "   25.0 %          3  guest-pt",
        "   16.7 %          2  end-kernel-entry",
    ):
        assert line.strip() in [one.strip() for one in text]
    report = json_of(capsys, path, "--guest", "web", "--tree")
    assert (7, 2) == (report["samples"], len(report["guests"]))
    assert {"name": "web", "generation": 1, "samples": 5, "whole": 5}.items() <= report["guests"][0].items()
    assert {"in_kernel": 3, "kernel_whole": 3, "kernel_cut": 0}.items() <= report["guests"][0].items()
    assert [{"vcpu": 0, "samples": 3}, {"vcpu": 1, "samples": 2}] == report["guests"][0]["vcpus"]
    assert ["guest:web", "nginx", "main"] == [row["function"] for row in report["tree"][:3]]
    assert 2 == json_of(capsys, path, "--guest", "web", "--vcpu", "1", "--mode", "user", "--kernel", "6.1*")["samples"]
    assert 2 == json_of(capsys, path, "--cgroup", "/user.slice")["samples"]
    with pytest.raises(SystemExit):
        main(["report", path, "--mode", "hyper"])


def test_a_report_without_guests_does_not_speak_of_them(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["report", recording])
    assert "guest" not in capsys.readouterr().out
