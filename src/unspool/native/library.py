"""The shared library `_unspool.so`: where it is, and its functions with their types."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from unspool.errors import Unsupported
from unspool.native import structures

LIBRARY = Path(__file__).with_name("_unspool.so")
"""The library's place: beside this module, where `make native` and the wheel put it."""

API_VERSION = 1
"""UNSPOOL_API_VERSION of native/unspool.h."""

_POINTER = ctypes.c_void_p
_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "unspool_api_version": (ctypes.c_int, ()),
    "unspool_version": (ctypes.c_char_p, ()),
    "unspool_open": (_POINTER, (_POINTER, ctypes.c_size_t, _POINTER)),
    "unspool_close": (None, (_POINTER,)),
    "unspool_use_reader": (None, (_POINTER, structures.READER, _POINTER)),
    "unspool_use_process": (None, (_POINTER, ctypes.c_int)),
    "unspool_use_methods": (None, (_POINTER, ctypes.c_uint)),
    "unspool_use_bytes": (None, (_POINTER, ctypes.c_uint64, _POINTER, ctypes.c_size_t)),
    "unspool_use_birth": (None, (_POINTER, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)),
    "unspool_forget": (None, (_POINTER,)),
    "unspool_walk": (None, (_POINTER, _POINTER, _POINTER)),
    "unspool_walk_states": (None, (_POINTER, _POINTER, _POINTER, ctypes.c_size_t)),
    "unspool_stop_name": (ctypes.c_char_p, (ctypes.c_uint32,)),
    "unspool_verdict_name": (ctypes.c_char_p, (ctypes.c_uint32,)),
}


@cache
def load(path: Path = LIBRARY) -> ctypes.CDLL:
    """The library, its functions typed; Unsupported when it is not built or of another version."""
    try:
        library = ctypes.CDLL(str(path), use_errno=True)
    except OSError as error:
        raise Unsupported(f"the native library cannot be loaded: {error}", hint="`make native` builds it.") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    if library.unspool_api_version() != API_VERSION:
        raise Unsupported("the native library is of another version", hint="`make native` builds it.")
    return library
