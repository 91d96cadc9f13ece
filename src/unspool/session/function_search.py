"""A file searched for one function, in a worker without privileges: symbol tables for its parts and copies, DWARF for inlined ones."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

from unspool.errors import BadInput
from unspool.formats import debug_info
from unspool.formats.debug_info import FunctionNames
from unspool.formats.elf import Elf
from unspool.session.wanted import Wanted
from unspool.symbols.parser import ParsedFile, _load_libraries

MAX_RANGES = 4096
"""Parts and copies of one function in one file."""
_TAG_SUBPROGRAM = 0x2E  # DW_TAG_subprogram (DWARF 5, table 7.3)

Handle = Callable[[list[Any], list[int]], dict[str, Any]]


def handler(function: str) -> Callable[[], Handle]:
    """A worker's `prepare`, for requests about the file that was opened last.

    ["open", build id] + descriptor, ["attach", crc] + descriptor: `ParsedFile.facts`; ["ranges"]: its parts and copies; ["inlined"].
    """

    def prepare() -> Handle:
        # What is imported later finds no file any more.
        _load_libraries(lines=False)
        wanted = Wanted(function)
        opened: list[_SearchedFile] = []

        def handle(request: list[Any], descriptors: list[int]) -> dict[str, Any]:
            try:
                return _handle(opened, wanted, request, descriptors)
            except BadInput as error:
                return {"error": str(error)}
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

        return handle

    return prepare


def _handle(opened: list[_SearchedFile], wanted: Wanted, request: list[Any], descriptors: list[int]) -> dict[str, Any]:
    operation, *arguments = request
    if operation == "open":
        opened[:] = [_SearchedFile(descriptors[0], arguments[0])]
        return opened[0].facts()
    if operation == "attach":
        return opened[0].attach(descriptors[0], arguments[0])
    if operation == "ranges":
        return {"ranges": sorted(set(opened[0].ranges(wanted)))[:MAX_RANGES]}
    return {"inlined": opened[0].inlined_only(wanted)}


class _SearchedFile(ParsedFile):
    """One file, searched for a function; this runs in the worker."""

    def ranges(self, wanted: Wanted) -> Iterator[tuple[int, int]]:
        """The function's parts and copies as [start, end) in bytes of the file, from every symbol table there is."""
        for table in self._symbol_tables():
            if not table.mentions(wanted.identifier):
                continue
            for symbol in table:
                if wanted.identifier in symbol.name.encode() and wanted.matches(symbol.name):
                    start = self.elf.file_offset(symbol.address)
                    if start is not None:
                        yield start, start + symbol.size

    def inlined_only(self, wanted: Wanted) -> bool:
        """Whether debug information describes the function, although no symbol table has it: it was inlined everywhere."""
        if self._dwarf_source is None or not wanted.identifier:
            return False
        elf = self._dwarf_source[1]
        strings = elf.section_data(".debug_str") or b""
        if wanted.identifier not in strings:
            return False
        linkage_names = re.findall(rb"\0((?:_Z|_R)[^\0]*%s[^\0]*)" % re.escape(wanted.identifier), strings)
        if any(wanted.matches(name.decode("utf-8", "replace")) for name in linkage_names):
            return True
        # A name without linkage name may be a variable's, too.
        return wanted.name.isidentifier() and wanted.name in _Subprograms(elf).names()


class _Subprograms(FunctionNames):
    """The names of all functions at the top level of all units; slow, so only asked when the name occurs at all."""

    def __init__(self, elf: Elf) -> None:
        super().__init__(elf)
        if not self._info:
            wanted = (".debug_info", ".debug_abbrev", ".debug_str", ".debug_line_str")
            sections = [elf.section_data(name, max_size=debug_info.MAX_SIZE) or b"" for name in wanted]
            self._info, self._abbreviations, self._strings, self._line_strings = sections

    def names(self) -> Iterator[str]:
        offset = 0
        try:
            while offset < len(self._info):
                unit = self._unit(offset)
                for entry, shape in self._top_level(unit):
                    if shape.tag == _TAG_SUBPROGRAM:
                        yield self._name(unit, entry, shape, depth=0) or ""
                offset = unit.end
        except (IndexError, KeyError, ValueError, struct.error):
            return
