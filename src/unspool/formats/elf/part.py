"""A smaller ELF file: some sections of another one, for a reader that would otherwise read them all."""

from __future__ import annotations

from collections.abc import Mapping

from unspool.formats.elf.file import Elf
from unspool.formats.elf.headers import FileType, SectionFlag, SectionType, SegmentType

_DEBUG_SECTIONS = ("abbrev", "addr", "line", "line_str", "ranges", "rnglists", "str", "str_offsets")
"""What .debug_info refers to for names, places in the source and ranges of code."""


def debug_part(elf: Elf, info: bytes) -> bytes:
    """A file with `info` as its .debug_info and the sections of `elf` that it refers to, stored as they are. BadInput: one is broken."""
    contents: dict[str, tuple[bytes, int]] = {".debug_info": (info, 0)}
    for name in _DEBUG_SECTIONS:
        section = elf.section(f".debug_{name}")
        if section is not None:
            contents[section.name] = (elf.read(section.offset, section.size), section.flags & SectionFlag.COMPRESSED)
    return _file(elf, contents)


def _file(elf: Elf, contents: Mapping[str, tuple[bytes, int]]) -> bytes:
    """One loaded segment without bytes says where addresses count from; then the sections, each on a multiple of 8."""
    layout = elf.layout
    names = b"\0" + b"".join(name.encode() + b"\0" for name in contents) + b".shstrtab\0"
    sections = [*contents.items(), (".shstrtab", (names, 0))]
    base = min((segment.address for segment in elf.loads), default=0)
    segment_size, section_size = layout.segment.size, layout.section.size
    ident = bytes([*b"\x7fELF", 2 if layout.bits == 64 else 1, 1 if layout.byte_order == "little" else 2, 1]).ljust(16, b"\0")
    first = len(ident) + layout.header.size
    body, places = bytearray(), []
    for _, (data, _) in sections:
        body += bytes(-len(body) % 8)
        places.append(first + segment_size + len(body))
        body += data
    body += bytes(-len(body) % 8)
    # type machine version entry phoff shoff flags ehsize phentsize phnum shentsize shnum shstrndx
    counts = (first, segment_size, 1, section_size, len(sections) + 1, len(sections))
    header = layout.header.pack(FileType.DYN, elf.machine, 1, 0, first, first + segment_size + len(body), 0, *counts)
    load = (SegmentType.LOAD, 5, 0, base, base, 0, 0, 8) if layout.bits == 64 else (SegmentType.LOAD, 0, base, base, 0, 0, 5, 8)
    table = bytearray(section_size)
    for (name, (data, flags)), place in zip(sections, places, strict=True):
        kind = SectionType.STRTAB if name == ".shstrtab" else SectionType.PROGBITS
        table += layout.section.pack(names.index(b"\0" + name.encode() + b"\0") + 1, kind, flags, 0, place, len(data), 0, 0, 1, 0)
    return ident + header + layout.segment.pack(*load) + bytes(body) + bytes(table)
