"""The modules of a guest's kernel: where their code lies, their names and their unwind tables, from `struct module` (linux/module.h)."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass
from struct import Struct
from typing import Protocol

from unspool.errors import BadInput
from unspool.formats.btf import Btf
from unspool.formats.btf import Struct as BtfStruct
from unspool.formats.kallsyms_tables import MAX_NAME, KernelSymbols
from unspool.formats.orc import ENTRY_SIZE, OrcEncoding, OrcTable
from unspool.targets.guest.kernel_memory import KernelMemory, list_entries

MAX_MODULES = 4096
MAX_MODULE = 64 << 20
"""The largest module in bytes, and the largest of its tables."""
_MAX_SYMBOLS = 1 << 17
# Symbols and unwind entries of all modules that are kept at a time; a guest may have few modules with many, or many with few.
_MAX_KEPT = 2 << 20
_MAX_STRINGS = 16 << 20
_MAX_STRUCT = 16 << 10
_NAME_SIZE = 56
_UNFORMED = 3
_SYMBOL = Struct("<IBBHQQ")


@dataclass(frozen=True, slots=True)
class ModuleLayout:
    """Where this kernel's `struct module` keeps what is needed; offsets in bytes. The code is one or two (address, size) fields."""

    size: int
    list: int
    name: int
    state: int | None
    text: tuple[tuple[int, int], ...]
    span: tuple[tuple[int, int], ...]
    kallsyms: int | None
    symtab: tuple[int, int, int, int] | None
    orc: tuple[int, int, int] | None

    @classmethod
    def of(cls, btf: Btf) -> ModuleLayout:
        """The layout by the kernel's BTF; BadInput when its struct is none that is known."""
        module = btf.struct("module")
        layout = cls(
            size=module.size,
            list=module.offset("list"),
            name=module.offset("name"),
            state=_offset(module, "state"),
            text=_text_fields(btf, module),
            span=_span_fields(btf, module),
            kallsyms=_offset(module, "kallsyms"),
            symtab=_symtab(btf),
            orc=_orc(module),
        )
        ends = [layout.list + 16, layout.name + _NAME_SIZE, (layout.state or 0) + 4, *(size + 4 for _, size in layout.text + layout.span)]
        if not max(ends) <= layout.size <= _MAX_STRUCT:
            raise BadInput(f"struct module of {layout.size} bytes with members beyond its end", file="BTF")
        return layout


@dataclass(frozen=True, slots=True)
class ModulePlace:
    """One entry of the list: the address of its struct, its name, its code ranges, and its lowest and highest address."""

    struct: int
    name: str
    text: tuple[tuple[int, int], ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ModuleTables:
    """What is read of a module when it is first asked for; None what it has not, or what cannot be read."""

    symbols: KernelSymbols | None
    orc: OrcTable | None

    @property
    def weight(self) -> int:
        """How many entries that are."""
        return 1 + len(self.symbols or ()) + len(self.orc or ())


class ModuleReader:
    """Reads modules of one kernel, and keeps what was read last, up to a limit."""

    def __init__(self, memory: KernelMemory, layout: ModuleLayout, encoding: OrcEncoding | None) -> None:
        """`encoding` is that of the kernel's own ORC table, None when it has none."""
        self._memory = memory
        self._layout = layout
        self._encoding = encoding
        self._kept: OrderedDict[ModulePlace, ModuleTables] = OrderedDict()
        self._weight = 0

    def tables(self, place: ModulePlace) -> ModuleTables:
        """The module's names and unwind table."""
        found = self._kept.get(place)
        if found is not None:
            return found
        found = self._kept[place] = ModuleTables(self._symbols(place), self._orc(place))
        self._weight += found.weight
        while self._weight > _MAX_KEPT and len(self._kept) > 1:
            self._weight -= self._kept.popitem(last=False)[1].weight
        return found

    def _symbols(self, place: ModulePlace) -> KernelSymbols | None:
        try:
            return KernelSymbols.of(self._rows(place))
        except BadInput:
            return None

    def _orc(self, place: ModulePlace) -> OrcTable | None:
        if self._layout.orc is None or self._encoding is None:
            return None
        ip_field, entry_field, count_field = (place.struct + offset for offset in self._layout.orc)
        ips_at, entries_at, count = self._memory.word(ip_field), self._memory.word(entry_field), self._memory.half(count_field)
        if not ips_at or not entries_at or not count or count * ENTRY_SIZE > MAX_MODULE:
            return None
        ips, entries = self._memory.read(ips_at, count * 4), self._memory.read(entries_at, count * ENTRY_SIZE)
        if ips is None or entries is None:
            return None
        try:
            return OrcTable(ips, entries, self._encoding, ips_at)
        except BadInput:
            return None

    def _rows(self, place: ModulePlace) -> list[tuple[int, str, str]]:
        """Address, type letter and name of every symbol that has a name."""
        fields = self._layout.symtab
        if self._layout.kallsyms is None or fields is None:
            raise BadInput("no symbols", file=place.name)
        table = self._memory.word(place.struct + self._layout.kallsyms)
        if not table:
            raise BadInput("no symbols", file=place.name)
        at, count, names_at, types_at = (self._memory.word(table + offset) for offset in fields)
        count = (count or 0) & 0xFFFF_FFFF
        if not at or not names_at or not 0 < count <= _MAX_SYMBOLS:
            raise BadInput("no symbols", file=place.name)
        rows = self._memory.read(at, count * _SYMBOL.size)
        types = self._memory.read(types_at, count) if types_at else None
        if rows is None:
            raise BadInput("symbols that cannot be read", file=place.name)
        names = self._strings(place, names_at, max(array("Q", rows)[0::3], key=lambda head: head & 0xFFFF_FFFF) & 0xFFFF_FFFF)
        found = []
        for index, (name_at, _, _, section, value, _) in enumerate(_SYMBOL.iter_unpack(rows)):
            name = names[name_at : names.find(b"\0", name_at, name_at + MAX_NAME)]
            if name and b"\n" not in name:
                letter = chr(types[index]) if types is not None and 32 < types[index] < 127 else "t"
                found.append((value if section else 0, letter, name.decode("utf-8", "replace")))
        return found

    def _strings(self, place: ModulePlace, address: int, last: int) -> bytes:
        """The string table up to and with the string at offset `last`."""
        if last > _MAX_STRINGS:
            raise BadInput("names that are too long together", file=place.name)
        known = self._memory.read(address, last)
        final = self._memory.string(address + last, MAX_NAME)
        if known is None or final is None:
            raise BadInput("names that cannot be read", file=place.name)
        return known + final + b"\0"


class Tables(Protocol):
    """What gives a module's tables: a `ModuleReader`, or what knows them without reading."""

    def tables(self, place: ModulePlace) -> ModuleTables:
        """The names and the unwind table of the code at this place."""


class GuestModule:
    """One loaded module. Its names and unwind table are read out of the guest when they are first asked for."""

    def __init__(self, place: ModulePlace, reader: Tables) -> None:
        """Take the place, and what reads the rest."""
        self.place = place
        self._reader = reader

    @property
    def name(self) -> str:
        """The module's name as in /proc/modules."""
        return self.place.name

    @property
    def start(self) -> int:
        """Its lowest address: what /proc/modules calls its address."""
        return self.place.start

    @property
    def end(self) -> int:
        """The address behind its last byte."""
        return self.place.end

    @property
    def symbols(self) -> KernelSymbols | None:
        """Its symbols, None when they cannot be read."""
        return self._reader.tables(self.place).symbols

    @property
    def orc(self) -> OrcTable | None:
        """Its unwind table, None when it has none or it cannot be read."""
        return self._reader.tables(self.place).orc


def read_modules(memory: KernelMemory, head: int, layout: ModuleLayout) -> list[ModulePlace]:
    """The modules on the kernel's list at `head`, newest first; it ends at the first entry that is no module."""
    found: list[ModulePlace] = []
    for node in list_entries(memory, head, MAX_MODULES):
        struct = node - layout.list
        data = memory.read(struct, layout.size)
        place = None if data is None else _place(struct, data, layout)
        if data is None or place is None:
            break
        if layout.state is None or data[layout.state] != _UNFORMED:
            found.append(place)
    return found


def printable_name(name: bytes | None) -> str | None:
    """The name as text, None when it is empty or not of printable ASCII without spaces: then it is no name of the kernel's."""
    if not name or not all(32 < byte < 127 for byte in name):
        return None
    return name.decode("ascii")


def _place(struct: int, data: bytes, layout: ModuleLayout) -> ModulePlace | None:
    name = printable_name(data[layout.name : layout.name + _NAME_SIZE].partition(b"\0")[0])
    text = _ranges(data, layout.text)
    span = _ranges(data, layout.span)
    if name is None or not span:
        return None
    # What belongs to one module lies together (the area for modules has 1.5 GiB); init parts are freed and may be far from the rest.
    return ModulePlace(struct, name, text, span[0][0], span[0][1])


def _ranges(data: bytes, fields: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    found = []
    for base, size in fields:
        start = int.from_bytes(data[base : base + 8], "little")
        length = int.from_bytes(data[size : size + 4], "little")
        if start and 0 < length <= MAX_MODULE and start + length < 1 << 64:
            found.append((start, start + length))
    return tuple(found)


def _text_fields(btf: Btf, module: BtfStruct) -> tuple[tuple[int, int], ...]:
    """The (address, size) fields of the module's code, resident first, then what is there only while it starts."""
    if module.find("mem") is not None:
        # Linux 6.4: one module_memory for each kind of content, numbered by enum mod_mem_type.
        kinds = (btf.enumerator("MOD_TEXT") or 0, btf.enumerator("MOD_INIT_TEXT"))
        return tuple((module.offset(f"mem[{kind}].base"), module.offset(f"mem[{kind}].size")) for kind in kinds if kind is not None)
    return tuple((module.offset(f"{part}.base"), module.offset(f"{part}.text_size")) for part in ("core_layout", "init_layout"))


def _span_fields(btf: Btf, module: BtfStruct) -> tuple[tuple[int, int], ...]:
    if module.find("mem") is not None:
        kind = btf.enumerator("MOD_TEXT") or 0
        return ((module.offset(f"mem[{kind}].base"), module.offset(f"mem[{kind}].size")),)
    return ((module.offset("core_layout.base"), module.offset("core_layout.size")),)


def _symtab(btf: Btf) -> tuple[int, int, int, int] | None:
    if not btf.has("mod_kallsyms"):
        return None
    table = btf.struct("mod_kallsyms")
    return table.offset("symtab"), table.offset("num_symtab"), table.offset("strtab"), table.offset("typetab")


def _orc(module: BtfStruct) -> tuple[int, int, int] | None:
    if module.find("arch.orc_unwind_ip") is None:
        return None
    return module.offset("arch.orc_unwind_ip"), module.offset("arch.orc_unwind"), module.offset("arch.num_orcs")


def _offset(struct: BtfStruct, path: str) -> int | None:
    member = struct.find(path)
    return None if member is None else member.offset
