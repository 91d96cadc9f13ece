"""A command waits for its release, and its end is told as a shell tells it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from unspool.capture.command import Command, CommandFailed, invoking_user, open_process, open_thread, process_of
from unspool.capture.ending import Ending
from unspool.errors import NoSuchTarget

GHOST = 1 << 23
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@contextmanager
def released(*arguments: str) -> Iterator[Command]:
    with closing(Command(arguments)) as command:
        command.release()
        try:
            yield command
        finally:
            command.send(signal.SIGKILL)
            command.wait()


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15)])
def test_the_exit_status_is_the_shells(script: str, status: int) -> None:
    with released("sh", "-c", script) as command:
        assert status == command.wait() == command.poll()


def test_nothing_runs_before_the_release(tmp_path: Path) -> None:
    with closing(Command(["touch", str(tmp_path / "ran")])) as command:
        assert command.poll() is None
    assert [] == list(tmp_path.iterdir())


def test_a_command_that_ended_before_its_release_has_its_status() -> None:
    """The terminal gives Ctrl-C to the waiting command too."""
    with closing(Command(["true"])) as command:
        signal.pidfd_send_signal(command.pidfd, signal.SIGKILL)
        assert 128 + signal.SIGKILL == command.wait()
        command.release()
        assert 128 + signal.SIGKILL == command.poll()


def test_a_command_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(CommandFailed) as caught:
        Command(["no-such-command-here"])
    assert 127 == caught.value.exit_status


def test_what_is_there_but_no_program_is_said_as_a_shell_says_it(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.touch(mode=0o644)
    for path, why in ((text, "Permission denied"), (tmp_path, "Is a directory")):
        with pytest.raises(CommandFailed, match=why) as caught:
            Command([str(path)])
        assert 126 == caught.value.exit_status
    with pytest.raises(CommandFailed) as caught:
        Command([str(tmp_path / "none")])
    assert 127 == caught.value.exit_status


def test_a_file_that_is_no_program_is_said_at_the_release(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    with closing(Command([str(broken)])) as command, pytest.raises(CommandFailed) as caught:
        command.release()
    assert 126 == caught.value.exit_status


def test_sudo_is_known_by_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for value in ("", "0", "x", str(2**32 - 5)):
        monkeypatch.setenv("SUDO_UID", value)
        assert invoking_user() is None
    monkeypatch.setenv("SUDO_UID", "65534")
    user = invoking_user()
    assert user is not None
    assert (65534, "nobody") == (user.uid, user.name)


@pytest.mark.live
def test_under_sudo_the_command_runs_as_who_called_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SUDO_UID", "65534")
    answer = tmp_path / "answer"
    answer.touch()
    descriptor = os.open(answer, os.O_WRONLY)
    os.set_inheritable(descriptor, True)  # noqa: FBT003 (its own)
    with closing(Command(["bash", "-c", f"(id -u; echo $HOME $USER) >&{descriptor}"], user=invoking_user())) as command:
        command.release()
        assert 0 == command.wait()
    os.close(descriptor)
    assert ["65534", "/nonexistent nobody"] == answer.read_text(encoding="utf-8").splitlines()


def test_ids_of_nothing_are_refused() -> None:
    for opened in (open_process, open_thread):
        with pytest.raises(NoSuchTarget):
            opened(GHOST)
    assert 0 == process_of(GHOST)


def test_a_thread_is_found_with_its_process() -> None:
    assert os.getpid() == process_of(threading.get_native_id())
    os.close(open_thread(threading.get_native_id()))


def test_a_recording_ends_with_its_command() -> None:
    with released("true") as command, Ending(command=command) as ending:
        ending.start()
        while not ending.wait(30):
            pass
        assert "command" == ending.why


def test_a_recording_ends_with_the_last_of_its_processes() -> None:
    children = [subprocess.Popen(["cat"], stdin=subprocess.PIPE) for _ in range(2)]
    with Ending(processes=[open_process(child.pid) for child in children]) as ending:
        ending.start()
        assert not ending.wait(0)
        for child in children:
            assert child.stdin is not None
            assert not ending.why
            child.stdin.close()
            child.wait(60)
        while not ending.wait(30):
            pass
        assert "processes" == ending.why


def test_a_recording_ends_after_its_time() -> None:
    with Ending(seconds=0.01) as ending:
        ending.start()
        while not ending.wait(30):
            pass
        assert "time" == ending.why


def test_the_first_signal_ends_the_second_aborts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Ending() as ending:
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.wait(30)
        assert ("interrupted", signal.SIGTERM) == (ending.why, ending.signal)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert before == signal.getsignal(signal.SIGTERM)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """Under nohup a closed terminal must not end the recording."""
    script = (
        "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom unspool.capture.ending import Ending\n"
        "with Ending() as ending:\n signal.raise_signal(signal.SIGHUP)\n print(ending.why)"
    )
    assert "None\n" == subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60).stdout
