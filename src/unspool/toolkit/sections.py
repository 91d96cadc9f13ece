"""Where a file's stack trace data is: the `.sframe` section or PT_GNU_SFRAME, and the section's true bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from unspool.errors import BadInput
from unspool.formats.elf import Elf, FileType
from unspool.formats.sframe import Section, decode_all

PT_GNU_SFRAME = 0x6474E554
SHT_GNU_SFRAME = 0x6FFFFFF4
ELF64_SYM_SIZE = 24
EM_ABI = {(62, "little"): 3, (183, "little"): 2, (183, "big"): 1, (22, "big"): 4}
"""The abi_arch that belongs to an ELF file's e_machine and byte order."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file's SFrame data: its bytes, the address (Svma) of the first, its file offset, and how it was found."""

    data: bytes
    address: int
    offset: int
    by: str


def find(elf: Elf) -> Found | None:
    """The `.sframe` section, else the PT_GNU_SFRAME segment; None when the file has neither (or an empty one)."""
    section = elf.section(".sframe")
    if section is not None:
        data = relocated(elf, elf.data(section)) if is_relocatable(elf) else elf.data(section)
        return Found(data, section.address, section.offset, "section .sframe") if section.size else None
    for segment in elf.segments:
        if segment.type == PT_GNU_SFRAME and segment.file_size:
            return Found(elf.read(segment.offset, segment.file_size), segment.address, segment.offset, "segment PT_GNU_SFRAME")
    return None


def read(elf: Elf) -> list[Section]:
    """Every blob of the file's SFrame data, addresses as the file states them. Raises BadInput when there is none or it is broken.

    In an object file (`ld -r`, `as`) function starts are those within their own text sections.
    """
    found = find(elf)
    if found is None:
        raise BadInput("no .sframe section and no PT_GNU_SFRAME segment", file=elf.file)
    return decode_all(found.data, found.address, file=elf.file)


def relocated(elf: Elf, data: bytes) -> bytes:
    """An object file's section with its relocations applied, as readelf does: every one is a distance from the field to a function.

    R_X86_64_PC64, R_AARCH64_PREL64 and R_390_PC64 are S + A - P (psABI of each machine), 8 bytes at the start of each index entry.
    """
    out = bytearray(data)
    table, symbols = elf.section(".rela.sframe"), elf.section(".symtab")
    if table is None or symbols is None:
        return data
    sign = "<" if elf.layout.byte_order == "little" else ">"
    values = elf.data(symbols)
    for place, info, addend in struct.iter_unpack(f"{sign}QQq", elf.data(table)):
        entry = (info >> 32) * ELF64_SYM_SIZE
        if entry + ELF64_SYM_SIZE > len(values) or place + 8 > len(out):
            raise BadInput(f"relocation of byte {place:#x} by symbol {info >> 32}", file=elf.file, offset=table.offset)
        (value,) = struct.unpack_from(f"{sign}Q", values, entry + 8)
        struct.pack_into(f"{sign}Q", out, place, (value + addend - place) & 0xFFFF_FFFF_FFFF_FFFF)
    return bytes(out)


def is_relocatable(elf: Elf) -> bool:
    """Whether the file is an object file, whose function starts are not final."""
    return elf.header.type == FileType.REL
