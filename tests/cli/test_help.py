"""Every example of every command's help runs as it is written, in a folder with the files that it names.

Only what cannot be written into a help text is put in its place: process ids, the collector's address, and an end for what would go on
until Ctrl-C.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from collectors import collector
from store import recordings
from target_programs import Programs

from unspool.cli.main import COMMANDS, load, main

PATIENCE = 180

LIVE = {"record", "top", "stack", "live", "doctor", "guest"}
"""Commands that look into processes, or into the machine."""

STATUSES = {
    # The answer to the question: no, yes, cannot be known.
    "live": {0, 1, 2},
    # A file with more missing than allowed.
    "unspool audit --max-missing": {0, 1},
    # A virtual machine that is not there: no test may look into those that happen to run here.
    "unspool guest gdb": {1},
    "unspool record --guest": {1},
    "unspool stack --guest": {1},
    "unspool top --guest": {1},
    "unspool top -a --guest": {1},
    "unspool push --otlp http://localhost:4318 --guest": {1},
}
"""The exit statuses that a command, or an example that begins so, may have; else 0."""

ENDLESS = ("unspool serve", "unspool record --live")
"""They go on until Ctrl-C: it is pressed when they have printed their address."""

STUBS = {
    "unspool": f"""exec {shlex.quote(sys.executable)} -c 'import sys; from unspool.cli.main import main; sys.exit(main())' "$@" """,
    "perf": "cat perf.txt",
    "make": "exec cat /dev/null",
    "patch": "exit 0",
    "jq": f"""exec {shlex.quote(sys.executable)} -c 'import json, sys; json.load(sys.stdin)[sys.argv[1][1:]]' "$@" """,
}
"""Programs beside ours that examples call."""


def examples(command: str) -> Iterator[str]:
    """The command lines among a command's examples: each begins with two spaces, and two spaces end it."""
    text = getattr(load(command), "EXAMPLES", "").partition("\n\nformats:")[0]
    # A string in quotes may go on in the next line.
    for line in re.findall(r'^  ((?:[^"\n]|"[^"]*")+)$', text, re.MULTILINE):
        if "unspool " in line:
            yield re.split(r'  +(?=(?:[^"]*"[^"]*")*[^"]*$)', line)[0].strip()


def marked() -> Iterator[object]:
    for command in COMMANDS:
        for line in examples(command):
            is_live = command in LIVE or (command == "push" and re.search(r" -[ap]\b", line))
            yield pytest.param(command, line, marks=[pytest.mark.live] if is_live else [], id=line[:60])


TWO_THREADS = """
import sys, threading
other = threading.Thread(target=sys.stdin.read)
other.start()
print("ready", flush=True)
other.join()
"""
"""A program that does nothing: examples of commands that sample it share the machine with nobody."""


@dataclass
class Stage:
    """The folder in which examples run, and what stands for what they name."""

    folder: Path
    pids: tuple[int, int]
    tid: int
    url: str

    def of(self, command: str) -> Path:
        """A copy of the folder for a command's examples, where one may need what the one before it has made."""
        copy = self.folder.with_name(f"{self.folder.name}-{command}")
        if not copy.exists():
            shutil.copytree(self.folder, copy)
        return copy

    def real(self, line: str) -> str:
        """The example with this machine's processes, and an end."""
        line = line.replace("-t 1240", f"-t {self.tid}").replace("1234", str(self.pids[0])).replace("1240", str(self.pids[1]))
        line = re.sub(r"https?://(localhost:4318|otlp\.example\.com)", self.url, line)
        line = re.sub(r" -d \S+", " -d 1", line).replace("--json FILE", "--json /bin/true").replace("--port 8080", "--port 0")
        if line.startswith(("unspool record", "unspool stack", "unspool top", "unspool push")):
            line = re.sub(r"--guest \S+", "--guest no-such-machine", line)
        if " -d " not in line and not line.startswith(ENDLESS):
            line = re.sub(r"\bunspool (record -a|push .* -a|top)\b", r"unspool \1 -d 1", line)
        return line


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[Stage]:
    """The folder with the files, two processes, and a collector."""
    folder = tmp_path_factory.mktemp("examples")
    files(folder, programs)
    idle = [sys.executable, "-c", TWO_THREADS]
    with collector() as there, programs.running(*idle) as first, programs.running(*idle) as second:
        [tid] = {int(entry.name) for entry in Path(f"/proc/{first.pid}/task").iterdir()} - {first.pid}
        yield Stage(folder, (first.pid, second.pid), tid, there.url)


def files(folder: Path, programs: Programs) -> None:
    """What the examples name."""
    for name in ("host", "before", "guests"):
        recordings.guests(folder / f"{name}.unspool")
    recordings.small(folder / "after.unspool")
    for name in ("profile.pb.gz", "stacks.folded", "perf.linux-perf.txt"):
        assert 0 == main(["export", str(folder / "host.unspool"), "-o", str(folder / name)])
    (folder / "perf.linux-perf.txt").rename(folder / "perf.txt")
    burn = programs.build("burn.c", "-O1", "-g")
    (folder / "build").mkdir()
    for name in ("prog", "libfoo.so", "build/libparser.so"):
        assert 0 == main(["sframe", "make", str(burn), "-o", str(folder / name)])
    (folder / "bin").mkdir()
    (folder / "server").write_text("#!/bin/sh\nexec cat /dev/null\n", encoding="ascii")
    for name, body in STUBS.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    for program in (folder / "server", *(folder / "bin").iterdir()):
        program.chmod(0o755)


@pytest.fixture(scope="module")
def core(stage: Stage) -> Path:
    """A core dump, where the examples look for it."""
    folder = stage.of("stack")
    command = ["gcore", "-o", str(folder / "gcore"), str(stage.pids[1])]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    return (folder / f"gcore.{stage.pids[1]}").rename(folder / "core")


@pytest.mark.parametrize(("command", "line"), list(marked()))
def test_the_example_runs(command: str, line: str, stage: Stage, request: pytest.FixtureRequest) -> None:
    if "./core" in line:
        request.getfixturevalue("core")
    with shell(stage, command, line) as process:
        # An example that stands still ends by this, and then says what it had said.
        alarm = threading.Timer(PATIENCE, stop, [process])
        alarm.start()
        try:
            status, said, failed = interrupted(process) if line.startswith(ENDLESS) else finished(process)
        finally:
            alarm.cancel()
            stop(process)
    assert "Traceback" not in failed, failed
    allowed = next((known for begin, known in STATUSES.items() if line.startswith(begin)), STATUSES.get(command, {0}))
    if "no-such-machine" in stage.real(line):
        assert "'no-such-machine' is no machine of this host" in failed
    assert status in allowed, f"{stage.real(line)}\n{said}\n{failed}"


def shell(stage: Stage, command: str, line: str) -> subprocess.Popen[str]:
    """The example in a shell of its own."""
    env = {**os.environ, "PATH": f"{stage.folder / 'bin'}:{os.environ['PATH']}", "BROWSER": "true", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    return subprocess.Popen(
        ["bash", "-c", f"set -o pipefail; {stage.real(line)}"],
        cwd=stage.of(command),
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """An example that ends by itself."""
    said, failed = process.communicate(timeout=PATIENCE)
    return process.returncode, said, failed


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """An example that goes on until Ctrl-C, which is pressed when it has printed an address."""
    assert process.stdout is not None
    first = process.stdout.readline()
    assert "http" in first, process.communicate(timeout=PATIENCE)[1]
    os.killpg(process.pid, signal.SIGINT)
    said, failed = process.communicate(timeout=PATIENCE)
    return process.returncode, first + said, failed


def stop(process: subprocess.Popen[str]) -> None:
    """Kill what is left of it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def test_every_command_has_an_example_that_is_run() -> None:
    assert set() == {command for command in COMMANDS if not list(examples(command))}


def test_examples_are_cut_where_their_words_begin() -> None:
    found = [line for command in COMMANDS for line in examples(command)]
    assert "unspool report host.unspool --ending cut" in found
    assert 'unspool query host.unspool "SELECT * FROM counters" --json' in found
    assert all(line.count('"') % 2 == 0 for line in found)


def test_help_of_a_command_can_be_asked_for_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["help", "report"])
    assert "usage: unspool report" in capsys.readouterr().out
    assert 2 == main(["help", "nonsense"])
    assert "there is no command 'nonsense'" in capsys.readouterr().err
    assert 0 == main(["help"])


LARGE = {"numpy", "duckdb", "symbolic", "google.protobuf", "starlette", "uvicorn", "textual", "rich", "unspool.capture.guest_runner"}
"""What takes long to load: the functions that need it import it."""


def test_help_loads_nothing_large() -> None:
    code = f"import sys; from unspool.cli.main import parser_for; [parser_for(name) for name in {list(COMMANDS)}]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=PATIENCE)
    assert set() == LARGE & set(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_printed_and_fits_a_terminal(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert 0 == left.value.code
    shown = capsys.readouterr().out
    assert f"usage: unspool {command}" in shown
    assert [] == [line for line in shown.splitlines() if len(line) > 140]
