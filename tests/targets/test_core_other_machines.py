"""Dumps of AArch64 and s390x programs, written by qemu's user emulation, and completed with what the kernel would have written."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import struct
from pathlib import Path

import pytest
from stack_targets import asleep
from target_programs import Programs, running

from unspool.formats.core_notes import CoreNote
from unspool.formats.elf import Elf, Segment, SegmentType
from unspool.model.verdict import Stop
from unspool.session.core_stacks import stacks_of_core
from unspool.targets.coredump import CoreDump

pytestmark = pytest.mark.live

MACHINES = ["aarch64", "s390x"]
DEPTH = 12


def dumped_by_qemu(program: Path, machine: str, folder: Path) -> Path:
    """Qemu writes the guest's dump into the current folder when a signal ends the guest."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        with running(f"/usr/bin/qemu-{machine}", str(program), str(DEPTH), cwd=folder) as process:
            asleep(process).send_signal(signal.SIGABRT)
            process.wait(120)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    found = next(folder.glob("qemu_*.core"), None)
    if found is None:
        pytest.skip("qemu wrote no dump (ulimit -c)")
    return found


def completed(dump: Path, program: Path) -> Path:
    """The dump with NT_FILE and the first page of the program, as the kernel dumps them; qemu leaves both out."""
    data, core, elf = bytearray(dump.read_bytes()), Elf(dump.read_bytes()), Elf(program.read_bytes())
    order = "<" if core.layout.byte_order == "little" else ">"
    [code] = [segment for segment in elf.loads if segment.executable]
    path = os.fsencode(program)
    files = struct.pack(order + "5Q", 1, 4096, code.address, code.address + (code.file_size + 4095) // 4096 * 4096, code.offset // 4096)
    files += path + b"\0"
    for index, segment in enumerate(core.segments):
        if segment.type == SegmentType.NOTE:
            notes = data[segment.offset : segment.offset + segment.file_size]
            notes += struct.pack(order + "III", 5, len(files), CoreNote.FILE) + b"CORE\0\0\0\0" + files + bytes(-len(files) % 4)
            move(data, core, index, bytes(notes))
        elif segment.type == SegmentType.LOAD and segment.address == code.address:
            move(data, core, index, program.read_bytes()[code.offset : code.offset + 4096])
    target = dump.with_suffix(".completed")
    target.write_bytes(bytes(data))
    return target


def move(data: bytearray, core: Elf, index: int, contents: bytes) -> None:
    """Let a segment have other contents, which are put at the end of the file."""
    old: Segment = core.segments[index]
    data += bytes(-len(data) % 4096)
    row = core.layout.segment.pack(old.type, old.flags, len(data), old.address, 0, len(contents), old.memory_size, old.align)
    place = core.header.segments_at + index * core.header.segment_size
    data[place : place + len(row)] = row
    data += contents


@pytest.fixture(params=MACHINES)
def dump(request: pytest.FixtureRequest, programs: Programs, tmp_path: Path) -> tuple[Path, Path]:
    """A program, and its dump, completed."""
    compiler = f"{request.param}-linux-gnu-gcc"
    if shutil.which(compiler) is None or shutil.which(f"qemu-{request.param}") is None:
        pytest.skip(f"no {compiler} or no qemu-{request.param} here")
    program = programs.build("deep.c", "-O2", "-fno-optimize-sibling-calls", "-g", "-static", "-Wl,--build-id", compiler=compiler)
    return program, completed(dumped_by_qemu(program, request.param, tmp_path), program)


def test_the_recursion_is_found_frame_by_frame(dump: tuple[Path, Path]) -> None:
    """Every call from `main` down, and on to the end of the stack."""
    program, path = dump
    with CoreDump(path) as core:
        assert "" == core.files[str(program)].missing
        assert [signal.SIGABRT] == [thread.signal for thread in core.threads]
    [thread] = stacks_of_core(path).threads
    functions = [call.function for frame in thread.frames for call in frame.calls() if call]
    start = functions.index("innermost")
    assert ["innermost", *["recurse"] * DEPTH, "main"] == functions[start : start + DEPTH + 2]
    assert Stop.END_PROCESS_ENTRY is thread.stack.stop
    assert "_start" == functions[-1]
