"""Strict validation of SFrame data: every rule of the specification, of the kernel's readers, and what only the whole file shows.

A finding is of one of three kinds: `format`, a rule of the specification is broken; `kernel`, the specification allows it but the
kernel's unwinder (the series "unwind_user/sframe") refuses the section or the function; `warning`, the data can be used but lies or lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from unspool.errors import BadInput
from unspool.formats.elf import Elf
from unspool.formats.elf.symtab import SymbolType, symbol_tables
from unspool.formats.sframe import BadRow, Base, Fde, FdeType, Flag, PcType, Section, decode, rule_of
from unspool.formats.sframe.layout import ATTRIBUTE_SIZE, INDEX_ENTRY_SIZE, LATEST
from unspool.toolkit.sections import EM_ABI, SHT_GNU_SFRAME, Found, find, is_relocatable

Kind = Literal["format", "kernel", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: `offset` is bytes from the section's start, `fde` the function's index; None where neither applies."""

    kind: Kind
    rule: str
    message: str
    offset: int | None = None
    fde: int | None = None


def check_file(elf: Elf) -> list[Finding]:
    """Every finding of a file's SFrame data. Raises BadInput when the file has none or is no readable ELF file."""
    found = find(elf)
    if found is None:
        raise BadInput("no .sframe section and no PT_GNU_SFRAME segment", file=elf.file)
    sections, findings = check_data(found.data, found.address, relocatable=is_relocatable(elf))
    findings += _container(elf, found)
    for section in sections:
        findings += _against_file(elf, section)
    return findings


def check_data(data: bytes, address: int = 0, *, relocatable: bool = False) -> tuple[list[Section], list[Finding]]:
    """The blobs that can be read, and every finding that the bytes alone show; `relocatable`: function starts are not final."""
    sections: list[Section] = []
    findings: list[Finding] = []
    position = 0
    while position < len(data):
        if position and not any(data[position:]):
            # GNU ld lays out the sum of its inputs before it merges them.
            break
        blob = data[position:]
        try:
            section = decode(blob, address + position, base=position)
        except BadInput as error:
            findings.append(Finding("format", "structure", error.what, error.offset))
            return sections, findings
        if position:
            message = "several blobs in one section (lld and gold concatenate): readers of the specification see the first only"
            findings.append(Finding("kernel", "one-blob", message, position))
        sections.append(section)
        findings += _section(section, blob, position, relocatable=relocatable)
        position += section.header.size
    return sections, findings


def _section(section: Section, data: bytes, base: int, *, relocatable: bool) -> Iterator[Finding]:
    yield from _header(section, base)
    for index, fde in enumerate(section.fdes):
        yield from _function(section, data, base, (index, fde))
    if not relocatable:
        yield from _order(section, base)
    yield from _areas(section, base)


def _header(section: Section, base: int) -> Iterator[Finding]:
    header = section.header
    if header.version != LATEST:
        yield Finding("warning", "version", f"version {header.version}: the kernel reads version {LATEST} only", base + 2)
    elif not header.flags & Flag.FDE_FUNC_START_PCREL:
        yield Finding("kernel", "pcrel", "the flag FDE_FUNC_START_PCREL is not set", base + 3)
    if not header.flags & Flag.FDE_SORTED:
        yield Finding("kernel", "sorted-flag", "the flag FDE_SORTED is not set: lookups are linear, the kernel refuses it", base + 3)
    if header.aux:
        yield Finding("kernel", "aux-header", f"an auxiliary header of {len(header.aux)} bytes, which no version defines", base + 7)
    if header.fixed_ra_offset != header.abi.fixed_ra_offset:
        message = f"fixed RA offset {header.fixed_ra_offset}, the ABI's is {header.abi.fixed_ra_offset}"
        yield Finding("format", "fixed-ra", message, base + 6)
    if header.fixed_fp_offset:
        yield Finding("warning", "fixed-fp", f"fixed FP offset {header.fixed_fp_offset}: no ABI has one", base + 5)
    if not header.num_fdes or not header.num_fres:
        yield Finding("kernel", "empty", f"{header.num_fdes} FDEs and {header.num_fres} FREs: the kernel registers none of it", base + 8)
    total = sum(len(fde.fres) for fde in section.fdes)
    if total != header.num_fres:
        yield Finding("format", "num-fres", f"the FDEs hold {total} FREs, the header says {header.num_fres}", base + 12)


def _function(section: Section, data: bytes, base: int, numbered: tuple[int, Fde]) -> Iterator[Finding]:
    index, fde = numbered
    offset = base + section.header.fres_start + fde.fre_offset
    for rule, message in (*_reserved(section, data, index, fde), *_shape(fde), *_rows(section, fde)):
        yield Finding("format", rule, message, offset, index)
    if not fde.fres and not fde.signal:
        yield Finding(
            "warning", "no-rows", "a function without rows: outermost by the specification, not found by the kernel", offset, index
        )
    if fde.fres and fde.fres[0].start:
        yield Finding("warning", "late-row", f"no rule for the first {fde.fres[0].start} bytes of the function", offset, index)


def _reserved(section: Section, data: bytes, index: int, fde: Fde) -> Iterator[tuple[str, str]]:
    header = section.header
    if header.version == LATEST:
        attribute = header.fres_start + fde.fre_offset
        if data[attribute + 2] & 0x40 or data[attribute + 3] & 0xE0:
            yield "reserved-bits", f"reserved bits set in the attribute's info bytes {data[attribute + 2]:#x} {data[attribute + 3]:#x}"
        return
    entry = header.index_start + index * INDEX_ENTRY_SIZE[header.version]
    if data[entry + 16] & 0xC0:
        yield "reserved-bits", f"reserved bits set in the info byte {data[entry + 16]:#x}"
    if header.version > 1 and any(data[entry + 18 : entry + 20]):
        yield "reserved-bits", "the padding of the index entry is not 0"


def _shape(fde: Fde) -> Iterator[tuple[str, str]]:
    if fde.pc_type is PcType.MASK and not fde.rep_size:
        yield "rep-size", "a repeated block of 0 bytes: a reader that does not check divides by zero"
    if fde.pc_type is PcType.INC and fde.rep_size:
        yield "rep-size", f"a repeated block of {fde.rep_size} bytes in a function that does not repeat"
    for first, second in pairwise(fde.fres):
        if second.start <= first.start:
            yield "row-order", f"a row at +{second.start:#x} behind a row at +{first.start:#x}"
            break
    limit = fde.rep_size if fde.pc_type is PcType.MASK else fde.size
    late = next((fre for fre in fde.fres if fre.start >= limit and not (fre.start == 0 and fde.size == 0)), None)
    if late is not None:
        yield "row-range", f"a row at +{late.start:#x}, behind the {limit:#x} bytes it is in"


def _rows(section: Section, fde: Fde) -> Iterator[tuple[str, str]]:
    header = section.header
    for fre in fde.fres:
        rule = rule_of(fde, fre, header.abi, version=header.version, fixed=(header.fixed_ra_offset, header.fixed_fp_offset))
        if isinstance(rule, BadRow):
            yield "row-words", f"row at +{fre.start:#x}: {rule.reason}"
        elif fde.fde_type is FdeType.FLEX and fre.base is not Base.FP:
            yield "reserved-bits", f"row at +{fre.start:#x}: the base register bit is set in a flexible row"
        elif fre.mangled_ra and header.abi.name.startswith(("AMD64", "S390X")):
            yield "mangled-ra", f"row at +{fre.start:#x}: a signed return address on {header.abi.name.lower()}"


def _order(section: Section, base: int) -> Iterator[Finding]:
    numbered = list(enumerate(section.fdes))
    size = INDEX_ENTRY_SIZE[section.header.version]
    if section.header.flags & Flag.FDE_SORTED:
        for (_, first), (index, second) in pairwise(numbered):
            offset = base + section.header.index_start + index * size
            if second.start < first.start:
                message = f"starts at {second.start:#x}, behind a function at {first.start:#x}, in a section that says it is sorted"
                yield Finding("format", "sorted", message, offset, index)
            elif second.start == first.start:
                yield Finding("kernel", "same-start", f"starts at {second.start:#x} like the function before it", offset, index)
    ordered = sorted((item for item in numbered if item[1].size), key=lambda item: item[1].start)
    for (_, first), (index, second) in pairwise(ordered):
        if first.start + first.size > second.start:
            message = f"[{second.start:#x}, +{second.size:#x}) overlaps the function at [{first.start:#x}, +{first.size:#x})"
            yield Finding("format", "overlap", message, base + section.header.index_start + index * size, index)


def _areas(section: Section, base: int) -> Iterator[Finding]:
    """Rows that two functions share, and bytes of the FRE sub-section that no function owns."""
    ranges = sorted((fde.fre_offset, fde.fre_offset + rows_size(section, fde), index) for index, fde in enumerate(section.fdes))
    end = 0
    for start, stop, index in ranges:
        offset = base + section.header.fres_start + start
        if start < end:
            yield Finding("format", "shared-rows", f"its rows start at {start:#x}, inside another function's", offset, index)
        elif start > end:
            yield Finding("warning", "unused-bytes", f"{start - end} bytes before its rows belong to no function", offset, index)
        end = max(end, stop)
    if section.fdes and end < section.header.fre_len:
        message = f"{section.header.fre_len - end} bytes behind the last row belong to no function"
        yield Finding("warning", "unused-bytes", message, base + section.header.fres_start + end)


def rows_size(section: Section, fde: Fde) -> int:
    """The bytes of a function's attribute and rows in the FRE sub-section."""
    attribute = ATTRIBUTE_SIZE if section.header.version == LATEST else 0
    return attribute + sum(fde.fre_type.size + 1 + len(fre.words) * fre.word_size for fre in fde.fres)


def _container(elf: Elf, found: Found) -> Iterator[Finding]:
    section = elf.section(".sframe")
    if section is not None and section.type != SHT_GNU_SFRAME:
        message = f"section type {section.type:#x} is not SHT_GNU_SFRAME: GNU ld 2.46 and newer ignore such an input"
        yield Finding("warning", "section-type", message)
    if is_relocatable(elf):
        return
    if not any(segment.type == 0x6474E554 for segment in elf.segments):
        yield Finding("kernel", "segment", "no PT_GNU_SFRAME segment: nothing finds the data in a running process")
    if not any(load.address <= found.address and found.address + len(found.data) <= load.address + load.file_size for load in elf.loads):
        yield Finding("kernel", "not-loaded", f"the data at {found.address:#x} lies in no PT_LOAD segment")


def _against_file(elf: Elf, section: Section) -> Iterator[Finding]:
    expected = EM_ABI.get((elf.machine, elf.layout.byte_order))
    if expected is not None and expected != section.header.abi:
        yield Finding("format", "abi", f"abi_arch {section.header.abi.name} in a file for another machine", 4)
    if is_relocatable(elf):
        return
    text = [(load.address, load.address + load.memory_size) for load in elf.loads if load.executable]
    for index, fde in enumerate(section.fdes):
        if not any(start <= fde.start and fde.start + fde.size <= end for start, end in text):
            yield Finding("format", "outside-text", f"[{fde.start:#x}, +{fde.size:#x}) lies in no executable segment", None, index)
    yield from _plt_got(elf, section)


def _plt_got(elf: Elf, section: Section) -> Iterator[Finding]:
    """GNU ld 2.44 to 2.47 writes sp+16 for .plt.got, where the truth (and .eh_frame) is sp+8."""
    plt = elf.section(".plt.got")
    if plt is None or section.header.abi.name != "AMD64_LITTLE":
        return
    for index, fde in enumerate(section.fdes):
        if fde.pc_type is PcType.MASK and plt.address <= fde.start < plt.address + plt.size and _says_16(fde):
            yield Finding("warning", "plt-got", "GNU ld's .plt.got bug: the CFA is sp+8 there, the row says sp+16", None, index)


def _says_16(fde: Fde) -> bool:
    return bool(fde.fres) and fde.fres[0].base is Base.SP and fde.fres[0].words[:1] == (16,)


def uncovered(elf: Elf, sections: Sequence[Section]) -> list[tuple[int, int, str]]:
    """The functions of the symbol tables that no FDE covers: (address, size, name), sorted."""
    ranges = sorted((fde.start, fde.start + fde.size) for section in sections for fde in section.fdes)
    missing = []
    position = 0
    for address, size, name in sorted(functions(elf)):
        while position < len(ranges) and ranges[position][1] <= address:
            position += 1
        if position == len(ranges) or not ranges[position][0] <= address:
            missing.append((address, size, name))
    return missing


def functions(elf: Elf) -> set[tuple[int, int, str]]:
    """The functions that the file's symbol tables name, one name an address: (address, size, name)."""
    by_address: dict[int, tuple[int, int, str]] = {}
    for table in symbol_tables(elf):
        for symbol in table:
            if symbol.size and symbol.type != SymbolType.NOTYPE:
                by_address.setdefault(symbol.address, (symbol.address, symbol.size, symbol.name))
    return set(by_address.values())
