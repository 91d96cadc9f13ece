"""`unspool doctor`: a line for each check, what mends it, and whether this machine can record."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from unspool.capture.features import Check
from unspool.cli import doctor
from unspool.cli.main import main

GOOD = Check("perf events", works=True, needed=True, found="cpu-clock")
ABSENT = Check("hardware cycles", works=False, needed=False, found="no such event", mend="nothing to do")
MISSING = Check("BPF maps", works=False, needed=True, found="Permission denied\nmore", mend="run it as root")

AS_NOBODY = """
import contextlib, ctypes, io, os, sys
import unspool.cli.main
# Once as who we are: what it imports may lie where nobody cannot read.
with contextlib.redirect_stdout(io.StringIO()):
    unspool.cli.main.main(["doctor"])
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
PR_SET_DUMPABLE = 4
ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)
sys.exit(unspool.cli.main.main(["doctor"]))
"""


def test_lines_say_what_works_and_what_mends_the_rest() -> None:
    assert [
        "ok      perf events      cpu-clock",
        "absent  hardware cycles  no such event",
        "                         -> nothing to do",
        "",
        "This machine can record.",
    ] == list(doctor.lines([GOOD, ABSENT]))
    assert [
        "MISSING BPF maps  Permission denied",
        "                  more",
        "                  -> run it as root",
        "",
        "Recording is impossible here: BPF maps.",
    ] == list(doctor.lines([MISSING]))


@pytest.mark.parametrize(("check", "status"), [(GOOD, 0), (ABSENT, 0), (MISSING, 1)])
def test_the_exit_status_says_whether_recording_is_possible(
    check: Check, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "checks", lambda: iter([check]))
    assert status == main(["doctor", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert status == int(not answer["can_record"])
    assert [{"name": check.name, "works": check.works, "needed": check.needed, "found": check.found, "mend": check.mend or None}] == answer[
        "checks"
    ]


@pytest.mark.live
def test_this_machine_can_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["doctor"])
    assert capsys.readouterr().out.endswith("This machine can record.\n")


@pytest.mark.live
def test_nobody_gets_hints_and_no_traceback() -> None:
    answer = subprocess.run([sys.executable, "-c", AS_NOBODY], check=False, capture_output=True, text=True, timeout=120)
    assert (1, "") == (answer.returncode, answer.stderr)
    assert "-> run it as root" in answer.stdout
    assert "Recording is impossible here" in answer.stdout
