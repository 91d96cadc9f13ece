"""The structures of native/unspool.h as ctypes sees them; a test compares sizes and offsets with the compiler's."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import ClassVar

WRITABLE = 1
EXECUTABLE = 2
VDSO = 4
UPROBES = 8
"""enum unspool_mapping_flag."""

EXACT = 1
SIGNAL = 2
CFA = 4
"""enum unspool_frame_flag."""

READER = ctypes.CFUNCTYPE(c_int, c_void_p, c_uint64, c_void_p, c_size_t)
"""unspool_read."""

_Fields = list[tuple[str, type]]


class Mapping(ctypes.Structure):
    """struct unspool_mapping."""

    _fields_: ClassVar[_Fields] = [
        ("start", c_uint64),
        ("end", c_uint64),
        ("offset", c_uint64),
        ("file", c_uint64),
        ("flags", c_uint32),
        ("reserved", c_uint32),
    ]


class Ends(ctypes.Structure):
    """struct unspool_ends."""

    _fields_: ClassVar[_Fields] = [("process_entry", c_uint64), ("interpreter_entry", c_uint64), ("initial_sp", c_uint64)]


class Thread(ctypes.Structure):
    """struct unspool_thread."""

    _fields_: ClassVar[_Fields] = [
        ("values", c_uint64 * 16),
        ("ip", c_uint64),
        ("thread_pointer", c_uint64),
        ("original_returns", ctypes.POINTER(c_uint64)),
        ("original_count", c_uint32),
        ("known", c_uint32),
    ]


class Frame(ctypes.Structure):
    """struct unspool_frame."""

    _fields_: ClassVar[_Fields] = [("ip", c_uint64), ("sp", c_uint64), ("cfa", c_uint64), ("trust", c_uint32), ("flags", c_uint32)]


class Stack(ctypes.Structure):
    """struct unspool_stack."""

    _fields_: ClassVar[_Fields] = [
        ("frames", ctypes.POINTER(Frame)),
        ("capacity", c_uint32),
        ("count", c_uint32),
        ("stop", c_uint32),
        ("verdict", c_uint32),
        ("reason", c_uint32),
        ("first_bad_frame", c_uint32),
        ("stop_address", c_uint64),
    ]


class State(ctypes.Structure):
    """struct unspool_state."""

    _fields_: ClassVar[_Fields] = [("thread", Thread), ("stack_start", c_uint64), ("stack_data", c_void_p), ("stack_size", c_uint64)]
