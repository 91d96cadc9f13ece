"""Core dumps of real processes: their stacks are those that the process had, and those that gdb and eu-stack see in the dump."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest
from peer_stacks import GDB_SCRIPT, TIMEOUT
from stack_targets import TARGETS, Target, asleep
from target_programs import Programs, running

from unspool.cli.main import main
from unspool.formats.elf import Elf
from unspool.formats.proc_maps import parse_maps
from unspool.model.verdict import Verdict
from unspool.session.core_stacks import stacks_of_core
from unspool.session.stacks import ProcessStacks, stacks_of
from unspool.session.walking import Walking
from unspool.targets.coredump import CoreDump
from unspool.targets.process import Process

pytestmark = pytest.mark.live

NOT_ON_THIS_MACHINE = {TARGETS["mount namespace"]}
"""Its program is only in its own mount namespace, and so out of reach once the process is gone."""
LOST_ON_GDB = {TARGETS[name] for name in ("deleted", "replaced", "memfd", "no section headers", "signals, static")}
"""gdb 13 needs the program's file with its sections; it cuts these."""
LOST_ON_EU_STACK = {TARGETS[name] for name in ("deleted", "replaced", "memfd", "no section headers")}
"""So does elfutils 0.188 for a dump."""


def gcore(pid: int, folder: Path) -> Path:
    """A dump of a running process by gdb."""
    subprocess.run(["gcore", "-o", folder / "core", str(pid)], check=True, capture_output=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    return folder / f"core.{pid}"


def addresses(stacks: ProcessStacks) -> dict[int, list[int]]:
    return {thread.tid: [frame.ip for frame in thread.stack.frames] for thread in stacks.threads}


def gdb_stacks(program: Path, core: Path) -> dict[int, list[int]]:
    command = [
        "gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load off",
        "-ex", "set backtrace past-main on", "-ex", "set backtrace past-entry on", "-ex", "set backtrace limit unlimited",
        str(program), str(core), "-ex", f"python exec({GDB_SCRIPT!r})",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("THREAD ")]
    return {int(words[1]): [int(word, 16) for word in words[2:]] for words in lines}


def eu_stacks(program: Path, core: Path) -> dict[int, list[int]]:
    command = ["eu-stack", "-n", "0", "-q", f"--core={core}", "-e", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    stacks: dict[int, list[int]] = {}
    frames: list[int] = []
    for line in done.stdout.splitlines():
        if found := re.match(r"TID (\d+):", line):
            frames = stacks[int(found[1])] = []
        elif found := re.match(r"#\d+ +0x([0-9a-f]+)", line):
            frames.append(int(found[1], 16))
    return stacks


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_stacks_are_those_of_the_process_and_of_the_peers(target: Target, programs: Programs, tmp_path: Path) -> None:
    with target(programs, tmp_path) as process:
        path = gcore(process.pid, tmp_path)
        program = Path(f"/proc/{process.pid}/exe").resolve()
        living = addresses(stacks_of(process.pid, named=False))
    native, reference = (stacks_of_core(path, Walking(method), named=False) for method in ("native", "python"))
    assert addresses(native) == addresses(reference)
    if target in NOT_ON_THIS_MACHINE:
        # What the dump does not hold and no file gives is not made up.
        for tid, frames in addresses(native).items():
            assert living[tid][: len(frames)] == frames
        assert all(not thread.stack.stop.is_end for thread in native.threads)
        return
    assert living == addresses(native)
    for thread in (*native.threads, *reference.threads):
        assert thread.stack.stop.is_end
        assert Verdict.RELIABLE is thread.stack.judgement.verdict, thread.stack.judgement
    if target not in LOST_ON_GDB:
        assert gdb_stacks(program, path) == living
    if target not in LOST_ON_EU_STACK:
        assert eu_stacks(program, path) == living


def test_mappings_ends_and_memory_are_those_of_the_process(programs: Programs, tmp_path: Path) -> None:
    with running(programs.build("threads.c", "-O2"), "2") as process:
        path = gcore(process.pid, tmp_path)
        living = Process(process.pid).refresh()
        space = parse_maps(Path(f"/proc/{process.pid}/maps").read_bytes())
        with CoreDump(path) as core:
            assert (process.pid, False) == (core.pid, core.truncated)
            assert core.name.startswith(living.name)
            assert living.ends == core.ends
            for mapping in space:
                if mapping.executable and mapping.path != "[vsyscall]":
                    found = core.space.find(mapping.start)
                    assert found is not None
                    expected = (mapping.end, mapping.path, mapping.offset, mapping.readable, mapping.writable, mapping.executable)
                    assert expected == (found.end, found.path, found.offset, found.readable, found.writable, found.executable)
                    size = mapping.end - mapping.start
                    assert living.memory.read(mapping.start, size) == core.memory.read(mapping.start, size)


def test_a_mapped_file_is_known_by_its_build_id(programs: Programs, tmp_path: Path) -> None:
    program = programs.build("threads.c", "-O2")
    with running(program, "2") as process:
        path = gcore(process.pid, tmp_path)
    with CoreDump(path) as core:
        assert Elf(program.read_bytes()).build_id == core.files[str(program)].build_id
        assert "" == core.files[str(program)].missing
    # Below another root there are no files, and nothing is taken from this machine instead.
    with CoreDump(path, sysroot=tmp_path) as core:
        assert "it is not on this machine" == core.files[str(program)].missing


def test_another_build_at_the_path_gives_no_memory(programs: Programs, tmp_path: Path) -> None:
    root = tmp_path / "root"
    program = programs.build("threads.c", "-O2")
    place = root / str(program).lstrip("/")
    place.parent.mkdir(parents=True)
    place.write_bytes(programs.build("threads.c", "-O1").read_bytes())
    with running(program, "2") as process:
        path = gcore(process.pid, tmp_path)
    with CoreDump(path, sysroot=root) as core:
        file = core.files[str(program)]
        assert ("another build is at its path", None) == (file.missing, file.data)


@pytest.fixture
def dumps_here() -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii").strip()
    if "/" in pattern or "|" in pattern:
        pytest.skip(f"the kernel's dumps go elsewhere: {pattern}")


def dumped_by_the_kernel(program: Path, folder: Path) -> Path:
    """The dump of `threads.c` with three threads, ended by SIGABRT."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        with running(program, "3", cwd=folder) as process:
            asleep(process).send_signal(signal.SIGABRT)
            process.wait(60)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    path = next(folder.glob("core*"), None)
    if path is None:
        pytest.skip("the kernel wrote no dump (ulimit -c)")
    return path


@pytest.mark.usefixtures("dumps_here")
@pytest.mark.parametrize("flags", [("-O2",), ("-O2", "-static")], ids=" ".join)
def test_a_dump_by_the_kernel_is_read(flags: tuple[str, ...], programs: Programs, tmp_path: Path) -> None:
    """The crashing thread is first, with the signal that ended it; the stacks are gdb's."""
    program = programs.build("threads.c", *flags)
    path = dumped_by_the_kernel(program, tmp_path)
    with CoreDump(path) as core:
        assert (signal.SIGABRT, 4) == (core.threads[0].signal, len(core.threads))
    stacks = stacks_of_core(path)
    assert gdb_stacks(program, path) == addresses(stacks)
    assert all(thread.stack.judgement.verdict is Verdict.RELIABLE for thread in stacks.threads)
    functions = [[call.function for frame in thread.frames for call in frame.calls() if call] for thread in stacks.threads]
    assert all(("worker" in names) != ("main" in names) for names in functions)


def test_the_command_takes_a_dump(programs: Programs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(programs.build("threads.c", "-O2"), "2") as process:
        path = gcore(asleep(process).pid, tmp_path)
    assert 0 == main(["stack", str(path), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert process.pid == answer["pid"]
    assert [True] * 3 == [thread["whole"] for thread in answer["threads"]]
    assert 2 == sum("worker" in [frame["function"] for frame in thread["frames"]] for thread in answer["threads"])


@pytest.mark.usefixtures("dumps_here")
def test_a_dump_that_was_cut_is_marked_and_read(programs: Programs, tmp_path: Path) -> None:
    """The kernel writes the notes first: what of the memory is there is used, and every thread keeps at least its registers."""
    path = dumped_by_the_kernel(programs.build("threads.c", "-O2"), tmp_path)
    whole = path.stat().st_size
    for share in (2, 8):
        os.truncate(path, whole // share)
        with CoreDump(path) as core:
            assert core.truncated
        stacks = stacks_of_core(path)
        assert 4 == len(stacks.threads)
        assert all(thread.stack.frames for thread in stacks.threads)


def test_a_dump_without_its_notes_is_refused(programs: Programs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Gdb writes the notes last."""
    with running(programs.build("threads.c", "-O2"), "2") as process:
        path = gcore(process.pid, tmp_path)
    os.truncate(path, path.stat().st_size // 2)
    assert 0 != main(["stack", str(path)])
    assert "not there" in capsys.readouterr().err
