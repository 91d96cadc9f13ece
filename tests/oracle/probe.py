"""A uretprobe on a function of a program, for as long as it is stepped."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from oracle.fde_ranges import function_symbols

from unspool.formats.elf.file import Elf

_PMU = Path("/sys/bus/event_source/devices/uprobe/type")
_PERF_EVENT_OPEN = 298  # x86-64
_RETPROBE = 1  # /sys/bus/event_source/devices/uprobe/format/retprobe: config:0


class _Attributes(ctypes.Structure):
    """The first fields of struct perf_event_attr (linux/perf_event.h, PERF_ATTR_SIZE_VER1)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample", ctypes.c_uint64 * 3),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("uprobe_path", ctypes.c_char_p),
        ("probe_offset", ctypes.c_uint64),
    )


@contextlib.contextmanager
def uretprobe(program: Path, function: str) -> Iterator[None]:
    """The kernel puts its trampoline in place of the return address of every call of that function while this is open."""
    elf = Elf(program.read_bytes(), file=str(program))
    address = next(address for name, address, _ in function_symbols(elf) if name == function)
    attributes = _Attributes(
        type=int(_PMU.read_text()),
        size=ctypes.sizeof(_Attributes),
        config=_RETPROBE,
        uprobe_path=os.fsencode(program),
        probe_offset=elf.file_offset(address),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    # Every process, on processor 0: the trampoline is set wherever the program runs, only the counting is per processor.
    file = libc.syscall(_PERF_EVENT_OPEN, ctypes.byref(attributes), -1, 0, -1, 0)
    if file < 0:
        raise OSError(ctypes.get_errno(), f"no uretprobe on {function} of {program}")
    try:
        yield
    finally:
        os.close(file)
