"""Adds an SFrame section to a linked ELF file: allocated, in a PT_LOAD of its own, named by PT_GNU_SFRAME; nothing that is there moves.

The program header table grows by two entries and so moves to the new segment, at the end of the file. File offset and address of the
segment differ by as much as those of the first PT_LOAD, so that kernels before 5.18, which compute AT_PHDR from e_phoff, find it too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from unspool.errors import BadInput
from unspool.formats.elf import Elf, FileType, SegmentType
from unspool.toolkit.sections import PT_GNU_SFRAME, SHT_GNU_SFRAME

PAGES = {183: 0x10000}
"""The largest page size by e_machine (AArch64 has 64 KB pages), 4 KB where none is given."""
EHDR, PHDR, SHDR, ALIGN = 64, 56, 64, 8
PF_R, SHF_ALLOC = 4, 2


Part = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Room:
    """Where the new segment goes: its file offset and address, and how far behind them the SFrame section starts."""

    offset: int
    address: int
    headers: int

    @property
    def sframe_address(self) -> int:
        """The section's address (Svma), which its function starts are relative to."""
        return self.address + self.headers


def room(elf: Elf) -> Room:
    """The place for the section in the file. Raises BadInput for files that are not linked 64-bit programs or libraries."""
    if elf.layout.bits != 64 or elf.header.type not in {FileType.EXEC, FileType.DYN} or not elf.loads:
        raise BadInput("not a linked 64-bit program or library", file=elf.file)
    if elf.section(".sframe") is not None or any(segment.type == PT_GNU_SFRAME for segment in elf.segments):
        raise BadInput("has SFrame data already", file=elf.file, hint="`unspool sframe check` says whether it is sound.")
    first = elf.loads[0]
    distance = first.address - first.offset
    if distance < 0:
        raise BadInput("its first segment lies below its file offset", file=elf.file)
    end = max([load.address + load.memory_size for load in elf.loads] + [elf_size(elf) + distance])
    page = page_size(elf)
    address = -(-end // page) * page
    headers = -(-(len(elf.segments) + 2) * PHDR // ALIGN) * ALIGN
    return Room(address - distance, address, headers)


def page_size(elf: Elf) -> int:
    """The alignment of the new segment."""
    return PAGES.get(elf.machine, 0x1000)


def elf_size(elf: Elf) -> int:
    """The file's length in bytes, as far as its tables reach."""
    header = elf.header
    ends = [header.sections_at + header.section_count * header.section_size, header.segments_at + header.segment_count * PHDR]
    ends += [segment.offset + segment.file_size for segment in elf.segments]
    ends += [section.offset + section.size for section in elf.sections if section.has_bytes]
    return max(ends)


def embed(elf: Elf, data: bytes, place: Room, sframe: bytes) -> tuple[Part, ...]:
    """The file `data` (read as `elf`) with the section at `place`, in parts: what stays is not copied, for it is most of the file."""
    sign = "<" if elf.layout.byte_order == "little" else ">"
    sections, names = _section_headers(elf, data)
    body = bytearray(place.headers) + sframe
    body += bytes(-len(body) % ALIGN)
    loaded = len(body)
    new_names = names + b".sframe\0"
    names_at = place.offset + len(body)
    body += new_names + bytes(-len(new_names) % ALIGN)
    sections_at = place.offset + len(body)
    if sections:
        sections[elf.header.names_index] = _patched(sections[elf.header.names_index], sign, names_at, len(new_names))
        where = (place.sframe_address, place.offset + place.headers, len(sframe))
        sections.append(struct.pack(f"{sign}IIQQQQIIQQ", len(names), SHT_GNU_SFRAME, SHF_ALLOC, *where, 0, 0, ALIGN, 0))
        body += b"".join(sections)
    table = _program_headers(elf, data, sign, place, (loaded, len(sframe)))
    body[: len(table)] = table
    head = bytearray(data[:EHDR])
    struct.pack_into(f"{sign}Q", head, 0x20, place.offset)
    struct.pack_into(f"{sign}H", head, 0x38, len(table) // PHDR)
    if sections:
        struct.pack_into(f"{sign}Q", head, 0x28, sections_at)
        struct.pack_into(f"{sign}H", head, 0x3C, len(sections))
    return head, memoryview(data)[EHDR:], bytes(place.offset - len(data)), body


def _program_headers(elf: Elf, data: bytes, sign: str, place: Room, sizes: tuple[int, int]) -> bytes:
    """The table with the two new entries; PT_LOADs stay in the order of their addresses."""
    loaded, sframe = sizes
    count = len(elf.segments) + 2
    start = elf.header.segments_at
    entries = [data[start + i * PHDR : start + (i + 1) * PHDR] for i in range(len(elf.segments))]
    for index, segment in enumerate(elf.segments):
        if segment.type == SegmentType.PHDR:
            where = (place.offset, place.address, place.address, count * PHDR, count * PHDR)
            entries[index] = struct.pack(f"{sign}IIQQQQQQ", segment.type, segment.flags, *where, 8)
    load = struct.pack(
        f"{sign}IIQQQQQQ", SegmentType.LOAD, PF_R, place.offset, place.address, place.address, loaded, loaded, page_size(elf)
    )
    last = max(index for index, segment in enumerate(elf.segments) if segment.type == SegmentType.LOAD)
    entries.insert(last + 1, load)
    at = (place.offset + place.headers, place.sframe_address, place.sframe_address, sframe, sframe)
    entries.append(struct.pack(f"{sign}IIQQQQQQ", PT_GNU_SFRAME, PF_R, *at, ALIGN))
    return b"".join(entries)


def _section_headers(elf: Elf, data: bytes) -> tuple[list[bytes], bytes]:
    header = elf.header
    if not elf.sections:
        return [], b""
    if header.section_size != SHDR or len(elf.sections) >= 0xFF00 - 1 or not header.section_count:
        raise BadInput(f"{len(elf.sections)} section headers of {header.section_size} bytes", file=elf.file, offset=header.sections_at)
    entries = [data[header.sections_at + i * SHDR : header.sections_at + (i + 1) * SHDR] for i in range(len(elf.sections))]
    names = elf.sections[header.names_index]
    return entries, data[names.offset : names.offset + names.size]


def _patched(entry: bytes, sign: str, offset: int, size: int) -> bytes:
    out = bytearray(entry)
    struct.pack_into(f"{sign}QQ", out, 0x18, offset, size)
    return bytes(out)


def detached(elf: Elf, address: int, sframe: bytes, build_id: str) -> bytes:
    """A file of its own that holds the section at the address it would have, and the build id it belongs to; it cannot be run."""
    sign = "<" if elf.layout.byte_order == "little" else ">"
    raw = bytes.fromhex(build_id)
    note = struct.pack(f"{sign}III4s", 4, len(raw), 3, b"GNU\0") + raw
    note += bytes(-len(note) % ALIGN)
    names = b"\0.note.gnu.build-id\0.sframe\0.shstrtab\0"
    note_at = 64
    sframe_at = note_at + len(note)
    names_at = sframe_at + len(sframe)
    table_at = -(-(names_at + len(names)) // ALIGN) * ALIGN
    header = elf.read(0, 16) + struct.pack(
        f"{sign}HHIQQQIHHHHHH", FileType.DYN, elf.machine, 1, 0, 0, table_at, elf.header.flags, 64, 0, 0, SHDR, 4, 3
    )
    rows = [
        (0, 0, 0, 0, 0, 0, 0),
        (1, 7, SHF_ALLOC, 0, note_at, len(note), 4),
        (20, SHT_GNU_SFRAME, SHF_ALLOC, address, sframe_at, len(sframe), ALIGN),
        (28, 3, 0, 0, names_at, len(names), 1),
    ]
    table = b"".join(struct.pack(f"{sign}IIQQQQIIQQ", *row[:6], 0, 0, row[6], 0) for row in rows)
    body = header + note + sframe + names
    return body + bytes(table_at - len(body)) + table
