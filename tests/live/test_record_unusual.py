"""Programs whose code is in no ordinary file: made at run time, deleted, in another root, without a name."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from live.recorded import PROGRAM, record, rows, stacks
from target_programs import Programs

pytestmark = pytest.mark.live

FLAGS = ("-O2", "-fomit-frame-pointer", "-g", "-pthread")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.unspool"


def test_code_made_at_run_time_is_named_by_its_map(programs: Programs, output: Path) -> None:
    """The program deletes its map before it ends: it was opened when the first sample came."""
    program = programs.build("jit.c", "-O2")
    assert 0 == record("-F", 997, "-o", output, "--", program, 2).returncode
    found = [names[0] for _, names in stacks(output, program.name) if names]
    assert found.count("made_at_run_time") > 20
    [(kind,)] = rows(output, "SELECT DISTINCT kind FROM modules WHERE path LIKE '/tmp/perf-%.map'")
    assert "jit" == kind


def test_a_program_that_is_deleted_while_it_runs_has_names(programs: Programs, output: Path, tmp_path: Path) -> None:
    program = tmp_path / "fleeting"
    shutil.copy(programs.build("burn.c", *FLAGS), program)
    script = f"{program} 1 & sleep 0.3; rm {program}; wait"
    assert 0 == record("-F", 997, "-o", output, "--", "sh", "-c", script).returncode
    working = [names for stop, names in stacks(output, program.name) if stop == "end-process-entry" and "inner" in names]
    assert len(working) > 50
    assert all("main" in names for names in working)


def test_a_program_in_another_root_has_names(programs: Programs, output: Path, tmp_path: Path) -> None:
    """As in a container: the path that the kernel tells is one of the process's root, and means nothing in ours."""
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(programs.build("burn.c", *FLAGS, "-static"), root / "inside")
    chroot = shutil.which("chroot", path=os.environ["PATH"] + ":/usr/sbin")
    assert chroot
    assert 0 == record("-F", 997, "-o", output, "--", chroot, root, "/inside", 1).returncode
    working = [names for stop, names in stacks(output, "inside") if stop == "end-process-entry" and "inner" in names]
    assert len(working) > 50
    assert [("/inside",)] == rows(output, "SELECT DISTINCT exe FROM processes WHERE comm = 'inside'")


def test_a_program_that_takes_another_group_has_names(programs: Programs, output: Path, tmp_path: Path) -> None:
    """As sudo does: the kernel reports the end of a process that executes a set-user-ID or set-group-ID program, and it goes on."""
    program = tmp_path / "privileged"
    shutil.copy(programs.build("burn.c", *FLAGS), program)
    os.chown(program, -1, 65534)
    program.chmod(0o2755)
    assert 0 == record("-F", 997, "-o", output, "--", program, 1).returncode
    working = [names for stop, names in stacks(output, program.name) if stop == "end-process-entry" and "inner" in names]
    assert len(working) > 50
    assert all("main" in names for names in working)
    assert [(str(program),)] == rows(output, "SELECT DISTINCT exe FROM processes WHERE comm = 'privileged'")


def test_a_name_that_would_move_the_cursor_is_shown_escaped(programs: Programs, output: Path, tmp_path: Path) -> None:
    program = tmp_path / "a\x1b[31m\nb"
    shutil.copy(programs.build("burn.c", *FLAGS), program)
    done = record("-F", 499, "-o", output, "--", program, 0.2)
    assert (0, False) == (done.returncode, "\x1b" in done.stderr)
    assert rows(output, "SELECT count(*) FROM samples")[0][0] > 0


def test_the_line_of_progress_is_drawn_on_a_terminal_only(output: Path) -> None:
    script = shutil.which("script")
    if script is None:
        pytest.skip("script(1) is not installed")
    command = " ".join([PROGRAM[0], "-c", f"'{PROGRAM[2]}'", "record", "-a", "-d", "2500ms", "-o", str(output)])
    done = subprocess.run([script, "-qec", command, "/dev/null"], check=True, capture_output=True, timeout=180, stdin=subprocess.DEVNULL)
    assert b"\r\x1b[K" in done.stdout
    assert b"whole" in done.stdout
