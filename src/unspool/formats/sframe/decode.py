"""SFrame sections from bytes to values: versions 1 to 3, both byte orders, several blobs in one section.

Every error names the section offset, the FDE's index and the rule that is broken. What a lookup can live with (unsorted functions, slack
after the last row) is read; `unspool.toolkit` reports it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

from unspool.errors import BadInput
from unspool.formats.sframe.layout import (
    ATTRIBUTE_SIZE,
    HEADER_SIZE,
    INDEX_ENTRY_SIZE,
    LATEST,
    MAGIC,
    VALID_FLAGS,
    Abi,
    Base,
    Fde,
    FdeType,
    Flag,
    Fre,
    FreType,
    Header,
    PcType,
    Section,
)

SIGNED = {1: "b", 2: "h", 4: "i"}
UNSIGNED = {1: "B", 2: "H", 4: "I"}


def decode_all(data: bytes, address: int = 0, *, file: str = "") -> list[Section]:
    """Every blob of a section: GNU ld writes one, lld and gold put their inputs behind each other.

    Zero bytes behind a blob are the slack that GNU ld leaves; anything else there must be a blob of its own. An empty section has none.
    """
    sections = []
    position = 0
    while position < len(data):
        if position and not any(data[position:]):
            break
        sections.append(decode(data[position:], address + position, file=file, base=position))
        position += sections[-1].header.size
    return sections


def decode(data: bytes, address: int = 0, *, file: str = "", base: int = 0) -> Section:
    """One blob at the start of `data`, whose first byte is at `address` (Svma); bytes behind it are left alone.

    `base` is added to the offsets of error messages. Raises BadInput.
    """
    header = decode_header(data, file=file, base=base)
    reader = _Reader(data, address, header, file, base)
    return Section(address, header, tuple(reader.fdes()))


def decode_header(data: bytes, *, file: str = "", base: int = 0, size: int | None = None) -> Header:
    """The header: sub-sections inside the section's `size` bytes (all of `data` unless it is given), version and flags known.

    Raises BadInput.
    """
    size = len(data) if size is None else size

    def bad(what: str, offset: int) -> BadInput:
        return BadInput(f"SFrame header: {what}", file=file, offset=base + offset)

    if len(data) < HEADER_SIZE:
        raise bad(f"{len(data)} bytes, {HEADER_SIZE} are needed", 0)
    order = _byte_order(data)
    if order is None:
        raise bad(f"magic {int.from_bytes(data[:2], 'little'):#x} is not {MAGIC:#x}", 0)
    sign = "<" if order == "little" else ">"
    version, flags, abi, fixed_fp, fixed_ra, aux_len, num_fdes, num_fres, fre_len, fdeoff, freoff = struct.unpack_from(
        f"{sign}BBBbbBIIIII", data, 2
    )
    if version not in VALID_FLAGS:
        raise bad(f"version {version} is not 1, 2 or {LATEST}", 2)
    if flags & ~VALID_FLAGS[version]:
        raise bad(f"flags {flags:#x} hold bits that version {version} does not know", 3)
    if abi not in Abi.__members__.values():
        raise bad(f"abi_arch {abi} is no machine", 4)
    if Abi(abi).byte_order != order:
        raise bad(f"abi_arch {Abi(abi).name} in {order}-endian data", 4)
    header = Header(
        version, Flag(flags), Abi(abi), fixed_fp, fixed_ra, num_fdes, num_fres, fre_len, fdeoff, freoff,
        bytes(data[HEADER_SIZE : HEADER_SIZE + aux_len]),
    )  # fmt: skip
    index_end = HEADER_SIZE + aux_len + fdeoff + num_fdes * INDEX_ENTRY_SIZE[version]
    if HEADER_SIZE + aux_len > size or index_end > size:
        raise bad(f"the index of {num_fdes} FDEs ends at {index_end:#x}, behind the section's {size:#x} bytes", 8)
    if num_fdes and index_end > header.fres_start:
        raise bad(f"the index ends at {index_end:#x}, behind the start of the rows at {header.fres_start:#x}", 20)
    if header.size > size:
        raise bad(f"the rows end at {header.size:#x}, behind the section's {size:#x} bytes", 16)
    return header


def _byte_order(data: bytes) -> Literal["little", "big"] | None:
    """The order in which the first two bytes are the magic."""
    if data[:2] == MAGIC.to_bytes(2, "little"):
        return "little"
    return "big" if data[:2] == MAGIC.to_bytes(2, "big") else None


@lru_cache(maxsize=512)
def _words_of(sign: str, count: int, size: int, *, flex: bool) -> struct.Struct:
    """The unpacker of a row's data words: control words, the even ones of a flexible row, are unsigned."""
    if not flex:
        return struct.Struct(sign + SIGNED[size] * count)
    return struct.Struct(sign + UNSIGNED[size] * count)


class _Reader:
    """Reads the functions of one blob."""

    def __init__(self, data: bytes, address: int, header: Header, file: str, base: int) -> None:
        self.data = data
        self.address = address
        self.header = header
        self.file = file
        self.base = base
        self.sign = "<" if header.abi.byte_order == "little" else ">"
        self.index = 0

    def bad(self, what: str, offset: int) -> BadInput:
        return BadInput(f"SFrame FDE {self.index}: {what}", file=self.file, offset=self.base + offset)

    def fdes(self) -> Iterator[Fde]:
        size = INDEX_ENTRY_SIZE[self.header.version]
        for index in range(self.header.num_fdes):
            self.index = index
            position = self.header.index_start + index * size
            yield self._fde_v3(position) if self.header.version == LATEST else self._fde_v2(position)

    def _start(self, position: int, value: int) -> int:
        # Version 2 counts from the section's start, but with the PCREL flag (and so version 3 in practice) from this very field.
        origin = self.address + (position if self.header.flags & Flag.FDE_FUNC_START_PCREL else 0)
        return (origin + value) & 0xFFFF_FFFF_FFFF_FFFF

    def _fde_v3(self, position: int) -> Fde:
        start, size, fre_offset = struct.unpack_from(f"{self.sign}qII", self.data, position)
        if fre_offset + ATTRIBUTE_SIZE > self.header.fre_len:
            raise self.bad(f"its attribute at {fre_offset:#x} lies behind the rows' {self.header.fre_len:#x} bytes", position + 12)
        attribute = self.header.fres_start + fre_offset
        count, info, info2, rep_size = struct.unpack_from(f"{self.sign}HBBB", self.data, attribute)
        if info2 & 0x1F > FdeType.FLEX:
            raise self.bad(f"fde_type {info2 & 0x1F} is neither default nor flexible", attribute + 3)
        fde_type = FdeType(info2 & 0x1F)
        fre_type = self._fre_type(info, attribute + 2)
        fres = self._fres(attribute + ATTRIBUTE_SIZE, count, fre_type, flex=fde_type is FdeType.FLEX)
        return Fde(
            self._start(position, start), size, fres, fre_type, PcType(info >> 4 & 1), fde_type, bool(info & 0x80),
            "B" if info & 0x20 else "A", rep_size, fre_offset,
        )  # fmt: skip

    def _fde_v2(self, position: int) -> Fde:
        start, size, fre_offset, count, info = struct.unpack_from(f"{self.sign}iIIIB", self.data, position)
        rep_size = self.data[position + 17] if self.header.version > 1 else 0
        if fre_offset > self.header.fre_len:
            raise self.bad(f"its rows at {fre_offset:#x} lie behind the rows' {self.header.fre_len:#x} bytes", position + 8)
        fre_type = self._fre_type(info, position + 16)
        fres = self._fres(self.header.fres_start + fre_offset, count, fre_type, flex=False)
        return Fde(
            self._start(position, start), size, fres, fre_type, PcType(info >> 4 & 1),
            pauth_key="B" if info & 0x20 else "A", rep_size=rep_size, fre_offset=fre_offset,
        )  # fmt: skip

    def _fre_type(self, info: int, offset: int) -> FreType:
        if info & 0xF > FreType.ADDR4:
            raise self.bad(f"fre_type {info & 0xF} is none of 0, 1, 2", offset)
        return FreType(info & 0xF)

    def _fres(self, position: int, count: int, fre_type: FreType, *, flex: bool) -> tuple[Fre, ...]:
        end = self.header.size
        # A row is at least a start and an info byte: a count that cannot fit is refused before anything of its size is built.
        if position + count * (fre_type.size + 1) > end:
            raise self.bad(f"its {count} rows cannot fit before the rows' end at {end:#x}", position)
        fres = []
        for _ in range(count):
            fre, position = self._fre(position, fre_type, flex=flex)
            fres.append(fre)
        return tuple(fres)

    def _fre(self, position: int, fre_type: FreType, *, flex: bool) -> tuple[Fre, int]:
        end = self.header.size
        words_at = position + fre_type.size + 1
        if words_at > end:
            raise self.bad(f"a row starts behind the rows' end at {end:#x}", position)
        start = int.from_bytes(self.data[position : position + fre_type.size], self.header.abi.byte_order)
        info = self.data[words_at - 1]
        count = info >> 1 & 0xF
        code = info >> 5 & 3
        if code > 2:
            raise self.bad("data word size code 3", words_at - 1)
        size = 1 << code
        if words_at + count * size > end:
            raise self.bad(f"a row's {count} data words end behind the rows' end at {end:#x}", words_at)
        words = _words_of(self.sign, count, size, flex=flex).unpack_from(self.data, words_at)
        if flex:
            words = flexible_words(words, size)
        return Fre(start, words, Base(info & 1), size, bool(info & 0x80)), words_at + count * size


def flexible_words(words: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The words of a flexible row with its offsets signed: which word is an offset depends on the ones before it.

    Pairs of (unsigned control, signed offset) for CFA, RA and FP; a lone 0 in RA's place says that there is no rule for it.
    """
    out: list[int] = []
    control = True
    for word in words:
        if control:
            out.append(word)
            # CFA's pair is always whole; a control of 0 after it is padding without an offset.
            control = word == 0 and len(out) > 2
            continue
        out.append(word - (1 << size * 8) if word >> (size * 8 - 1) else word)
        control = True
    return tuple(out)
