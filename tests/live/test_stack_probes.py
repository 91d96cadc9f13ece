"""A return probe hides a return address behind the kernel's trampoline: from outside it cannot be known, and the stack says so."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from target_programs import Programs, running, wait_asleep, wait_for_line

from unspool.formats.elf import Elf
from unspool.formats.elf.symtab import symbol_tables
from unspool.model.verdict import Stop, Verdict
from unspool.session.stacks import stacks_of
from unspool.session.walking import Method, Walking

pytestmark = pytest.mark.live

UPROBE = Path("/sys/bus/event_source/devices/uprobe")
PERF_EVENT_OPEN = 298  # arch/x86/entry/syscalls/syscall_64.tbl
PERF_FLAG_FD_CLOEXEC = 8


def file_offset_of(path: Path, function: str) -> int:
    elf = Elf(path.read_bytes())
    address = next(symbol.address for table in symbol_tables(elf) for symbol in table if symbol.name == function)
    offset = elf.file_offset(address)
    assert offset is not None
    return offset


@contextlib.contextmanager
def return_probe(path: Path, function: str, pid: int) -> Iterator[None]:
    """A return probe on a function of one process; it is gone with its descriptor (man 2 perf_event_open, "dynamic_pmu")."""
    kind = int((UPROBE / "type").read_text(encoding="ascii"))
    bit = int((UPROBE / "format" / "retprobe").read_text(encoding="ascii").partition(":")[2])
    name = ctypes.create_string_buffer(os.fsencode(path))
    # struct perf_event_attr: type, size, config; config1 is at 56, config2 at 64; 112 is PERF_ATTR_SIZE_VER5.
    attributes = bytearray(112)
    struct.pack_into("<IIQ", attributes, 0, kind, len(attributes), 1 << bit)
    struct.pack_into("<QQ", attributes, 56, ctypes.addressof(name), file_offset_of(path, function))
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(PERF_EVENT_OPEN, (ctypes.c_char * len(attributes)).from_buffer(attributes), pid, -1, -1, PERF_FLAG_FD_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("method", ["native", "python"])
def test_a_return_address_that_a_probe_replaced_makes_the_stack_end_there(method: Method, programs: Programs) -> None:
    path = programs.build("probed.c", "-O2")
    with running(path) as process, return_probe(path, "probed", process.pid):
        assert process.stdin is not None
        process.stdin.write(b"\n")
        wait_for_line(process, b"inside")
        wait_asleep(process.pid)
        [thread] = stacks_of(process.pid, Walking(method)).threads
        assert "[uprobes]" in {mapping.path for mapping in stacks_of(process.pid, Walking(method)).space}
    assert (Stop.RA_REWRITTEN, Verdict.UNRELIABLE) == (thread.stack.stop, thread.stack.judgement.verdict)
    assert Stop.RA_REWRITTEN is thread.stack.judgement.reason
    names = [call.function for frame in thread.frames for call in frame.calls() if call]
    assert "probed" in names
    assert "main" not in names
