"""Where an ELF file says its debugging information is: .gnu_debuglink, .gnu_debugaltlink (dwz) and .gnu_debugdata (MiniDebugInfo)."""

from __future__ import annotations

import lzma
from dataclasses import dataclass

from unspool.errors import BadInput
from unspool.formats.elf.file import Elf

MAX_MINI_DEBUG_INFO = 128 << 20
"""Bytes that .gnu_debugdata may unpack to."""


@dataclass(frozen=True, slots=True)
class DebugLink:
    """A separate debug file's name (without a folder) and the CRC-32 of its bytes (gdb manual, "Separate Debug Files")."""

    name: str
    crc: int


@dataclass(frozen=True, slots=True)
class AltLink:
    """The file that holds what dwz moved out of several debug files, and its build id (DWARF 5 calls it the supplementary file)."""

    name: str
    build_id: str


def debug_link(elf: Elf) -> DebugLink | None:
    """What .gnu_debuglink says; None without one, or when its name is no plain file name."""
    data = elf.section_data(".gnu_debuglink", max_size=1 << 16)
    if data is None:
        return None
    name, end = _name(data)
    place = (end + 4) // 4 * 4
    if not name or "/" in name or name in {".", ".."} or place + 4 > len(data):
        return None
    return DebugLink(name, int.from_bytes(data[place : place + 4], elf.layout.byte_order))


def alt_link(elf: Elf) -> AltLink | None:
    """What .gnu_debugaltlink says, None without one."""
    data = elf.section_data(".gnu_debugaltlink", max_size=1 << 16)
    if data is None:
        return None
    name, end = _name(data)
    return AltLink(name, data[end + 1 :].hex())


def mini_debug_info(elf: Elf) -> bytes | None:
    """The ELF file inside .gnu_debugdata (gdb manual, "MiniDebugInfo"), which names what .dynsym leaves out; None without one."""
    data = elf.section_data(".gnu_debugdata")
    if data is None:
        return None
    decoder = lzma.LZMADecompressor(memlimit=MAX_MINI_DEBUG_INFO)
    try:
        unpacked = decoder.decompress(data, MAX_MINI_DEBUG_INFO)
    except (lzma.LZMAError, EOFError) as error:
        raise BadInput(f".gnu_debugdata: {error}", file=elf.file) from None
    if not decoder.eof:
        raise BadInput(f".gnu_debugdata is cut short or unpacks to more than {MAX_MINI_DEBUG_INFO} bytes", file=elf.file)
    return unpacked


def _name(data: bytes) -> tuple[str, int]:
    end = data.find(b"\0")
    end = end if end >= 0 else len(data)
    return data[:end].decode("utf-8", "surrogateescape"), end
