"""ELF's file header, program headers and section headers (System V gABI, chapters 4 and 5), of either class and byte order."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from struct import Struct
from typing import Literal

MAGIC = b"\x7fELF"
PN_XNUM = 0xFFFF
SHN_XINDEX = 0xFFFF
SHN_LORESERVE = 0xFF00
# A table is read whole; -ffunction-sections makes files of some 100,000 sections, and nothing real has more segments than sections.
MAX_SECTIONS = 1 << 18
MAX_SEGMENTS = 1 << 18


class SegmentType(enum.IntEnum):
    """Program header types that are looked for (gABI; GNU and SFrame extensions)."""

    LOAD = 1
    DYNAMIC = 2
    INTERP = 3
    NOTE = 4
    PHDR = 6
    TLS = 7
    GNU_EH_FRAME = 0x6474E550
    GNU_STACK = 0x6474E551
    GNU_PROPERTY = 0x6474E553
    GNU_SFRAME = 0x6474E554


class SectionType(enum.IntEnum):
    """Section types that are looked for."""

    NULL = 0
    PROGBITS = 1
    SYMTAB = 2
    STRTAB = 3
    NOTE = 7
    NOBITS = 8
    DYNSYM = 11
    SYMTAB_SHNDX = 18


class SegmentFlag(enum.IntFlag):
    """Permissions of a segment."""

    EXECUTE = 1
    WRITE = 2
    READ = 4


class SectionFlag(enum.IntFlag):
    """Section flags that matter to a reader."""

    WRITE = 0x1
    ALLOC = 0x2
    EXECUTE = 0x4
    COMPRESSED = 0x800


class FileType(enum.IntEnum):
    """`e_type`."""

    REL = 1
    EXEC = 2
    DYN = 3
    CORE = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """The class and byte order of a file, and the field layouts that follow from them."""

    bits: Literal[32, 64]
    byte_order: Literal["little", "big"]

    @property
    def word(self) -> int:
        """Bytes of an address."""
        return self.bits // 8

    def fields(self, fields32: str, fields64: str) -> Struct:
        """The layout in this file's class and byte order."""
        return Struct(("<" if self.byte_order == "little" else ">") + (fields64 if self.bits == 64 else fields32))

    @property
    def header(self) -> Struct:
        """Ehdr behind e_ident: type machine version entry phoff shoff flags ehsize phentsize phnum shentsize shnum shstrndx."""
        return self.fields("HHIIIIIHHHHHH", "HHIQQQIHHHHHH")

    @property
    def segment(self) -> Struct:
        """Phdr; the classes order their fields differently, see `segment_of`."""
        return self.fields("IIIIIIII", "IIQQQQQQ")

    @property
    def section(self) -> Struct:
        """Shdr: name type flags addr offset size link info addralign entsize."""
        return self.fields("IIIIIIIIII", "IIQQQQIIQQ")

    def segment_of(self, fields: tuple[int, ...]) -> Segment:
        """The segment of a Phdr's fields."""
        if self.bits == 64:
            kind, flags, offset, address, _, file_size, memory_size, align = fields
        else:
            kind, offset, address, _, file_size, memory_size, flags, align = fields
        return Segment(kind, flags, offset, address, file_size, memory_size, align)


@dataclass(frozen=True, slots=True)
class Header:
    """The file header; `segments_at` and `sections_at` are file offsets, the counts as stated (`Elf` resolves the extended ones)."""

    layout: Layout
    type: int
    machine: int
    entry: int
    segments_at: int
    sections_at: int
    flags: int
    segment_size: int
    segment_count: int
    section_size: int
    section_count: int
    names_index: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One program header; `address` is an Svma, sizes in bytes."""

    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int
    align: int

    @property
    def executable(self) -> bool:
        """Whether code may run in it."""
        return bool(self.flags & SegmentFlag.EXECUTE)


@dataclass(frozen=True, slots=True)
class Section:
    """One section header with its name (bytes that are not UTF-8 are kept as surrogates)."""

    index: int
    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int

    @property
    def has_bytes(self) -> bool:
        """Whether the file holds its contents (a separate debug file states .text, but does not hold it)."""
        return self.type not in {SectionType.NOBITS, SectionType.NULL}
