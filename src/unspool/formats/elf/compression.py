"""Compressed ELF sections (SHF_COMPRESSED with zlib or Zstandard, and the older .zdebug_*), unpacked within limits that no bomb passes."""

from __future__ import annotations

import ctypes
import enum
import zlib
from functools import cache

from unspool.errors import BadInput
from unspool.formats.elf.headers import Layout, SectionFlag

MAX_SIZE = 256 << 20
"""Bytes that a section may have, stored or unpacked."""
MAX_RATIO = 100
"""How many times its stored size a section may grow; below `_FREE_SIZE` any ratio is harmless."""
_FREE_SIZE = 1 << 20
_ZDEBUG_MAGIC = b"ZLIB"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Algorithm(enum.IntEnum):
    """`ch_type` (gABI, "Compressed Sections")."""

    ZLIB = 1
    ZSTD = 2


def decompress(data: bytes, layout: Layout, *, max_size: int = MAX_SIZE) -> bytes:
    """The contents of an SHF_COMPRESSED section: behind a Chdr that states algorithm and size."""
    # Elf32_Chdr: type size addralign; Elf64_Chdr: type reserved size addralign.
    header = layout.fields("III", "IIQQ")
    if len(data) < header.size:
        raise BadInput("compression header is cut short")
    fields = header.unpack_from(data)
    algorithm, size = fields[0], fields[-2]
    return unpack(data[header.size :], algorithm, size, max_size=max_size)


def stated_size(head: bytes, name: str, layout: Layout, flags: int, size: int) -> int:
    """The bytes that a section claims to hold unpacked, from its first 24 bytes; `size` when it is not compressed."""
    header = layout.fields("III", "IIQQ")
    if flags & SectionFlag.COMPRESSED and len(head) >= header.size:
        return int(header.unpack_from(head)[-2])
    if name.startswith(".zdebug") and head.startswith(_ZDEBUG_MAGIC):
        return int.from_bytes(head[4:12], "big")
    return size


def decompress_zdebug(data: bytes, *, max_size: int = MAX_SIZE) -> bytes:
    """The contents of a .zdebug_* section: "ZLIB", the size as 8 bytes big endian, a zlib stream; without that magic it is stored plain."""
    if not data.startswith(_ZDEBUG_MAGIC) or len(data) < 12:
        return data
    return unpack(data[12:], Algorithm.ZLIB, int.from_bytes(data[4:12], "big"), max_size=max_size)


def unpack(stream: bytes, algorithm: int, size: int, *, max_size: int = MAX_SIZE) -> bytes:
    """Exactly `size` bytes out of the stream; BadInput for another size, a broken stream, an unknown algorithm, or a bomb."""
    if size > max_size or (size > _FREE_SIZE and size > MAX_RATIO * len(stream)):
        raise BadInput(f"{len(stream)} bytes claim to unpack to {size}")
    if algorithm == Algorithm.ZLIB:
        data = _inflate(stream, size)
    elif algorithm == Algorithm.ZSTD:
        data = _zstd(stream, size)
    else:
        raise BadInput(f"compression algorithm {algorithm}")
    if len(data) != size:
        raise BadInput(f"unpacks to {len(data)} bytes, not to {size}")
    return data


def _inflate(stream: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(stream, size + 1)
    except zlib.error as error:
        raise BadInput(f"zlib stream: {error}") from None


def _zstd(stream: bytes, size: int) -> bytes:
    library = _zstd_library()
    if library is None:
        raise BadInput("compressed with Zstandard, and there is no libzstd.so.1 here", hint="Install it: apt-get install libzstd1")
    if not stream.startswith(_ZSTD_MAGIC):
        raise BadInput("not a Zstandard frame")
    target = ctypes.create_string_buffer(size or 1)
    result = library.ZSTD_decompress(target, size, stream, len(stream))
    if library.ZSTD_isError(result):
        raise BadInput(f"Zstandard stream: {library.ZSTD_getErrorName(result).decode()}")
    return target.raw[:result]


@cache
def _zstd_library() -> ctypes.CDLL | None:
    # The standard library has Zstandard from Python 3.14 on only; dpkg and rpm both need the C library, so it is everywhere.
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError:
        return None
    library.ZSTD_decompress.restype = ctypes.c_size_t
    library.ZSTD_decompress.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library
