"""An ELF file or image: its tables, contents, notes and address arithmetic, from bytes, an mmap, or anything with `read(address, size)`."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from unspool.errors import BadInput
from unspool.formats.elf import compression
from unspool.formats.elf.headers import (
    MAGIC,
    MAX_SECTIONS,
    MAX_SEGMENTS,
    PN_XNUM,
    SHN_XINDEX,
    Header,
    Layout,
    Section,
    SectionFlag,
    SectionType,
    Segment,
    SegmentType,
)
from unspool.formats.elf.notes import Note, build_id_of, parse_notes
from unspool.model.address import FileOffset, Svma
from unspool.model.memory import Memory

_IDENT_SIZE = 16
_CLASSES: dict[int, Literal[32, 64]] = {1: 32, 2: 64}
_ORDERS: dict[int, Literal["little", "big"]] = {1: "little", 2: "big"}
_MAX_NOTES = 1 << 26
_MAX_DYNAMIC = 1 << 20
_MAX_NAME = 4096

Buffer = bytes | bytearray | memoryview | mmap.mmap


@dataclass(frozen=True, slots=True)
class BufferSource:
    """A buffer as `Memory`, so that files and process images are read alike."""

    data: Buffer

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes from `address` on, None when they do not all exist."""
        if address < 0 or size < 0 or address + size > len(self.data):
            return None
        return bytes(self.data[address : address + size])


class Elf:
    """An ELF file, or with `image` one that is mapped into `source` at `base`, where its segments lie at their addresses.

    The header is read at once, everything else when it is asked for. Bytes that break the format raise BadInput with file and offset.
    An image has no sections: they are not mapped.
    """

    def __init__(self, source: Buffer | Memory, *, file: str = "", base: int = 0, image: bool = False) -> None:
        """Read the header."""
        self._source: Memory = BufferSource(source) if isinstance(source, bytes | bytearray | memoryview | mmap.mmap) else source
        self._base = base
        self.file = file
        self.image = image
        self.header = self._header()

    @property
    def layout(self) -> Layout:
        """Class and byte order."""
        return self.header.layout

    @property
    def machine(self) -> int:
        """`e_machine`; `model.arch.ARCHES` knows some."""
        return self.header.machine

    @property
    def entry(self) -> Svma:
        """`e_entry`."""
        return Svma(self.header.entry)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The program headers in file order."""
        header = self.header
        count = header.segment_count
        if count == PN_XNUM and header.sections_at and not self.image:
            count = self._first_section()[7]  # sh_info, gABI "Program Header"
        if not count:
            return ()
        rows = self._table(header.segments_at, count, header.segment_size, self.layout.segment, MAX_SEGMENTS)
        return tuple(self.layout.segment_of(row) for row in rows)

    @cached_property
    def loads(self) -> tuple[Segment, ...]:
        """The PT_LOAD segments."""
        return tuple(segment for segment in self.segments if segment.type == SegmentType.LOAD)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The section headers in file order, () for a file without them and for images."""
        header = self.header
        if not header.sections_at or self.image:
            return ()
        count = header.section_count or self._first_section()[5]  # sh_size, gABI "e_shnum"
        rows = self._table(header.sections_at, count, header.section_size, self.layout.section, MAX_SECTIONS)
        names = self._section_names(rows)
        return tuple(Section(index, _string(names, row[0]), *row[1:]) for index, row in enumerate(rows))

    def section(self, name: str) -> Section | None:
        """The first section of that name that has contents in this file."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, Section]:
        named: dict[str, Section] = {}
        for section in self.sections:
            if section.has_bytes:
                named.setdefault(section.name, section)
        return named

    def data(self, section: Section, *, max_size: int = compression.MAX_SIZE) -> bytes:
        """The section's contents, decompressed (SHF_COMPRESSED, .zdebug_*); BadInput when they are more than `max_size` bytes or a bomb."""
        if not section.has_bytes:
            return b""
        if section.size > max_size:
            raise BadInput(f"section {section.name} of {section.size} bytes is too large", file=self.file, offset=section.offset)
        raw = self.read(section.offset, section.size)
        try:
            if section.flags & SectionFlag.COMPRESSED:
                return compression.decompress(raw, self.layout, max_size=max_size)
            if section.name.startswith(".zdebug"):
                return compression.decompress_zdebug(raw, max_size=max_size)
        except BadInput as error:
            raise BadInput(f"section {section.name}: {error.what}", file=self.file, offset=section.offset) from None
        return raw

    def section_data(self, name: str, *, max_size: int = compression.MAX_SIZE) -> bytes | None:
        """The contents of the section of that name, None when there is none."""
        section = self.section(name)
        return None if section is None else self.data(section, max_size=max_size)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes by file offset (of an image: by distance from the ELF header); BadInput when they are not all there."""
        data = self._source.read(self._base + offset, size)
        if data is None:
            raise BadInput(f"{size} bytes are not there", file=self.file, offset=offset)
        return data

    def read_svma(self, address: int, size: int) -> bytes:
        """Bytes by stated address, from the file or the image; BadInput when no segment holds them all."""
        if self.image:
            return self.read(address - self.image_start, size)
        for segment in self.loads:
            inner = address - segment.address
            if inner >= 0 and inner + size <= segment.file_size:
                return self.read(segment.offset + inner, size)
        raise BadInput(f"address {address:#x} is in no segment", file=self.file)

    @cached_property
    def image_start(self) -> int:
        """The stated address of the file's first byte: the avma of the image minus this is the load bias."""
        for segment in self.loads:
            if segment.offset == 0:
                return segment.address
        return min((segment.address - segment.offset for segment in self.loads), default=0)

    def notes(self) -> Iterator[Note]:
        """The notes of all PT_NOTE segments, of SHT_NOTE sections when there are no segments."""
        places = [(s.offset, s.address, s.file_size, s.align) for s in self.segments if s.type == SegmentType.NOTE]
        if not places:
            places = [(s.offset, s.address, s.size, s.align) for s in self.sections if s.type == SectionType.NOTE]
        for offset, address, size, align in places:
            if size > _MAX_NOTES:
                raise BadInput(f"notes of {size} bytes", file=self.file, offset=offset)
            data = self.read_svma(address, size) if self.image else self.read(offset, size)
            yield from parse_notes(data, byte_order=self.layout.byte_order, align=align)

    @cached_property
    def build_id(self) -> str:
        """The GNU build id in hexadecimal, "" when the file has none."""
        return build_id_of(self.notes())

    def svma(self, offset: int) -> Svma | None:
        """The stated address of a byte of the file; code first, where two segments share a page's bytes. None when it is not loaded."""
        for segment in sorted(self.loads, key=lambda load: not load.executable):
            if segment.offset <= offset < segment.offset + segment.file_size:
                return Svma(offset - segment.offset + segment.address)
        return None

    def file_offset(self, address: int) -> FileOffset | None:
        """The byte of the file at a stated address, None when the file has none there (.bss, holes)."""
        for segment in self.loads:
            if segment.address <= address < segment.address + segment.file_size:
                return FileOffset(address - segment.address + segment.offset)
        return None

    @cached_property
    def dynamic(self) -> tuple[tuple[int, int], ...]:
        """The (tag, value) pairs of the dynamic segment up to DT_NULL; in a running process the loader may have relocated the pointers."""
        for segment in self.segments:
            if segment.type == SegmentType.DYNAMIC:
                pair = self.layout.fields("iI", "qQ")
                size = min(segment.file_size, _MAX_DYNAMIC) // pair.size * pair.size
                data = self.read_svma(segment.address, size) if self.image else self.read(segment.offset, size)
                pairs: list[tuple[int, int]] = []
                for tag, value in pair.iter_unpack(data):
                    if tag == 0:
                        break
                    pairs.append((tag, value))
                return tuple(pairs)
        return ()

    @cached_property
    def interpreter(self) -> str:
        """The path of the program interpreter (PT_INTERP), "" for static programs and libraries."""
        for segment in self.segments:
            if segment.type == SegmentType.INTERP and segment.file_size < mmap.PAGESIZE:
                data = self.read_svma(segment.address, segment.file_size) if self.image else self.read(segment.offset, segment.file_size)
                return data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        return ""

    def _header(self) -> Header:
        ident = self._source.read(self._base, _IDENT_SIZE)
        if ident is None or ident[:4] != MAGIC:
            raise BadInput("not an ELF file", file=self.file, offset=0)
        bits, order = _CLASSES.get(ident[4]), _ORDERS.get(ident[5])
        if bits is None or order is None:
            raise BadInput(f"ELF class {ident[4]}, byte order {ident[5]}", file=self.file, offset=4)
        layout = Layout(bits, order)
        kind, machine, _, entry, segments_at, sections_at, flags, _, *counts = layout.header.unpack(
            self.read(_IDENT_SIZE, layout.header.size)
        )
        return Header(layout, kind, machine, entry, segments_at, sections_at, flags, *counts)

    def _table(self, offset: int, count: int, size: int, row: struct.Struct, limit: int) -> list[tuple[int, ...]]:
        if size < row.size:
            raise BadInput(f"header entries of {size} bytes, not {row.size}", file=self.file, offset=offset)
        if count > limit:
            raise BadInput(f"{count} headers", file=self.file, offset=offset)
        data = self.read(offset, count * size)
        return [row.unpack_from(data, position) for position in range(0, count * size, size)]

    def _first_section(self) -> tuple[int, ...]:
        return self._table(self.header.sections_at, 1, self.header.section_size, self.layout.section, 1)[0]

    def _section_names(self, rows: list[tuple[int, ...]]) -> bytes:
        index = self.header.names_index
        if index == SHN_XINDEX:
            index = rows[0][6] if rows else 0  # sh_link
        if index == 0:
            return b""
        if index >= len(rows):
            raise BadInput(f"section names are in section {index} of {len(rows)}", file=self.file, offset=self.header.sections_at)
        offset, size = rows[index][4], rows[index][5]
        if size > compression.MAX_SIZE:
            raise BadInput(f"section names of {size} bytes", file=self.file, offset=offset)
        return b"" if rows[index][1] == SectionType.NOBITS else self.read(offset, size)


def _string(table: bytes, offset: int) -> str:
    # A table without zeros must not be searched to its end for every section.
    end = table.find(b"\0", offset, offset + _MAX_NAME)
    return table[offset : end if end >= 0 else offset + _MAX_NAME].decode("utf-8", "surrogateescape")
