"""The code ranges of a file's FDEs and function symbols, read with nothing of the unwinder that is being judged."""

from __future__ import annotations

import struct

from unspool.errors import BadInput
from unspool.formats.elf.file import Elf

_SIZES = {0x00: 8, 0x02: 2, 0x03: 4, 0x04: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}
_PCREL = 0x10


def function_ranges(elf: Elf) -> list[tuple[int, int]]:
    """Every FDE's [start, end) in stated addresses, sorted; pieces that touch stay apart."""
    section = elf.section(".eh_frame")
    if section is None:
        return []
    try:
        data = elf.data(section)
    except BadInput:
        return []
    order = elf.layout.byte_order
    encodings: dict[int, int] = {}
    ranges: set[tuple[int, int]] = set()
    at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], order)
        body, end = at + 4, at + 4 + length
        if length in {0, 0xFFFFFFFF} or end > len(data):
            at += 4 if length == 0 else len(data)
            continue
        pointer = int.from_bytes(data[body : body + 4], order)
        if pointer == 0:
            encodings[at] = _pointer_encoding(data[body + 4 : end])
        elif (encoding := encodings.get(body - pointer)) is not None:
            found = _range(data[body + 4 : end], encoding, section.address + body + 4, order)
            if found[0] < found[1]:
                ranges.add(found)
        at = end
    return sorted(ranges)


def _range(data: bytes, encoding: int, address: int, order: str) -> tuple[int, int]:
    size = _SIZES[encoding & 0xF]
    sign = ">" if order == "big" else "<"
    kind = {2: "h", 4: "i", 8: "q"}[size]
    start, length = struct.unpack_from(f"{sign}{kind}{kind.upper()}", data)
    if encoding & 0x70 == _PCREL:
        start += address
    start &= (1 << 64) - 1
    return start, start + length


def _pointer_encoding(cie: bytes) -> int:
    end = cie.index(0, 1)
    augmentation = cie[1:end]
    if not augmentation.startswith(b"z"):
        return 0
    at = end + 1
    for _ in range(3):  # code alignment, data alignment, return address register
        while cie[at] & 0x80:
            at += 1
        at += 1
    at += 1  # length of the augmentation data, below 128
    for letter in augmentation[1:]:
        if letter == ord("R"):
            return cie[at]
        if letter == ord("L"):
            at += 1
        elif letter == ord("P"):
            at += 1 + _SIZES[cie[at] & 0xF]
    return 0


def function_symbols(elf: Elf) -> list[tuple[str, int, int]]:
    """Name, stated address and size of every function that the symbol tables name."""
    layout = struct.Struct((">" if elf.layout.byte_order == "big" else "<") + "IBBHQQ")
    found = []
    for section in elf.sections:
        if section.type not in {2, 11} or section.link >= len(elf.sections):  # SHT_SYMTAB, SHT_DYNSYM
            continue
        names = elf.data(elf.sections[section.link])
        for name, info, _, defined, address, size in layout.iter_unpack(elf.data(section)):
            if info & 0xF in {2, 10} and defined:  # STT_FUNC, STT_GNU_IFUNC
                found.append((names[name : names.index(0, name)].decode("utf-8", "replace"), address, size))
    return found
