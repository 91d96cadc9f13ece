"""ELF notes: build id, core dump contents."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

NT_GNU_BUILD_ID = 3
_MAX_BUILD_ID = 64


@dataclass(frozen=True, slots=True)
class Note:
    """One note; `offset` is its description's distance from the start of the notes."""

    name: str
    type: int
    description: bytes
    offset: int


def parse_notes(data: bytes, *, byte_order: Literal["little", "big"] = "little", align: int = 4) -> Iterator[Note]:
    """The notes in order; the first that does not fit into the data ends them (section padding looks the same).

    `align` is the segment's p_align: 8 pads to 8 bytes (NT_GNU_PROPERTY_TYPE_0), all else to 4, whatever the class (as binutils).
    """
    header = struct.Struct("<III" if byte_order == "little" else ">III")
    step = 8 if align == 8 else 4
    position = 0
    while position + header.size <= len(data):
        name_size, size, kind = header.unpack_from(data, position)
        start = _aligned(position + header.size + name_size, step)
        if start + size > len(data):
            return
        name = data[position + header.size : position + header.size + name_size]
        yield Note(name.rstrip(b"\0").decode("ascii", "replace"), kind, data[start : start + size], start)
        position = _aligned(start + size, step)


def build_id_of(notes: Iterator[Note]) -> str:
    """The GNU build id in lower-case hexadecimal, "" when there is none of a believable length."""
    for note in notes:
        if note.name == "GNU" and note.type == NT_GNU_BUILD_ID and 0 < len(note.description) <= _MAX_BUILD_ID:
            return note.description.hex()
    return ""


def _aligned(position: int, step: int) -> int:
    return (position + step - 1) // step * step
