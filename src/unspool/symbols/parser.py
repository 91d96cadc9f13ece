"""What runs in a worker: files in, names out. Its requests and answers are JSON; see `prepare`."""

from __future__ import annotations

import mmap
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from unspool.errors import BadInput
from unspool.formats.debug_info import FunctionNames
from unspool.formats.elf import Elf, SectionFlag
from unspool.formats.elf.debug_links import alt_link, debug_link, mini_debug_info
from unspool.formats.elf.part import debug_part
from unspool.formats.elf.plt import PltNames
from unspool.formats.elf.symtab import ElfSymbol, SymbolTable, preferred, symbol_tables
from unspool.symbols.demangle import demangled, without_clone_mark
from unspool.symbols.dwarf_file import DwarfFile, has_dwarf, image_base
from unspool.symbols.reasons import Reason

MAX_NAME = 4096
_MAX_INLINED = 256
# A part of .debug_info is worth its making when it spares the reading of this many bytes (stored), for a stack's worth of addresses.
_LARGE = 256 << 10
_FEW = 64
# Files that stay open in one worker: each may hold the symbols of a large program.
_MAX_OPEN = 16


class ParsedFile:
    """One program or library, with the separate files that tell more of it."""

    def __init__(self, descriptor: int, build_id: str) -> None:
        """Read its headers; BadInput when it is no ELF file, or not the build that was asked for."""
        self.data, self.elf = _mapped(descriptor)
        if build_id and self.elf.build_id != build_id:
            raise BadInput(Reason.OTHER_BUILD.value)
        self._dwarf_source = (self.data, self.elf) if has_dwarf(self.elf) else None
        self._debug: Elf | None = None
        self._tables: list[SymbolTable] | None = None
        self._dwarf: DwarfFile | None = None
        self._dwarf_names: FunctionNames | None = None
        self._functions: dict[int, str] = {}
        self._plt: PltNames | None = None
        self._was_asked = False

    def facts(self) -> dict[str, Any]:
        """What the parent needs to know to find the separate files."""
        link = debug_link(self.elf)
        return {
            "build_id": self.elf.build_id,
            "link": link.name if link else "",
            "crc": link.crc if link else 0,
            "dwarf": self._dwarf_source is not None,
            "alt": self._has_alt(),
            "base": image_base(self.elf),
        }

    def attach(self, descriptor: int, crc: int | None) -> dict[str, Any]:
        """Take a separate debug file, which must have the same build id, or without one the checksum; {} when it is not the right one."""
        data, debug = _mapped(descriptor)
        right = debug.build_id == self.elf.build_id if self.elf.build_id else zlib.crc32(data) == crc
        if not right or debug.machine != self.elf.machine:
            return {}
        self._debug = debug
        if has_dwarf(debug):
            self._dwarf_source = (data, debug)
        return {"dwarf": self._dwarf_source is not None, "alt": self._has_alt()}

    def names(self, addresses: list[int], *, stated: bool, lines: bool) -> list[str | list[list[Any]]]:
        """The calls at file offsets (or with `stated` Svmas) as [function, offset, file, line, inlined]; or the reason for none."""
        svmas = addresses if stated else [self.elf.svma(address) for address in addresses]
        dwarf = self._lines({svma for svma in svmas if svma is not None}) if lines else None
        return [Reason.NOT_IN_FILE.value if svma is None else self._name(svma, dwarf) for svma in svmas]

    def _name(self, svma: int, dwarf: DwarfFile | None) -> str | list[list[Any]]:
        symbols = self._covering(svma)
        calls = dwarf.calls(svma) if dwarf else []
        if not symbols and not calls:
            stub = self._stub(svma)
            if stub is not None:
                return [[_shown(stub[0].removesuffix("@plt")) + "@plt", svma - stub[1], None, None, False]]
            return Reason.NO_SYMBOL.value if self._symbol_tables() else Reason.STRIPPED.value
        found: list[list[Any]] = [
            [_shown(self._plain(call.function)), 0, call.file, call.line, True] for call in calls[:-1][:_MAX_INLINED] if call.function
        ]
        file, line = (calls[-1].file, calls[-1].line) if calls else (None, None)
        if symbols:
            start = symbols[0].address
            if start not in self._functions:
                self._functions[start] = self._function(symbols, described=bool(calls))
            function = self._functions[start]
        else:
            function, start = self._plain(calls[-1].function), calls[-1].start or svma
        return [*found, [_shown(function), max(0, svma - start), file, line, False]]

    def _function(self, symbols: list[ElfSymbol], *, described: bool) -> str:
        name = None
        if described and len(symbols) > 1:
            with suppress(BadInput):
                name = self._function_names().name_of(symbols[0].address, {symbol.name for symbol in symbols})
        name = name or preferred(symbols).name
        return self._plain(name) if described else name

    def _plain(self, name: str) -> str:
        """The name that debug information would state; in Go `main.cold` is a function named cold."""
        return name if self.elf.section(".gopclntab") else without_clone_mark(name)

    def _covering(self, svma: int) -> list[ElfSymbol]:
        label: list[ElfSymbol] = []
        for table in self._symbol_tables():
            symbols = table.covering(svma)
            if symbols and symbols[0].size:
                return symbols
            label = label or symbols
        return label if label and self._same_code(label[0].address, svma) else []

    def _same_code(self, start: int, svma: int) -> bool:
        """Whether one section holds both (one segment, without sections): a label says nothing of code behind its section, as in gdb."""
        pieces = [(s.address, s.size) for s in self.elf.sections if s.flags & SectionFlag.EXECUTE]
        pieces = pieces or [(s.address, s.memory_size) for s in self.elf.loads if s.executable]
        return any(address <= start and svma < address + size for address, size in pieces)

    def _symbol_tables(self) -> list[SymbolTable]:
        """Fullest first: the debug file's, the file's own, those of MiniDebugInfo."""
        if self._tables is None:
            tables = [*symbol_tables(self._debug)] if self._debug else []
            tables += symbol_tables(self.elf)
            # What is broken here takes nothing from the other tables.
            with suppress(BadInput):
                mini = mini_debug_info(self.elf) if not self._debug else None
                if mini is not None:
                    tables += symbol_tables(Elf(mini, file=".gnu_debugdata"))
            self._tables = [table for table in tables if len(table) > 1]
        return self._tables

    def _stub(self, svma: int) -> tuple[str, int] | None:
        if self._plt is None:
            self._plt = PltNames(self.elf, self._symbol_name)
        with suppress(BadInput):
            return self._plt.find(svma)
        return None

    def _symbol_name(self, address: int) -> str | None:
        symbols = self._covering(address)
        return preferred(symbols).name if symbols else None

    def _function_names(self) -> FunctionNames:
        if self._dwarf_names is None:
            self._dwarf_names = FunctionNames(self._dwarf_source[1] if self._dwarf_source else self.elf)
        return self._dwarf_names

    def _lines(self, svmas: set[int]) -> DwarfFile | None:
        """The DWARF to look the addresses up in: of a large file the part that describes them, when they are few and the first."""
        if self._dwarf is None and self._dwarf_source is not None:
            data, elf = self._dwarf_source
            info = elf.section(".debug_info")
            try:
                if info is not None and info.size > _LARGE and len(svmas) <= _FEW and not self._was_asked:
                    self._was_asked = True
                    units = self._function_names().units_of(svmas)
                    if units is not None:
                        part = debug_part(elf, units)
                        return DwarfFile(part, Elf(part))
                self._dwarf = DwarfFile(data, elf)
            except (ImportError, ValueError, BadInput):
                self._dwarf_source = None
        return self._dwarf

    def _has_alt(self) -> bool:
        return self._dwarf_source is not None and alt_link(self._dwarf_source[1]) is not None


def prepare(*, lines: bool) -> Callable[[Any, list[int]], object]:
    """The function that answers a worker's requests; loads what must be loaded while files can be opened.

    ["open", id, build id] + descriptor       {"build_id", "link", "crc", "dwarf", "alt"} or {"error"}
    ["attach", id, crc] + descriptor          {"dwarf", "alt"}, {} when it belongs to another file
    ["svmas", id, offsets]                    the addresses of file offsets, 0 for none
    ["names", id, addresses, stated, lines]   a list of reasons (str) and calls (list); None when the file is not open any more
    """
    _load_libraries(lines=lines)
    files: OrderedDict[int, ParsedFile] = OrderedDict()

    def handle(request: list[Any], descriptors: list[int]) -> object:
        try:
            return _handle(files, request, descriptors)
        except BadInput as error:
            return {"error": str(error)[:MAX_NAME]}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    return handle


def _handle(files: OrderedDict[int, ParsedFile], request: list[Any], descriptors: list[int]) -> object:
    operation, number, *arguments = request
    if operation == "open":
        files[number] = ParsedFile(descriptors[0], arguments[0])
        while len(files) > _MAX_OPEN:
            files.popitem(last=False)
        return files[number].facts()
    file = files.get(number)
    if file is None:
        return None
    files.move_to_end(number)
    if operation == "attach":
        return file.attach(descriptors[0], arguments[0])
    if operation == "svmas":
        return [file.elf.svma(offset) or 0 for offset in arguments[0]]
    addresses, stated, with_lines = arguments
    return file.names(addresses, stated=stated, lines=with_lines)


def _load_libraries(*, lines: bool) -> None:
    from unspool.formats.elf.compression import _zstd_library

    _zstd_library()
    demangled("_Z1fv")
    if lines:
        with suppress(ImportError):
            import symbolic.debuginfo  # noqa: F401


def _mapped(descriptor: int) -> tuple[mmap.mmap, Elf]:
    try:
        data = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    except (ValueError, OSError) as error:
        raise BadInput(f"cannot be mapped: {error}") from None
    return data, Elf(data)


def _shown(name: str) -> str:
    return demangled(name)[:MAX_NAME]
