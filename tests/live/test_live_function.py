"""`unspool live` on real processes: on a stack or not, inlined or not, known or not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from target_programs import Programs, running, wait_asleep

from unspool.cli.main import main
from unspool.session.live import Answer, Outcome, Question, is_live
from unspool.session.walking import Method
from unspool.targets import procfs

pytestmark = pytest.mark.live

METHODS = pytest.mark.parametrize("method", ["native", "python"])


@pytest.fixture
def waiting(programs: Programs) -> Iterator[subprocess.Popen[bytes]]:
    """The program in its function `waiting`, with debug information."""
    with running(programs.build("live.c", "-O2", "-g")) as process:
        settle(process)
        yield process


def settle(process: subprocess.Popen[bytes]) -> None:
    """Wait until every thread of the program sleeps."""
    for tid in procfs.thread_ids(process.pid):
        wait_asleep(process.pid, tid)


def reasons(answer: Answer) -> set[str]:
    return {doubt.reason for doubt in answer.doubts}


@METHODS
def test_a_function_on_a_stack_is_live_with_its_thread(waiting: subprocess.Popen[bytes], method: Method) -> None:
    answer = is_live(waiting.pid, Question("main"), method=method)
    assert Outcome.LIVE is answer.outcome
    assert [(waiting.pid, "main", False)] == [(one.tid, one.function, one.inlined) for one in answer.sightings]
    assert 2 == answer.threads


@METHODS
def test_a_function_on_no_stack_is_safe(waiting: subprocess.Popen[bytes], method: Method) -> None:
    answer = is_live(waiting.pid, Question("never_called"), method=method)
    assert (Outcome.SAFE, (), ()) == (answer.outcome, answer.sightings, answer.doubts)
    assert answer.definitions[0].shows_inlined


def test_an_inlined_copy_is_live(waiting: subprocess.Popen[bytes]) -> None:
    answer = is_live(waiting.pid, Question("inlined_everywhere"))
    assert Outcome.LIVE is answer.outcome
    assert [True] == [one.inlined for one in answer.sightings]


def test_another_name_of_the_same_code_is_live(waiting: subprocess.Popen[bytes]) -> None:
    for name in ("waiting", "other_name"):
        assert Outcome.LIVE is is_live(waiting.pid, Question(name)).outcome


def test_only_the_module_that_was_asked_for_counts(waiting: subprocess.Popen[bytes]) -> None:
    program = Path(f"/proc/{waiting.pid}/exe").readlink()
    for module in (str(program), program.name):
        assert Outcome.LIVE is is_live(waiting.pid, Question("main", module)).outcome
    answer = is_live(waiting.pid, Question("main", "libc.so.6"))
    assert (Outcome.UNKNOWN, {"no-such-function"}) == (answer.outcome, reasons(answer))


def test_a_function_that_no_module_has_is_not_called_safe(waiting: subprocess.Popen[bytes]) -> None:
    answer = is_live(waiting.pid, Question("no_such_function_anywhere"), wait=600)
    assert (Outcome.UNKNOWN, {"no-such-function"}) == (answer.outcome, reasons(answer))


def test_without_debug_information_inlined_copies_are_a_doubt_unless_the_user_knows_better(programs: Programs) -> None:
    with running(programs.build("live.c", "-O2")) as process:
        settle(process)
        answer = is_live(process.pid, Question("never_called"))
        assert (Outcome.UNKNOWN, {"inlining-unknown"}) == (answer.outcome, reasons(answer))
        assert Outcome.SAFE is is_live(process.pid, Question("never_called", inlined=False)).outcome


@METHODS
def test_a_stack_that_is_cut_leaves_the_answer_open(programs: Programs, method: Method) -> None:
    with running(programs.build("live.c", "-O2", "-g"), "bare") as process:
        settle(process)
        # main is below the code without unwind data, so nobody can see it; `waiting` is above.
        answer = is_live(process.pid, Question("main", inlined=False), method=method)
        assert (Outcome.UNKNOWN, {"no-unwind-info"}) == (answer.outcome, reasons(answer))
        assert Outcome.LIVE is is_live(process.pid, Question("waiting"), method=method).outcome


def test_waiting_ends_as_soon_as_the_function_was_left(waiting: subprocess.Popen[bytes]) -> None:
    call = "import sys; from unspool.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", call, "live", "waiting", "-p", str(waiting.pid), "--wait", "300", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        assert waiting.stdin is not None
        waiting.stdin.close()
        output, _ = asking.communicate(timeout=300)
    assert ("safe", 0) == (json.loads(output)["answer"], asking.returncode)


def test_the_exit_status_and_the_words_say_the_same(waiting: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]) -> None:
    pid = str(waiting.pid)
    assert 1 == main(["live", "main", "-p", pid])
    assert f"main is live in process {pid}:" in capsys.readouterr().out
    assert 0 == main(["live", "never_called", "-p", pid])
    assert "never_called is on none of the 2 stacks" in capsys.readouterr().out
    assert 2 == main(["live", "nothing", "-p", pid])
    assert "No function nothing was found" in capsys.readouterr().out


def test_a_process_that_is_not_there_cannot_be_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["live", "main", "-p", str(2**22 + 1), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert ("unknown", "error") == (answer["answer"], answer["reasons"][0]["reason"])


def test_a_method_of_a_class_is_found_by_either_name(programs: Programs) -> None:
    with running(programs.build("recursion.cc", "-O2", "-g"), "50") as process:
        settle(process)
        for name in ("tree::Right::visit", "_ZN4tree5Right5visitEiRKSt8functionIFliEE", "tree::catching"):
            assert Outcome.LIVE is is_live(process.pid, Question(name)).outcome
