"""Where a file's stack trace data is: the `.sframe` section or PT_GNU_SFRAME, and the section's true bytes."""

from __future__ import annotations

from dataclasses import dataclass

from unspool.errors import BadInput
from unspool.formats.elf import Elf, FileType
from unspool.formats.sframe import Section, decode_all

PT_GNU_SFRAME = 0x6474E554
SHT_GNU_SFRAME = 0x6FFFFFF4
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
        return Found(elf.data(section), section.address, section.offset, "section .sframe") if section.size else None
    for segment in elf.segments:
        if segment.type == PT_GNU_SFRAME and segment.file_size:
            return Found(elf.read(segment.offset, segment.file_size), segment.address, segment.offset, "segment PT_GNU_SFRAME")
    return None


def read(elf: Elf) -> list[Section]:
    """Every blob of the file's SFrame data, addresses as the file states them. Raises BadInput when there is none or it is broken.

    In an object file (`ld -r`, `as`) function starts are relocations that were not applied yet: they read as distances of 0.
    """
    found = find(elf)
    if found is None:
        raise BadInput("no .sframe section and no PT_GNU_SFRAME segment", file=elf.file)
    return decode_all(found.data, found.address, file=elf.file)


def is_relocatable(elf: Elf) -> bool:
    """Whether the file is an object file, whose function starts are not final."""
    return elf.header.type == FileType.REL
