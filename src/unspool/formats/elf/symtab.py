"""ELF symbol tables: which function covers an address, and which of its several names is the one to show."""

from __future__ import annotations

import enum
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from unspool.errors import BadInput
from unspool.formats.elf.file import Elf
from unspool.formats.elf.headers import SectionType

MAX_SYMBOLS = 1 << 23
_MAX_NAME = 4096
# How many starts before an address are asked whether they reach it: symbols nest (an entry point in a function) only a few deep.
_NESTING = 16
_MAX_ALIASES = 256
# A dictionary of all rows costs as much as some hundred scans of the column.
_SCANS = 64

DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_GNU_HASH = 4, 5, 6, 10, 0x6FFFFEF5


class SymbolType(enum.IntEnum):
    """Types a code address may have (gABI, "Symbol Table"; STT_GNU_IFUNC)."""

    NOTYPE = 0
    FUNC = 2
    IFUNC = 10


_CODE_TYPES = frozenset(SymbolType)


@dataclass(frozen=True, slots=True)
class ElfSymbol:
    """One function symbol; `address` is an Svma, `size` in bytes and 0 when the assembler was not told."""

    name: str
    address: int
    size: int
    type: int
    binding: int


class SymbolTable:
    """The rows of a .symtab or .dynsym, kept as columns: nothing is decoded before it is asked for."""

    def __init__(self, rows: bytes, names: bytes, elf: Elf) -> None:
        """Take the bytes of the table and of its string table."""
        self._names = names
        self._wide = elf.layout.bits == 64
        entry = 24 if self._wide else 16
        count = min(len(rows) // entry, MAX_SYMBOLS)
        words = array("Q" if self._wide else "I")
        words.frombytes(rows[: count * entry])
        if elf.layout.byte_order != sys.byteorder:
            words.byteswap()
        self._little = elf.layout.byte_order == "little"
        # Elf64_Sym is three words: name|info|other|shndx, value, size; Elf32_Sym four: name, value, size, info|other|shndx.
        self._values = words[1::3] if self._wide else words[1::4]
        self._sizes = words[2::3] if self._wide else words[2::4]
        self._heads = words[0::3] if self._wide else words[3::4]
        self._name_offsets = self._heads if self._wide else words[0::4]
        self._scans = 0

    def __len__(self) -> int:
        """Rows in the table, of any type."""
        return len(self._values)

    def __iter__(self) -> Iterator[ElfSymbol]:
        """Every function symbol, in table order."""
        for index in range(len(self)):
            symbol = self._symbol(index)
            if symbol is not None:
                yield symbol

    def mentions(self, part: bytes) -> bool:
        """Whether any name, of whatever symbol, holds these bytes: a cheap look before every name is decoded."""
        return part in self._names

    @cached_property
    def _starts(self) -> list[int]:
        return sorted(set(self._values))

    def at(self, address: int) -> Iterator[ElfSymbol]:
        """The function symbols that start at the address, in table order."""
        for index in islice(self._rows(address), _MAX_ALIASES):
            symbol = self._symbol(index)
            if symbol is not None:
                yield symbol

    def _rows(self, address: int) -> Iterator[int]:
        self._scans += 1
        if self._scans > _SCANS:
            yield from self._rows_by_value.get(address, ())
            return
        index = -1
        while True:
            try:
                index = self._values.index(address, index + 1)
            except (ValueError, OverflowError):
                return
            yield index

    @cached_property
    def _rows_by_value(self) -> dict[int, list[int]]:
        rows: dict[int, list[int]] = {}
        for index, value in enumerate(self._values):
            rows.setdefault(value, []).append(index)
        return rows

    def covering(self, address: int) -> list[ElfSymbol]:
        """The names of the innermost function that covers the address; else of the nearest label before it without a size; [] for none.

        gdb's rule (lookup_minimal_symbol_by_pc_section): a symbol with a size that ends before the address does not name it.
        """
        labels: list[ElfSymbol] = []
        last = bisect_right(self._starts, address) - 1
        for index in range(last, max(-1, last - _NESTING), -1):
            here = list(self.at(self._starts[index]))
            covers = [symbol for symbol in here if symbol.size and address < symbol.address + symbol.size]
            if covers:
                return covers
            sized = any(symbol.size for symbol in here)
            labels = labels or [symbol for symbol in here if not symbol.size and not sized]
        return labels

    def name(self, index: int) -> str:
        """The name in a row, defined or not, without its version; "" when there is no such row."""
        return self._name(self._name_offset(index)) if index < len(self) else ""

    def _name_offset(self, index: int) -> int:
        if not self._wide:
            return self._name_offsets[index]
        return self._heads[index] & 0xFFFFFFFF if self._little else self._heads[index] >> 32

    def _symbol(self, index: int) -> ElfSymbol | None:
        head = self._heads[index]
        if self._wide:
            info, section = (head >> 32 & 0xFF, head >> 48) if self._little else (head >> 24 & 0xFF, head & 0xFFFF)
        else:
            info, section = (head & 0xFF, head >> 16) if self._little else (head >> 24, head & 0xFFFF)
        if section == 0 or info & 0xF not in _CODE_TYPES:
            return None
        name = self._name(self._name_offset(index))
        # $x, $d and $t mark code and data on AArch64, Arm and RISC-V (ELF for the Arm Architecture, "Mapping symbols").
        if not name or name.startswith("$"):
            return None
        return ElfSymbol(name, self._values[index], self._sizes[index], info & 0xF, info >> 4)

    def _name(self, offset: int) -> str:
        end = self._names.find(b"\0", offset, offset + _MAX_NAME)
        raw = self._names[offset : end if end >= 0 else offset + _MAX_NAME]
        return raw.partition(b"@")[0].decode("utf-8", "replace")


def preferred(names: list[ElfSymbol]) -> ElfSymbol:
    """Of several names of one function the one that gdb shows: the last in byte order (compare_minimal_symbols), whatever its binding.

    That puts `read` before `__read` and `__libc_start_main_impl` before `__libc_start_main_alias_2`. Functions go before untyped labels.
    """
    functions = [symbol for symbol in names if symbol.type != SymbolType.NOTYPE] or names
    return max(functions, key=lambda symbol: symbol.name.encode())


def symbol_tables(elf: Elf) -> Iterator[SymbolTable]:
    """The tables of a file, fullest first: .symtab, then .dynsym; of an image or a file without sections the one of its dynamic segment."""
    found = False
    for kind in (SectionType.SYMTAB, SectionType.DYNSYM):
        for section in elf.sections:
            if section.type == kind and section.link < len(elf.sections):
                found = True
                yield SymbolTable(elf.data(section), elf.data(elf.sections[section.link]), elf)
    if not found:
        table = _dynamic_table(elf)
        if table is not None:
            yield table


def _dynamic_table(elf: Elf) -> SymbolTable | None:
    tags: dict[int, int] = {}
    for tag, value in elf.dynamic:
        tags.setdefault(tag, value)
    if not {DT_SYMTAB, DT_STRTAB, DT_STRSZ} <= tags.keys():
        return None
    count = _symbol_count(elf, tags)
    if count > MAX_SYMBOLS or tags[DT_STRSZ] > MAX_SYMBOLS * 16:
        raise BadInput(f"{count} dynamic symbols, {tags[DT_STRSZ]} bytes of names", file=elf.file)
    entry = 24 if elf.layout.bits == 64 else 16
    return SymbolTable(elf.read_svma(tags[DT_SYMTAB], count * entry), elf.read_svma(tags[DT_STRTAB], tags[DT_STRSZ]), elf)


def _symbol_count(elf: Elf, tags: dict[int, int]) -> int:
    """The count is stated nowhere but in the hash tables: DT_HASH's nchain, or the end of DT_GNU_HASH's last chain."""
    four = elf.layout.fields("I", "I")
    if DT_HASH in tags:
        return int(four.unpack(elf.read_svma(tags[DT_HASH] + 4, 4))[0])
    if DT_GNU_HASH not in tags:
        return 0
    table = tags[DT_GNU_HASH]
    buckets, first, bloom, _ = elf.layout.fields("IIII", "IIII").unpack(elf.read_svma(table, 16))
    if buckets > MAX_SYMBOLS or bloom > MAX_SYMBOLS:
        raise BadInput(f"GNU hash table of {buckets} buckets", file=elf.file)
    buckets_at = table + 16 + bloom * elf.layout.word
    chains_at = buckets_at + 4 * buckets
    last = max((row[0] for row in four.iter_unpack(elf.read_svma(buckets_at, 4 * buckets))), default=0)
    if last < first:
        return int(first)
    # A chain ends at the first hash with its lowest bit set.
    while last < MAX_SYMBOLS and not four.unpack(elf.read_svma(chains_at + 4 * (last - first), 4))[0] & 1:
        last += 1
    return int(last) + 1
