"""ELF: tables of contents, sections, notes, symbols and links to separate debug files."""

from __future__ import annotations

from unspool.formats.elf.file import Elf
from unspool.formats.elf.headers import FileType, Header, Layout, Section, SectionFlag, SectionType, Segment, SegmentFlag, SegmentType
from unspool.formats.elf.notes import Note, parse_notes

__all__ = [
    "Elf",
    "FileType",
    "Header",
    "Layout",
    "Note",
    "Section",
    "SectionFlag",
    "SectionType",
    "Segment",
    "SegmentFlag",
    "SegmentType",
    "parse_notes",
]
