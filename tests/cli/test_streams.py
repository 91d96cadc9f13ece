"""Standard streams that are full, closed, or read by nobody: an exit status and a sentence, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from store.recordings import small

from unspool.cli.output import say
from unspool.cli.record import Screen

UNSPOOL = f"""{sys.executable} -c 'import sys; from unspool.cli.main import main; sys.exit(main())'"""
FULL = "the output cannot be written: No space left on device"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return small(tmp_path / "a.unspool")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `unspool` stands for the program."""
    function = f'unspool() {{ {UNSPOOL} "$@"; }}; '
    return subprocess.run(["bash", "-c", function + line], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "command", ["--help", "report {}", "report {} --json", "query {} 'SELECT 1'", "export {} --format folded -o -", "completions bash"]
)
def test_a_full_disk_behind_stdout_is_said(command: str, recording: Path) -> None:
    done = shell(f"unspool {command.format(recording)} >/dev/full")
    assert (74, f"unspool: {FULL}\n") == (done.returncode, done.stderr)


def test_a_full_device_is_said_with_its_name(recording: Path) -> None:
    done = shell(f"unspool export {recording} --format folded -o /dev/full")
    assert (1, True) == (done.returncode, "/dev/full cannot be written: No space left" in done.stderr)


@pytest.mark.parametrize("command", ["--version", "report {}", "report --help", "export {} --format folded -o -"])
def test_a_reader_that_went_away_is_no_error_to_talk_about(command: str, recording: Path) -> None:
    done = shell(f"unspool {command.format(recording)} | true")
    assert "" == done.stderr


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording goes on to its end, with names, when the connection to the machine breaks."""
    terminal, ours = os.openpty()
    with os.fdopen(ours, "w", encoding="utf-8") as lost:
        monkeypatch.setattr(sys, "stderr", lost)
        screen = Screen()
        os.close(terminal)
        for _ in range(2):
            screen.line("5 s")
            screen.clear()
            say("host.unspool: 5 samples")
        assert screen.live


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_missed_by_nobody(closed: str, recording: Path) -> None:
    """What is opened next would get their numbers: here the file that is written."""
    target = recording.with_name("out.folded")
    done = shell(f"unspool export {recording} -o {target} {closed} && unspool report {recording} {closed}")
    assert (0, "") == (done.returncode, done.stderr)
    assert all(line.rpartition(" ")[2].isdecimal() for line in target.read_text(encoding="utf-8").splitlines())
