"""ELF files put together field by field, of either class and byte order."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Part:
    """A section (with `name`) and, when `segment` is a program header type, a segment over the same bytes."""

    name: str
    data: bytes
    type: int = 1
    flags: int = 0
    address: int = 0
    link: int = 0
    info: int = 0
    entry_size: int = 0
    segment: int | None = None
    permissions: int = 4


@dataclass
class ElfBytes:
    """The parts of a file, in the order in which they are laid out behind the header."""

    bits: int = 64
    order: str = "<"
    type: int = 3
    machine: int = 62
    entry: int = 0x1000
    parts: list[Part] = field(default_factory=list)

    def pack(self, fields32: str, fields64: str, *values: int) -> bytes:
        """The fields in this class and byte order."""
        return struct.pack(self.order + (fields64 if self.bits == 64 else fields32), *values)

    def note(self, name: bytes, kind: int, description: bytes) -> bytes:
        """One note with its padding to 4 bytes."""
        return struct.pack(self.order + "III", len(name) + 1, len(description), kind) + _padded(name + b"\0") + _padded(description)

    def symbol(self, name: int, value: int, size: int, info: int = 0x12, section: int = 1) -> bytes:
        """One row of a symbol table; info 0x12 is a global function."""
        if self.bits == 64:
            return self.pack("", "IBBHQQ", name, info, 0, section, value, size)
        return self.pack("IIIBBH", "", name, value, size, info, 0, section)

    def bytes(self) -> bytes:
        """The whole file: header, program headers, contents, section headers."""
        header_size, segment_size, section_size = (64, 56, 64) if self.bits == 64 else (52, 32, 40)
        segments = [part for part in self.parts if part.segment is not None]
        names = b"\0" + b"".join(part.name.encode() + b"\0" for part in self.parts) + b".shstrtab\0"
        parts = [*self.parts, Part(".shstrtab", names, 3)]
        position = header_size + segment_size * len(segments)
        places, body = [], b""
        for part in parts:
            padding = -position % 16
            places.append(position + padding)
            body += b"\0" * padding + part.data
            position += padding + len(part.data)
        tail = b"\0" * (-position % 16)
        sections_at = position + len(tail)
        ident = b"\x7fELF" + bytes([2 if self.bits == 64 else 1, 1 if self.order == "<" else 2, 1]) + bytes(9)
        counts = (header_size, segment_size, len(segments), section_size, len(parts) + 1, len(parts))
        head = ident + self.pack(
            "HHIIIIIHHHHHH", "HHIQQQIHHHHHH", self.type, self.machine, 1, self.entry, header_size, sections_at, 0, *counts
        )
        for part, place in zip(parts, places, strict=True):
            if part.segment is not None:
                head += self._segment(part, place)
        table = bytes(section_size)
        for part, place in zip(parts, places, strict=True):
            values = (part.type, part.flags, part.address, place, len(part.data), part.link, part.info, 1, part.entry_size)
            table += self.pack("IIIIIIIIII", "IIQQQQIIQQ", names.index(b"\0" + part.name.encode() + b"\0") + 1, *values)
        return head + body + tail + table

    def _segment(self, part: Part, place: int) -> bytes:
        size = len(part.data)
        if self.bits == 64:
            return self.pack("", "IIQQQQQQ", part.segment or 0, part.permissions, place, part.address, 0, size, size, 4)
        return self.pack("IIIIIIII", "", part.segment or 0, place, part.address, 0, size, size, part.permissions, 4)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
