"""Names of the procedure linkage table's stubs, which have no symbols: "printf@plt" (System V psABI AMD64, section 5.2)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cached_property

from unspool.formats.elf.file import Elf
from unspool.formats.elf.headers import Section
from unspool.formats.elf.symtab import SymbolTable

_EM_X86_64 = 62
_SHT_RELA = 4
_GLOB_DAT, _JUMP_SLOT, _IRELATIVE = 6, 7, 37
_KINDS = frozenset({_GLOB_DAT, _JUMP_SLOT, _IRELATIVE})
_MAX_RELOCATIONS = 64 << 20
_RELA = struct.Struct("<QQq")
_STUB = 16

NameAt = Callable[[int], str | None]
"""The name of the function at an Svma: for stubs of functions that are chosen when the program starts (IRELATIVE)."""


class PltNames:
    """Stubs by address, for x86-64: each jumps through a slot of the GOT (`ff 25`), and a relocation says which function the slot is for.

    So it does not matter how a linker orders and groups its stubs (.plt, .plt.sec, .plt.got).
    """

    def __init__(self, elf: Elf, name_at: NameAt) -> None:
        """Look for the sections; without them (and for other machines) no address is a stub."""
        self._elf = elf
        self._name_at = name_at
        known = elf.machine == _EM_X86_64 and elf.layout.bits == 64
        self._stubs = [s for s in elf.sections if s.name.startswith((".plt", ".iplt")) and s.has_bytes] if known else []

    def find(self, address: int) -> tuple[str, int] | None:
        """The name of the stub that holds the address, and where it starts; None when it is none."""
        for section in self._stubs:
            if section.address <= address < section.address + section.size:
                size = section.entry_size if section.entry_size in {8, 16} else _STUB
                start = section.address + (address - section.address) // size * size
                name = self._function(self._elf.read(section.offset + start - section.address, size), start)
                return (f"{name}@plt", start) if name else None
        return None

    def _function(self, code: bytes, start: int) -> str | None:
        jump = code.find(b"\xff\x25")
        if jump >= 0 and jump + 6 <= len(code):
            slot = start + jump + 6 + int.from_bytes(code[jump + 2 : jump + 6], "little", signed=True)
            return self._by_slot.get(slot)
        # With indirect branch tracking .plt holds `endbr64; push index; jmp`, and the jump through the slot is in .plt.sec.
        push = code.find(b"\x68")
        if push in {0, 4} and push + 5 <= len(code):
            index = int.from_bytes(code[push + 1 : push + 5], "little")
            return self._in_order[index] if index < len(self._in_order) else None
        return None

    @cached_property
    def _by_slot(self) -> dict[int, str]:
        return {slot: name for section in self._relocations for slot, name in self._rows(section) if name}

    @cached_property
    def _in_order(self) -> list[str]:
        return [name for section in self._relocations if section.name == ".rela.plt" for _, name in self._rows(section)]

    @property
    def _relocations(self) -> list[Section]:
        return [s for s in self._elf.sections if s.type == _SHT_RELA and s.name.startswith((".rela.plt", ".rela.dyn", ".rela.iplt"))]

    def _rows(self, section: Section) -> list[tuple[int, str]]:
        data = self._elf.data(section, max_size=_MAX_RELOCATIONS)
        symbols = self._symbols(section)
        found = []
        for slot, info, addend in _RELA.iter_unpack(data[: len(data) // _RELA.size * _RELA.size]):
            kind, index = info & 0xFFFFFFFF, info >> 32
            if kind == _IRELATIVE:
                found.append((slot, self._name_at(addend) or ""))
            elif kind in _KINDS and symbols is not None:
                found.append((slot, symbols.name(index)))
        return found

    def _symbols(self, section: Section) -> SymbolTable | None:
        sections = self._elf.sections
        if not 0 < section.link < len(sections) or sections[section.link].link >= len(sections):
            return None
        table = sections[section.link]
        return SymbolTable(self._elf.data(table), self._elf.data(sections[table.link]), self._elf)
