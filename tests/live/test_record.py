"""`unspool record` on programs that the test started: whole stacks, exit statuses, and the ways a recording ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from live.recorded import committed, counters, record, rows, stacks, started
from target_programs import Programs, running

from unspool.store.place import wal_of

pytestmark = pytest.mark.live

CHAIN = ["inner", "middle", "outer", "main"]
FLAGS = ("-O2", "-fomit-frame-pointer", "-g", "-pthread")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.unspool"


def test_a_commands_stacks_are_whole_and_named(programs: Programs, output: Path) -> None:
    program = programs.build("burn.c", *FLAGS)
    done = record("-F", 997, "-o", output, "--", program, 1)
    assert (0, "ready\ndone\n") == (done.returncode, done.stdout)
    assert str(output) in done.stderr
    working = [(stop, names) for stop, names in stacks(output, program.name) if "inner" in names]
    # One second of CPU time, however long that took.
    assert len(working) > 100
    whole = [names for stop, names in working if stop == "end-process-entry"]
    assert len(whole) >= 0.9 * len(working)
    for names in whole:
        at = names.index("inner")
        assert CHAIN == names[at : at + 4]
    sql = f"SELECT DISTINCT p.exe, m.path FROM processes p, modules m WHERE p.comm = '{program.name[:15]}' AND m.path = p.exe"
    assert [(str(program), str(program))] == rows(output, sql)


def test_every_sample_is_accounted_for(programs: Programs, output: Path) -> None:
    record("-F", 997, "-o", output, "--", programs.build("burn.c", *FLAGS), 0.3)
    counted = counters(output)
    lost = sum(value for name, value in counted.items() if name.startswith("lost"))
    assert counted["samples"] == counted["emitted"] + lost
    assert [(counted["emitted"], counted["stored"])] == [(counted["stored"], rows(output, "SELECT count(*) FROM samples")[0][0])]
    assert [(True,)] == rows(output, "SELECT finished FROM recording")


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -TERM $$", 143)])
def test_the_exit_status_is_the_commands(script: str, status: int, output: Path) -> None:
    assert status == record("-o", output, "--", "sh", "-c", script).returncode


def test_the_command_runs_at_its_own_priority(output: Path) -> None:
    """The recorder raises its own, after the command was made."""
    assert f"{os.nice(0)}\n" == record("-o", output, "--", "nice").stdout


def test_a_command_that_cannot_run_leaves_no_file(output: Path) -> None:
    broken = output.with_name("broken")
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    done = record("-o", output, "--", broken)
    assert (126, [broken]) == (done.returncode, list(output.parent.iterdir()))
    assert 127 == record("-o", output, "--", "no-such-command-here").returncode


def test_the_very_first_system_call_is_recorded(output: Path) -> None:
    """The command waits until all is ready: its own execve is the first call that the trigger can see."""
    record("--on", "syscalls:execve,exit_group", "-o", output, "--", "true")
    details = [detail for (detail,) in rows(output, "SELECT detail FROM samples ORDER BY time_ns")]
    assert ("execve", "exit_group") == (details[0], details[-1])


def test_system_calls_have_their_callers(output: Path) -> None:
    record("--on", "syscalls:write", "-o", output, "--", "cat", "/proc/self/stat")
    found = rows(output, "SELECT DISTINCT s.trigger, s.detail FROM samples s")
    assert [("syscalls", "write")] == found
    for stop, names in stacks(output, "cat"):
        assert "end-process-entry" == stop
        assert "write" in names[0]


def test_a_process_is_recorded_until_it_ends(programs: Programs, output: Path) -> None:
    program = programs.build("burn.c", *FLAGS)
    with running(program, "0") as process:
        recorder = started("-F", 499, "-p", process.pid, "-o", output)
        committed(output)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
        _, said = recorder.communicate(timeout=120)
    assert 0 == recorder.returncode, said
    assert [(process.pid,)] == rows(output, "SELECT DISTINCT pid FROM samples JOIN processes USING (process)")
    assert any(CHAIN[2:] == names[names.index("outer") :][:2] for _, names in stacks(output, program.name) if "outer" in names)


def test_one_thread_alone_can_be_recorded(programs: Programs, output: Path) -> None:
    with running(programs.build("burn.c", *FLAGS), "0", "2") as process:
        assert process.stdout is not None
        tids = [int(process.stdout.readline()) for _ in range(2)]
        assert 0 == record("-F", 499, "-t", tids[0], "-d", 2, "-o", output).returncode
    assert [(tids[0], process.pid)] == rows(
        output, "SELECT DISTINCT tid, pid FROM samples JOIN threads USING (thread) JOIN processes p ON p.process = samples.process"
    )


def test_children_are_recorded_with_their_parent(programs: Programs, output: Path) -> None:
    program = programs.build("burn.c", *FLAGS)
    record("-F", 997, "-o", output, "--", "sh", "-c", f"{program} 0.3; {program} 0.3")
    pids = rows(output, f"SELECT DISTINCT pid FROM samples JOIN processes USING (process) WHERE comm = '{program.name[:15]}'")
    assert 2 == len(pids)


def test_ctrl_c_ends_a_recording_and_its_summary_is_said(output: Path) -> None:
    recorder = started("-a", "-o", output)
    committed(output)
    recorder.send_signal(signal.SIGINT)
    _, said = recorder.communicate(timeout=120)
    assert (0, True) == (recorder.returncode, "samples" in said)
    assert [(True,)] == rows(output, "SELECT finished FROM recording")
    assert not wal_of(output).exists()


def test_sigterm_ends_the_command_too(output: Path) -> None:
    recorder = started("-o", output, "--", "sleep", "1000")
    committed(output)
    recorder.send_signal(signal.SIGTERM)
    recorder.communicate(timeout=120)
    assert 128 + signal.SIGTERM == recorder.returncode
    assert [(True,)] == rows(output, "SELECT finished FROM recording")


def test_after_its_time_the_command_is_ended_and_all_is_well(output: Path) -> None:
    assert 0 == record("-d", "300ms", "-o", output, "--", "sleep", "1000").returncode


def test_the_second_ctrl_c_aborts_and_what_was_recorded_can_be_read(output: Path) -> None:
    """The command ignores Ctrl-C, so that the recorder is still there for the second one."""
    recorder = started("-o", output, "--", "sh", "-c", "trap '' INT TERM; while :; do :; done", start_new_session=True)
    try:
        committed(output)
        while recorder.poll() is None:
            recorder.send_signal(signal.SIGINT)
            time.sleep(0.1)
        # A third one may hit Python on its way out.
        assert recorder.returncode in {130, -signal.SIGINT}
    finally:
        os.killpg(recorder.pid, signal.SIGKILL)
        recorder.communicate()
    assert rows(output, "SELECT count(*) FROM samples")[0][0] > 0


def test_an_existing_recording_is_replaced_and_another_file_is_not(output: Path) -> None:
    assert 0 == record("-o", output, "--", "true").returncode
    assert 0 == record("-o", output, "--", "true").returncode
    output.write_text("mine", encoding="utf-8")
    done = record("-o", output, "--", "true")
    assert (1, "mine") == (done.returncode, output.read_text(encoding="utf-8"))
    assert "hint:" in done.stderr


def test_processes_that_are_not_there_are_refused_with_a_hint(output: Path) -> None:
    for flag in ("-p", "-t"):
        done = record(flag, 1 << 23, "-o", output)
        assert (1, True, False) == (done.returncode, "hint:" in done.stderr, output.exists())


def test_nobody_gets_a_hint_and_no_traceback(tmp_path: Path) -> None:
    script = f"""
import os, sys
import unspool.cli.main, unspool.store.writer, duckdb, numpy
sys.argv[1:] = ["record", "-d", "200ms", "-o", "{tmp_path}/warm.unspool", "--", "true"]
assert unspool.cli.main.main() == 0
os.chmod("{tmp_path}", 0o777)
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
sys.argv[1:] = ["record", "-a", "-d", "1", "-o", "{tmp_path}/out.unspool"]
sys.exit(unspool.cli.main.main())
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120)
    assert (1, False) == (done.returncode, "Traceback" in done.stderr)
    assert "hint: Run as root" in done.stderr


def test_under_sudo_the_file_and_the_command_are_the_callers(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    output = tmp_path / "out.unspool"
    done = record("-o", output, "--", "id", "-u", env={**os.environ, "SUDO_UID": "65534", "SUDO_GID": "65534"})
    assert (0, "65534\n") == (done.returncode, done.stdout)
    assert 65534 == output.stat().st_uid
    done = record("-o", output, "--as-root", "--", "id", "-u", env={**os.environ, "SUDO_UID": "65534", "SUDO_GID": "65534"})
    assert "0\n" == done.stdout


def test_times_count_from_the_first_moment_of_sampling(output: Path) -> None:
    """No empty stretch at the front, and no sample behind the end."""
    done = record("-F", 199, "-o", output, "--", sys.executable, "-c", "import time; t = time.time()\nwhile time.time() < t + 1: pass")
    assert done.returncode == 0, done.stderr
    ((first, last, duration),) = rows(
        output, "SELECT min(time_ns - monotonic_ns), max(time_ns - monotonic_ns), any_value(duration_ns) FROM samples, recording"
    )
    assert 0 <= first <= last <= duration
