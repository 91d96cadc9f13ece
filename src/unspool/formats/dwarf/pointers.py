"""Encoded pointers of .eh_frame and .eh_frame_hdr (Linux Standard Base 5.0, section 10.5.1: DWARF exception header encoding)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from unspool.formats.dwarf.cursor import Cursor

_MASK = (1 << 64) - 1


class Format(enum.IntEnum):
    """The low four bits: how the value is stored."""

    ABSPTR = 0x00
    ULEB128 = 0x01
    UDATA2 = 0x02
    UDATA4 = 0x03
    UDATA8 = 0x04
    SIGNED = 0x08
    SLEB128 = 0x09
    SDATA2 = 0x0A
    SDATA4 = 0x0B
    SDATA8 = 0x0C


class Base(enum.IntEnum):
    """Bits 4 to 6: what the value is relative to."""

    ABS = 0x00
    PCREL = 0x10
    TEXTREL = 0x20
    DATAREL = 0x30
    FUNCREL = 0x40
    ALIGNED = 0x50


INDIRECT = 0x80
OMIT = 0xFF

_FIXED = {
    Format.UDATA2: (2, False),
    Format.UDATA4: (4, False),
    Format.UDATA8: (8, False),
    Format.SDATA2: (2, True),
    Format.SDATA4: (4, True),
    Format.SDATA8: (8, True),
}


@dataclass(frozen=True, slots=True)
class Bases:
    """What relative pointers count from: addresses of the text, of the data (.eh_frame_hdr's own start) and of the function."""

    text: int | None = None
    data: int | None = None
    function: int | None = None


def fixed_size(encoding: int, word: int) -> int | None:
    """The bytes that a pointer of this encoding takes, None when that depends on its value."""
    form = encoding & 0x0F
    if form in {Format.ABSPTR, Format.SIGNED}:
        return word
    fixed = _FIXED.get(Format(form)) if form in _FIXED else None
    return None if fixed is None else fixed[0]


def stored(cursor: Cursor, encoding: int, word: int) -> int:
    """The value as it is stored, before any base is added."""
    form = encoding & 0x0F
    if form == Format.ABSPTR:
        return cursor.unsigned(word)
    if form == Format.SIGNED:
        return cursor.signed(word)
    if form == Format.ULEB128:
        return cursor.uleb()
    if form == Format.SLEB128:
        return cursor.sleb()
    if form not in _FIXED:
        raise cursor.bad(f"pointer encoding {encoding:#x}")
    size, signed = _FIXED[Format(form)]
    return cursor.signed(size) if signed else cursor.unsigned(size)


def pointer(cursor: Cursor, encoding: int, word: int, bases: Bases = Bases()) -> int:
    """The address that stands at the cursor, which is itself at `cursor.origin + cursor.offset`. Of an indirect one: its slot."""
    base = encoding & 0x70
    if base == Base.ALIGNED:
        here = cursor.origin + cursor.offset
        cursor.bytes(-here % word)
        return cursor.unsigned(word)
    address = cursor.origin + cursor.offset
    value = stored(cursor, encoding, word)
    # A null pointer stays null (libgcc's read_encoded_value_with_base).
    origins = {
        Base.ABS: 0,
        Base.PCREL: address if value else 0,
        Base.TEXTREL: bases.text,
        Base.DATAREL: bases.data,
        Base.FUNCREL: bases.function,
    }
    origin = origins.get(Base(base)) if base <= Base.FUNCREL else None
    if origin is None:
        raise cursor.bad(f"pointer encoding {encoding:#x} has no base here")
    return (origin + value) & (_MASK if word == 8 else 0xFFFFFFFF)
