"""SFrame sections from values to bytes: version 3, and version 2 for consumers that know no other; laid out as GNU as and ld do."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from unspool.errors import BadInput
from unspool.formats.sframe.decode import SIGNED, UNSIGNED
from unspool.formats.sframe.layout import (
    ATTRIBUTE_SIZE,
    HEADER_SIZE,
    INDEX_ENTRY_SIZE,
    LATEST,
    MAGIC,
    Abi,
    Base,
    Fde,
    FdeType,
    Flag,
    Fre,
    FreType,
    PcType,
)

MOST_FRES = 0xFFFF
MOST_WORDS = 15


def encode(
    fdes: Sequence[Fde], abi: Abi, address: int, *, version: int = LATEST, keep_order: bool = False, flags: Flag | None = None
) -> bytes:
    """The section whose first byte will be at `address` (Svma), functions sorted by address as GNU ld writes them.

    `keep_order` writes them in the order given, without the sorted flag; rows are laid out in the order of their `fre_offset` where they
    have one, so that a decoded section becomes the same bytes again. Raises BadInput for what the version cannot express.
    """
    if version not in {2, LATEST}:
        message = f"SFrame version {version} is not written, only 2 and {LATEST}"
        raise BadInput(message)
    ordered = list(fdes) if keep_order else sorted(fdes, key=lambda fde: fde.start)
    offsets, rows = _rows(ordered, abi, version)
    if flags is None:
        flags = Flag.FDE_FUNC_START_PCREL | (Flag(0) if keep_order else Flag.FDE_SORTED)
    index = _index(ordered, offsets, (abi, address, version, flags))
    sign = _sign(abi)
    header = struct.pack(
        f"{sign}HBBBbbBIIIII", MAGIC, version, int(flags), int(abi), 0, abi.fixed_ra_offset, 0,
        len(ordered), sum(len(fde.fres) for fde in ordered), len(rows), 0, len(index),
    )  # fmt: skip
    return header + index + rows


def _sign(abi: Abi) -> str:
    return "<" if abi.byte_order == "little" else ">"


def _rows(fdes: Sequence[Fde], abi: Abi, version: int) -> tuple[list[int], bytes]:
    """Each function's offset in the FRE sub-section, and the sub-section."""
    layout = sorted(range(len(fdes)), key=lambda i: (fdes[i].fre_offset < 0, fdes[i].fre_offset if fdes[i].fre_offset >= 0 else i))
    offsets = [0] * len(fdes)
    out = bytearray()
    # Functions that share their rows' very tuple share everything but their place (see toolkit.convert).
    written: dict[tuple[object, ...], bytes] = {}
    for index in layout:
        fde = fdes[index]
        key = (id(fde.fres), fde.fre_type, fde.pc_type, fde.fde_type, fde.signal, fde.pauth_key, fde.rep_size)
        rows = written.get(key)
        if rows is None:
            rows = written[key] = encode_rows(fde, abi, version)
        offsets[index] = len(out)
        out += rows
    return offsets, bytes(out)


def encode_rows(fde: Fde, abi: Abi, version: int = LATEST) -> bytes:
    """One function's bytes in the FRE sub-section: the attribute (version 3 only) and its rows."""
    if len(fde.fres) > MOST_FRES:
        message = f"{len(fde.fres)} rows of the function at {fde.start:#x}, {MOST_FRES} is the most"
        raise BadInput(message)
    sign = _sign(abi)
    out = bytearray()
    if version == LATEST:
        info = fde.fre_type | fde.pc_type << 4 | (fde.pauth_key == "B") << 5 | fde.signal << 7
        out += struct.pack(f"{sign}HBBB", len(fde.fres), info, int(fde.fde_type), fde.rep_size)
        assert len(out) == ATTRIBUTE_SIZE
    elif fde.signal or fde.fde_type is FdeType.FLEX:
        message = f"the function at {fde.start:#x} needs version 3 (a signal frame, or flexible rows)"
        raise BadInput(message)
    for fre in fde.fres:
        out += _row(fre, fde, abi)
    return bytes(out)


def _row(fre: Fre, fde: Fde, abi: Abi) -> bytes:
    try:
        start = fre.start.to_bytes(fde.fre_type.size, abi.byte_order)
        return start + _row_rest(fre.words, fre.word_size, fre.base, abi, flex=fde.fde_type is FdeType.FLEX, mangled_ra=fre.mangled_ra)
    except (OverflowError, struct.error) as error:
        message = f"a row at {fde.start:#x}+{fre.start:#x} does not fit its widths: {error}"
        raise BadInput(message) from None


# A file's rows hold a few dozen different rules.
@lru_cache(maxsize=1 << 12)
def _row_rest(words: tuple[int, ...], size: int, base: Base, abi: Abi, *, flex: bool, mangled_ra: bool) -> bytes:
    """A row's bytes behind its start: info and data words."""
    if len(words) > MOST_WORDS:
        message = f"{len(words)} data words in a row, {MOST_WORDS} is the most"
        raise BadInput(message)
    info = (0 if flex else base) | len(words) << 1 | {1: 0, 2: 1, 4: 2}[size] << 5 | mangled_ra << 7
    if not flex:
        return bytes([info]) + struct.pack(_sign(abi) + SIGNED[size] * len(words), *words)
    mask = (1 << size * 8) - 1
    return bytes([info]) + struct.pack(_sign(abi) + UNSIGNED[size] * len(words), *(word & mask for word in words))


def _index(fdes: Sequence[Fde], offsets: Sequence[int], where: tuple[Abi, int, int, Flag]) -> bytes:
    abi, address, version, flags = where
    sign, size = _sign(abi), INDEX_ENTRY_SIZE[version]
    out = bytearray()
    for number, (fde, offset) in enumerate(zip(fdes, offsets, strict=True)):
        origin = address + (HEADER_SIZE + number * size if flags & Flag.FDE_FUNC_START_PCREL else 0)
        distance = _signed(fde.start - origin)
        try:
            if version == LATEST:
                out += struct.pack(f"{sign}qII", distance, fde.size, offset)
                continue
            info = fde.fre_type | fde.pc_type << 4 | (fde.pauth_key == "B") << 5
            out += struct.pack(f"{sign}iIIIBBH", distance, fde.size, offset, len(fde.fres), info, fde.rep_size, 0)
        except struct.error as error:
            message = f"the function at {fde.start:#x} cannot be expressed from a section at {address:#x}: {error}"
            raise BadInput(message) from None
    return bytes(out)


def _signed(value: int) -> int:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    return value - (1 << 64) if value >> 63 else value


def fre_type_for(size: int) -> FreType:
    """The width GAS gives a function's row starts: by the function's size, not by the largest start."""
    return FreType.ADDR1 if size < 1 << 8 else FreType.ADDR2 if size < 1 << 16 else FreType.ADDR4


def word_size_for(words: Sequence[int], fde_type: FdeType = FdeType.DEFAULT) -> int:
    """The smallest width that holds every word of a row: offsets as signed numbers, a flexible row's control words as unsigned ones."""
    control = fde_type is FdeType.FLEX
    size = 1
    for index, word in enumerate(words):
        limit = _unsigned_width(word) if control else _signed_width(word)
        size = max(size, limit)
        if fde_type is FdeType.FLEX:
            control = not control or (word == 0 and index > 1)
    return size


def _signed_width(word: int) -> int:
    return next(size for size in (1, 2, 4, 8) if -(1 << size * 8 - 1) <= word < 1 << size * 8 - 1)


def _unsigned_width(word: int) -> int:
    return next(size for size in (1, 2, 4, 8) if word < 1 << size * 8)


def row(start: int, words: Sequence[int], *, base: Base = Base.FP, fde_type: FdeType = FdeType.DEFAULT, mangled_ra: bool = False) -> Fre:
    """A row with the narrowest words. Raises BadInput when a word needs more than 4 bytes."""
    size = word_size_for(words, fde_type)
    if size > 4:
        message = f"a data word of {words} needs more than 4 bytes"
        raise BadInput(message)
    return Fre(start, tuple(words), base if fde_type is FdeType.DEFAULT and words else Base.FP, size, mangled_ra)


def function(start: int, size: int, fres: Sequence[Fre], *, fde_type: FdeType = FdeType.DEFAULT, signal: bool = False) -> Fde:
    """A function found by offset (not a repeated block), its rows as wide as GAS makes them."""
    return Fde(start, size, tuple(fres), fre_type_for(size), PcType.INC, fde_type, signal)
