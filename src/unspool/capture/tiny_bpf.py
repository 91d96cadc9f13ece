"""The smallest BPF objects, made by bpf(2) itself, to see what the kernel permits (include/uapi/linux/bpf.h)."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct

PERF_EVENT = 7
RAW_TRACEPOINT = 17

_SYSCALL = {"x86_64": 321, "aarch64": 280, "s390x": 351}
_MAP_CREATE, _PROG_LOAD, _RAW_TRACEPOINT_OPEN = 0, 5, 17
_MAP_TYPE_RINGBUF = 27
_ATTR_SIZE = 128
_MOVE, _EXIT = 0xB7, 0x95
_RETURN_ZERO = struct.pack("<BBhiBBhi", _MOVE, 0, 0, 0, _EXIT, 0, 0, 0)


def ring_buffer() -> int:
    """A descriptor of a new ring buffer of one page; OSError."""
    return _bpf(_MAP_CREATE, struct.pack("<IIII", _MAP_TYPE_RINGBUF, 0, 0, mmap.PAGESIZE))


def program(kind: int) -> int:
    """A descriptor of a new program that does nothing; OSError."""
    code, words = ctypes.create_string_buffer(_RETURN_ZERO, len(_RETURN_ZERO)), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("<IIQQ", kind, len(_RETURN_ZERO) // 8, ctypes.addressof(code), ctypes.addressof(words))
    return _bpf(_PROG_LOAD, attributes)


def attach_raw_tracepoint(descriptor: int, name: str) -> int:
    """A descriptor that holds a program attached to a raw tracepoint; OSError."""
    words = ctypes.create_string_buffer(name.encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI", ctypes.addressof(words), descriptor))


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    data = ctypes.create_string_buffer(attributes, _ATTR_SIZE)
    answer = libc.syscall(_SYSCALL.get(platform.machine(), -1), command, data, ctypes.c_uint(_ATTR_SIZE))
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(answer)
