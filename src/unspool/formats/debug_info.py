"""The name that .debug_info gives a function that the symbol table knows by several (DWARF 5, chapters 2 and 7)."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from unspool.errors import BadInput
from unspool.formats.elf.file import Elf

MAX_SIZE = 256 << 20
_MAX_ENTRIES = 1 << 18
_MAX_NAME = 1 << 16
_MAX_UNITS = 1 << 16

_TAG_SUBPROGRAM = 0x2E
_AT_SIBLING, _AT_NAME, _AT_LOW_PC, _AT_RANGES = 0x01, 0x03, 0x11, 0x55
_AT_LINKAGE_NAME, _AT_MIPS_LINKAGE_NAME = 0x6E, 0x2007
_AT_ABSTRACT_ORIGIN, _AT_SPECIFICATION = 0x31, 0x47

_FORM_ADDR, _FORM_STRING, _FORM_STRP, _FORM_LINE_STRP = 0x01, 0x08, 0x0E, 0x1F
_FORM_IMPLICIT_CONST, _FORM_REF_ADDR = 0x21, 0x10
_NO_ADDRESS = 1 << 64
_OVERLAPS = 8
# Bytes of the forms of one size (DWARF 5, table 7.5 and section 7.5.6).
_FIXED = {
    0x05: 2,  # data2
    0x06: 4,  # data4
    0x07: 8,  # data8
    0x0B: 1,  # data1
    0x0C: 1,  # flag
    0x11: 1,  # ref1
    0x12: 2,  # ref2
    0x13: 4,  # ref4
    0x14: 8,  # ref8
    0x19: 0,  # flag_present
    0x1C: 4,  # ref_sup4
    0x1E: 16,  # data16
    0x20: 8,  # ref_sig8
    0x21: 0,  # implicit_const
    0x24: 8,  # ref_sup8
    0x25: 1,  # strx1
    0x26: 2,  # strx2
    0x27: 3,  # strx3
    0x28: 4,  # strx4
    0x29: 1,  # addrx1
    0x2A: 2,  # addrx2
    0x2B: 3,  # addrx3
    0x2C: 4,  # addrx4
}
_OFFSETS = {0x0E, 0x17, 0x1D, 0x1F}  # strp sec_offset strp_sup line_strp: of the unit's offset size
_ALT_OFFSETS = {0x1F20, 0x1F21}  # GNU_ref_alt GNU_strp_alt
_LEB = {0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23}  # sdata udata ref_udata strx addrx loclistx rnglistx
_REFERENCES = {0x11, 0x12, 0x13, 0x14}
_BLOCKS = {0x0A: 1, 0x03: 2, 0x04: 4}


@dataclass(frozen=True, slots=True)
class _Shape:
    """An abbreviation: tag, whether children follow, its attributes, and its size where all of them have one (-1 if not)."""

    tag: int
    children: bool
    attributes: tuple[tuple[int, int], ...]
    size: int
    sibling: int


@dataclass(frozen=True, slots=True)
class _Unit:
    start: int
    end: int
    first: int
    wide: bool
    address_size: int
    version: int
    shapes: dict[int, _Shape]

    @property
    def offset_size(self) -> int:
        return 8 if self.wide else 4


class FunctionNames:
    """Names of functions by their first address. Reads the one unit that .debug_aranges names, and of it only the top level."""

    def __init__(self, elf: Elf) -> None:
        """Read the sections; BadInput when one is broken. Without .debug_aranges (clang writes none) every answer is None."""
        self._order = "<" if elf.layout.byte_order == "little" else ">"
        self._little = elf.layout.byte_order == "little"
        self._ranges = elf.section_data(".debug_aranges", max_size=MAX_SIZE) or b""
        wanted = (".debug_info", ".debug_abbrev", ".debug_str", ".debug_line_str") if self._ranges else ()
        sections = [elf.section_data(name, max_size=MAX_SIZE) or b"" for name in wanted]
        self._info, self._abbreviations, self._strings, self._line_strings = sections or (b"",) * 4
        self._shapes: dict[int, dict[int, _Shape]] = {}
        self._units: dict[int, _Unit] = {}
        self._starts: dict[int, dict[int | None, list[tuple[int, _Shape]]]] = {}

    def name_of(self, start: int, names: set[str]) -> str | None:
        """Which of the symbol table's `names` for the function at Svma `start` DWARF has as linkage name or name; None if it has none."""
        name = None
        try:
            for unit_offset in self._units_at(start):
                unit = self._unit(unit_offset)
                # A function in several ranges may start with any of them: its name has to do.
                for entry, shape in self._functions(unit).get(start, []) + self._functions(unit).get(None, []):
                    found = self._name(unit, entry, shape, depth=0)
                    # Assembly states several functions at one address; gdb shows the last.
                    name = found if found in names else name
        except (IndexError, KeyError, ValueError, struct.error, BadInput):
            return None
        return name

    def units_of(self, addresses: Iterable[int]) -> bytes | None:
        """The units that describe the addresses, one behind the other: a smaller .debug_info that says all that the whole one says of them.

        None when .debug_aranges does not know one of the addresses, or a unit refers to others, or they are no part but most of it.
        """
        wanted: set[int] = set()
        try:
            for address in addresses:
                units = set(self._units_at(address))
                if not units:
                    return None
                wanted |= units
            units_wanted = [self._unit(offset) for offset in sorted(wanted)]
            if any(self._refers_elsewhere(unit) for unit in units_wanted):
                return None
        except (IndexError, KeyError, ValueError, struct.error, BadInput):
            return None
        part = b"".join(self._info[unit.start : unit.end] for unit in units_wanted)
        return part if len(part) <= len(self._info) // 2 else None

    @staticmethod
    def _refers_elsewhere(unit: _Unit) -> bool:
        return any(form == _FORM_REF_ADDR or form in _ALT_OFFSETS for shape in unit.shapes.values() for _, form in shape.attributes)

    def _units_at(self, address: int) -> Iterator[int]:
        rows = self._arange_rows
        last = bisect_right(rows, (address, _NO_ADDRESS, 0))
        # Ranges of different units may overlap (code that the linker folded), but only few do.
        for start, size, unit in rows[max(0, last - _OVERLAPS) : last]:
            if start <= address < start + size:
                yield unit

    @cached_property
    def _arange_rows(self) -> list[tuple[int, int, int]]:
        data, position = self._ranges, 0
        rows: list[tuple[int, int, int]] = []
        while position + 12 <= len(data) and len(rows) < _MAX_UNITS:
            size, wide, body = self._initial_length(data, position)
            end = min(body + size, len(data))
            unit = self._number(data, body + 2, 8 if wide else 4)
            place = body + 2 + (8 if wide else 4)
            if data[place] != 8 or data[place + 1] != 0:
                position = end
                continue
            place += 2
            place += -(place - position) % 16
            count = (end - place) // 16
            rows += [(row[0], row[1], unit) for row in struct.iter_unpack(self._order + "QQ", data[place : place + 16 * count]) if row[1]]
            position = end
        rows.sort()
        return rows

    def _unit(self, offset: int) -> _Unit:
        if offset not in self._units:
            self._units[offset] = self._read_unit(offset)
        return self._units[offset]

    def _read_unit(self, offset: int) -> _Unit:
        size, wide, place = self._initial_length(self._info, offset)
        end = min(place + size, len(self._info))
        version = self._number(self._info, place, 2)
        step = 8 if wide else 4
        if version >= 5:
            address_size, abbreviations, first = self._info[place + 3], self._number(self._info, place + 4, step), place + 4 + step
            first += 8 if self._info[place + 2] in {4, 5} else 0  # skeleton and split units carry an id
        else:
            abbreviations, address_size, first = self._number(self._info, place + 2, step), self._info[place + 2 + step], place + 3 + step
        return _Unit(offset, end, first, wide, address_size, version, self._table(abbreviations, step, address_size))

    def _top_level(self, unit: _Unit) -> Iterator[tuple[int, _Shape]]:
        """The entries below the unit's own: what has a sibling attribute is stepped over, what has none is walked through."""
        position, depth = unit.first, 0
        for _ in range(_MAX_ENTRIES):
            if position >= unit.end:
                return
            entry = position
            code, position = self._leb(position)
            if code == 0:
                depth -= 1
                if depth <= 0:
                    return
                continue
            shape = unit.shapes[code]
            body = position
            position, sibling = self._skip(unit, shape, position)
            if depth == 1:
                yield body, shape
            if shape.children:
                if sibling > entry and depth >= 1:
                    position = max(position, unit.start + sibling)
                else:
                    depth += 1

    def _skip(self, unit: _Unit, shape: _Shape, position: int) -> tuple[int, int]:
        if shape.size >= 0:
            sibling = self._number(self._info, position + shape.sibling, 4) if shape.sibling >= 0 else 0
            return position + shape.size, sibling
        sibling = 0
        for attribute, form in shape.attributes:
            if attribute == _AT_SIBLING and form in _REFERENCES:
                sibling = self._number(self._info, position, _FIXED[form])
            position = self._after(unit, form, position)
        return position, sibling

    def _functions(self, unit: _Unit) -> dict[int | None, list[tuple[int, _Shape]]]:
        """The unit's functions by first address; under None those in several ranges."""
        if unit.start not in self._starts:
            starts = self._starts[unit.start] = {}
            for entry, shape in self._top_level(unit):
                if shape.tag == _TAG_SUBPROGRAM:
                    low, ranges = self._start(unit, entry, shape)
                    if low or ranges:
                        starts.setdefault(low, []).append((entry, shape))
        return self._starts[unit.start]

    def _start(self, unit: _Unit, entry: int, shape: _Shape) -> tuple[int | None, bool]:
        low, ranges, position = None, False, entry
        for attribute, form in shape.attributes:
            if attribute == _AT_LOW_PC and form == _FORM_ADDR:
                low = self._number(self._info, position, unit.address_size) or None
            ranges = ranges or attribute == _AT_RANGES
            position = self._after(unit, form, position)
        return low, ranges

    def _name(self, unit: _Unit, entry: int, shape: _Shape, depth: int) -> str | None:
        name = linkage = None
        origin, position = 0, entry
        for attribute, form in shape.attributes:
            if attribute == _AT_NAME:
                name = self._string(unit, form, position)
            elif attribute in {_AT_LINKAGE_NAME, _AT_MIPS_LINKAGE_NAME}:
                linkage = self._string(unit, form, position)
            elif attribute in {_AT_ABSTRACT_ORIGIN, _AT_SPECIFICATION} and form in _REFERENCES:
                origin = unit.start + self._number(self._info, position, _FIXED[form])
            position = self._after(unit, form, position)
        if linkage or not origin or depth > 4:
            return linkage or name
        code, body = self._leb(origin)
        return self._name(unit, body, unit.shapes[code], depth + 1) if code in unit.shapes else name

    def _string(self, unit: _Unit, form: int, position: int) -> str | None:
        if form == _FORM_STRING:
            return _text(self._info, position)
        if form in {_FORM_STRP, _FORM_LINE_STRP}:
            table = self._strings if form == _FORM_STRP else self._line_strings
            return _text(table, self._number(self._info, position, unit.offset_size))
        return None

    def _after(self, unit: _Unit, form: int, position: int) -> int:
        """Where the attribute's value ends."""
        size = _form_size(form, unit.offset_size, unit.address_size)
        if size >= 0:
            return position + size
        if form in _LEB:
            return self._leb(position)[1]
        if form == _FORM_STRING:
            return self._info.index(b"\0", position) + 1
        if form in _BLOCKS:
            return position + _BLOCKS[form] + self._number(self._info, position, _BLOCKS[form])
        if form in {0x09, 0x18}:  # block exprloc
            length, position = self._leb(position)
            return position + length
        raise BadInput(f"attribute form {form:#x}", offset=position)

    def _table(self, offset: int, offset_size: int, address_size: int) -> dict[int, _Shape]:
        if offset in self._shapes:
            return self._shapes[offset]
        shapes: dict[int, _Shape] = {}
        data, position = self._abbreviations, offset
        while len(shapes) < _MAX_ENTRIES:
            code, position = _leb128(data, position)
            if code == 0:
                break
            tag, position = _leb128(data, position)
            children = data[position] == 1
            position += 1
            attributes = []
            while True:
                attribute, position = _leb128(data, position)
                form, position = _leb128(data, position)
                if form == _FORM_IMPLICIT_CONST:
                    _, position = _leb128(data, position)
                if not attribute and not form:
                    break
                attributes.append((attribute, form))
            shapes[code] = _shape(tag, children, attributes, offset_size, address_size)
        self._shapes[offset] = shapes
        return shapes

    def _initial_length(self, data: bytes, position: int) -> tuple[int, bool, int]:
        size = self._number(data, position, 4)
        if size == 0xFFFFFFFF:
            return self._number(data, position + 4, 8), True, position + 12
        return size, False, position + 4

    def _number(self, data: bytes, position: int, size: int) -> int:
        return int.from_bytes(data[position : position + size], "little" if self._little else "big")

    def _leb(self, position: int) -> tuple[int, int]:
        return _leb128(self._info, position)


def _shape(tag: int, children: bool, attributes: list[tuple[int, int]], offset_size: int, address_size: int) -> _Shape:  # noqa: FBT001
    total, sibling = 0, -1
    for attribute, form in attributes:
        size = _form_size(form, offset_size, address_size)
        if attribute == _AT_SIBLING:
            # Only a reference of four bytes has its place remembered: it is what compilers write.
            sibling = total if form == 0x13 else sibling
        if size < 0 or (attribute == _AT_SIBLING and form != 0x13):
            return _Shape(tag, children, tuple(attributes), -1, -1)
        total += size
    return _Shape(tag, children, tuple(attributes), total, sibling)


def _form_size(form: int, offset_size: int, address_size: int) -> int:
    if form in _OFFSETS or form in _ALT_OFFSETS or form == _FORM_REF_ADDR:
        return offset_size
    return address_size if form == _FORM_ADDR else _FIXED.get(form, -1)


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise BadInput("LEB128 of more than 64 bits", offset=position)


def _text(table: bytes, offset: int) -> str | None:
    end = table.find(b"\0", offset, offset + _MAX_NAME)
    return table[offset:end].decode("utf-8", "replace") if end >= 0 else None
