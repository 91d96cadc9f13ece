"""`unspool record`: what its arguments mean, and what it says at the end."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from unspool.capture.features import ATTEMPTS
from unspool.capture.frames import Tally
from unspool.cli import record, sampling_options
from unspool.cli.main import parser_for
from unspool.cli.recording_summary import progress_line, summary
from unspool.errors import BadRequest
from unspool.model.verdict import Stop, Verdict
from unspool.session.recording import Plan, Progress, check_rate, request_of, ring_bytes, watched_processes


def parsed(line: str) -> argparse.Namespace:
    return parser_for("record").parse_args(line.split())


def tally(stop: Stop, samples: int, module: str = "", verdict: Verdict = Verdict.NONE) -> Tally:
    made = Tally(stop, module, verdict)
    made.samples = samples
    return made


def test_flags_as_hands_know_them() -> None:
    arguments = parsed("-p 1,2 -p 3 -F 4999 -d 10 -o out -g --on syscalls:read")
    values = (arguments.pid, arguments.frequency, arguments.duration, arguments.output, arguments.on)
    assert ([1, 2, 3], 4999, 10.0, Path("out"), "syscalls:read") == values


@pytest.mark.parametrize("line", ["-F 99 -- perf stat -a", "-F 99 perf stat -a"])
def test_all_behind_the_command_is_the_commands(line: str) -> None:
    arguments = parsed(line)
    assert (("perf", "stat", "-a"), False) == (record.checked_command(arguments), arguments.everything)


@pytest.mark.parametrize("line", ["", "-a -p 1", "-t 1 -p 2", "-t 1 -- true", "-a -o -"])
def test_what_contradicts_itself_is_refused_with_a_hint(line: str) -> None:
    with pytest.raises(BadRequest) as caught:
        record.checked_command(parsed(line))
    assert caught.value.hint


@pytest.mark.parametrize("line", ["-p x", "-p 0", "-F 0", "-F 1e9", "-d 0", "-d -1", "-d later", "-d nan"])
def test_wrong_numbers_are_wrong_usage(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(line)
    said = capsys.readouterr().err.splitlines()
    assert ("unspool record: error: argument", "hint: `unspool record --help` shows the options and examples.") == (said[0][:31], said[1])


def test_spans_and_rates() -> None:
    assert [10.0, 10.0, 0.5, 120.0, 3600.0] == [sampling_options.seconds(text) for text in ("10", "10s", "500ms", "2m", "1h")]
    assert [99, 2000] == [sampling_options.frequency(text) for text in ("99", "2k")]


@pytest.mark.parametrize(("line", "name"), [("-- /usr/bin/perl -e 1", "perl"), ("-p 77", "77"), ("-t 8", "8"), ("-a", "machine")])
def test_without_a_name_the_file_says_what_was_recorded(line: str, name: str) -> None:
    path = record.default_output(parsed(line))
    assert (name, ".unspool") == (path.name.partition("-")[0], path.suffix)


def test_a_plan_becomes_a_request() -> None:
    plan = Plan(Path("out"), pids=(5,), everything=False)
    assert ((5,), True, [5]) == (request_of(plan, None).pids, request_of(plan, None).follow, watched_processes(plan, None))
    whole = Plan(Path("out"), everything=True)
    assert (True, None) == (request_of(whole, None).everything, watched_processes(whole, None))
    assert not request_of(Plan(Path("out"), tids=(5,)), None).follow


def test_the_ring_has_room_for_some_seconds_within_bounds() -> None:
    sizes = [ring_bytes(Plan(Path("out"), frequency=rate)) for rate in (1, 99, 4999, 50000)]
    assert sorted(sizes) == sizes
    assert all(size & (size - 1) == 0 and 8 << 20 <= size <= 256 << 20 for size in sizes)


def test_a_rate_that_the_kernel_does_not_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unspool.session.recording.read_file", lambda _: b"1000\n")
    check_rate(Plan(Path("out"), frequency=1000))
    with pytest.raises(BadRequest) as caught:
        check_rate(Plan(Path("out"), frequency=1001))
    assert "sysctl" in caught.value.hint


def test_the_summary_says_how_much_is_whole_and_why_the_rest_is_cut() -> None:
    tallies = [
        tally(Stop.END_PROCESS_ENTRY, 900, verdict=Verdict.RELIABLE),
        tally(Stop.END_THREAD_ENTRY, 50, verdict=Verdict.UNRELIABLE),
        tally(Stop.NO_UNWIND_INFO, 30, "/lib/liba.so\x1b[31m"),
        tally(Stop.NO_UNWIND_INFO, 10, "/lib/libb.so"),
        tally(Stop.PAGE_ABSENT, 10),
        tally(Stop.NO_USER_STACK, 5),
    ]
    progress = Progress(Path("out.unspool"), seconds=2.5, samples=1005, lost=3, tallies=tallies)
    assert [
        "out.unspool: 1,005 samples in 2.5 s, 3 lost",
        "  95.0 % of the stacks are whole, 90.0 % reliable, 5 samples without user stack (kernel threads, exiting threads)",
        "  cut:",
        "       4.0 %  no-unwind-info         liba.so\\x1b[31m 30, libb.so 10",
        "       1.0 %  page-absent",
    ] == list(summary(progress))


def test_a_recording_without_samples_says_so() -> None:
    assert "no samples" in "\n".join(summary(Progress(Path("out"))))


def test_the_line_while_it_runs() -> None:
    progress = Progress(Path("out"), seconds=3.2, samples=1234, lost=1, tallies=[tally(Stop.END_PROCESS_ENTRY, 1234)])
    assert "3 s  1,234 samples  100.0 % whole  1 lost" == progress_line("recording", progress)
    assert "naming" in progress_line("naming", progress)


def test_a_share_is_never_rounded_up_to_all() -> None:
    (_, *lines) = summary(Progress(Path("out"), samples=9999, tallies=[tally(Stop.END_PROCESS_ENTRY, 9998), tally(Stop.MEM_FAULT, 1)]))
    assert "> 99.9 % of the stacks are whole" in lines[0]
    assert any("< 0.1 %  mem-fault" in line for line in lines)


def test_nothing_is_drawn_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = record.Screen()
    screen.line("5 s")
    screen.clear()
    assert "" == capsys.readouterr().err


@pytest.mark.parametrize("command", ["record", "doctor"])
def test_every_option_is_documented(command: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    section = text.partition(f"## {command}\n")[2].partition("\n## ")[0]
    for action in parser_for(command)._actions:
        for option in action.option_strings:
            if option not in {"-h", "--help"}:
                assert f"`{option}" in section or f" {option}" in section, option


def test_every_check_of_doctor_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [] == [name for name, _, _ in ATTEMPTS if name not in text]
