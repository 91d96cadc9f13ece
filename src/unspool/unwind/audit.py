"""What a file gives a reliable unwinder: code without unwind data, rules that cost a stack its verdict, and the ends of stacks in it."""

from __future__ import annotations

import enum
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from unspool.errors import BadInput, Unsupported
from unspool.formats.dwarf import Cie, Fde, FrameSection, Row, SearchTable, rows
from unspool.formats.dwarf.expression import Context, Failure, evaluate
from unspool.formats.elf import Elf, SegmentType
from unspool.formats.elf.headers import FileType, SectionFlag
from unspool.formats.elf.symtab import symbol_tables
from unspool.model.arch import ARCHES, Arch
from unspool.model.memory import Bytes
from unspool.unwind.rule import Rule, rule_of


class Kind(enum.Enum):
    """What a function's rows show; the value is the label in JSON."""

    OTHER_REGISTER = "other-register"
    """The CFA is relative to a register that a function need not give back: only the innermost frame knows it (reason reg-unavailable)."""
    NONSTANDARD_RA = "nonstandard-ra"
    """The return address is not where the ABI puts it (reason ra-rule-nonstandard)."""
    EXCEPTION_COMMIT = "exception-commit"
    """The function ends in __builtin_eh_return (reason eh-commit, from the call of uw_install_context on)."""
    PROCESS_ENTRY = "process-entry"
    """The function holds the file's entry point: stacks end in it."""
    OUTERMOST = "outermost"
    """The return address is undefined elsewhere: the base of a thread, else reason end-unexpected."""
    SIGNAL_FRAME = "signal-frame"
    """A signal trampoline."""
    EXPRESSION = "expression"
    """The CFA is a DWARF expression that can be evaluated."""
    UNSUPPORTED = "unsupported"
    """A rule that cannot be followed (reasons unsupported-rule, bad-cfi, expr-limit)."""
    BROKEN = "broken"
    """Unwind data that cannot be read (reasons bad-cfi, parse-budget)."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Code in `[start, end)` (Svma) without unwind data, padding taken off; `symbols` are the functions that begin in it."""

    start: int
    end: int
    section: str
    symbols: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Finding:
    """A function whose rows in `[start, end)` (the first and the last of them) show something; `count` rows do."""

    kind: Kind
    start: int
    end: int
    function: str
    count: int
    detail: str


@dataclass(frozen=True, slots=True)
class Audit:
    """All that was found. `code` are all executable bytes, `padding` those of them between functions, `covered` those with a row.

    `table` says what .eh_frame_hdr is worth: without a complete one an unwinder cannot find in memory what the file holds.
    """

    file: str
    arch: Arch
    code: int
    covered: int
    padding: int
    functions: int
    rows: int
    table: str
    gaps: tuple[Gap, ...]
    findings: tuple[Finding, ...]

    @property
    def missing(self) -> int:
        """Bytes of code without unwind data."""
        return sum(gap.size for gap in self.gaps)

    @property
    def missing_share(self) -> float:
        """The part of the code, without padding, that has no unwind data: 0 to 1."""
        code = self.code - self.padding
        return self.missing / code if code else 0.0

    @property
    def is_sound(self) -> bool:
        """Whether all that is there can be read, and found in memory."""
        return self.table == "complete" and not any(finding.kind in {Kind.BROKEN, Kind.UNSUPPORTED} for finding in self.findings)


def audit(elf: Elf) -> Audit:
    """Read all unwind data of the file. Unsupported for another machine; broken entries are findings."""
    arch = ARCHES.get(elf.machine)
    if arch is None or elf.layout.bits != 64:
        raise Unsupported(f"{elf.file}: machine {elf.machine} ({elf.layout.bits} bits) is not one that can be unwound", hint="")
    if elf.header.type == FileType.REL:
        raise Unsupported(
            f"{elf.file} is an object file: its unwind data has no addresses yet", hint="Link it, and audit what comes of it."
        )
    section = eh_frame(elf, arch)
    symbols = sorted({(symbol.address, symbol.name) for table in symbol_tables(elf) for symbol in table})
    fdes, broken = read_fdes(section) if section else ([], [])
    findings, row_count = examine(fdes, elf, arch, symbols)
    gaps, code, covered, padding = coverage(elf, fdes, symbols)
    state = table_state(elf, arch, fdes)
    return Audit(elf.file, arch, code, covered, padding, len(fdes), row_count, state, tuple(gaps), (*broken, *findings))


# -- where the unwind data is


def eh_frame(elf: Elf, arch: Arch) -> FrameSection | None:
    """.eh_frame by its section, without sections by PT_GNU_EH_FRAME; None when the file has none."""
    section = elf.section(".eh_frame")
    if section is not None:
        data = elf.data(section)
        return FrameSection(Bytes(section.address, data), section.address, section.address + len(data), byte_order=arch.byte_order)
    table = search_table(elf, arch)
    if table is None:
        return None
    for load in elf.loads:
        end = load.address + load.file_size
        if load.address <= table.frames < end:
            data = elf.read_svma(table.frames, end - table.frames)
            return FrameSection(Bytes(table.frames, data), table.frames, end, byte_order=arch.byte_order)
    return None


def search_table(elf: Elf, arch: Arch) -> SearchTable | None:
    """.eh_frame_hdr, None when there is none; BadInput when it is broken."""
    for segment in elf.segments:
        if segment.type == SegmentType.GNU_EH_FRAME:
            data = elf.read_svma(segment.address, segment.file_size)
            return SearchTable.read(Bytes(segment.address, data), segment.address, size=len(data), byte_order=arch.byte_order)
    return None


def table_state(elf: Elf, arch: Arch, fdes: Sequence[Fde]) -> str:
    """`complete`, `absent`, `broken`, `unsorted`, or how many functions are missing in it."""
    try:
        table = search_table(elf, arch)
        if table is None or not table.count:
            return "absent" if fdes else "complete"
        pairs = list(table)
    except BadInput:
        return "broken"
    if any(first[0] > second[0] for first, second in pairwise(pairs)):
        return "unsorted"
    missing = {(fde.start, fde.address) for fde in fdes if fde.end > fde.start} - set(pairs)
    return f"{len(missing)} functions missing" if missing else "complete"


def read_fdes(section: FrameSection) -> tuple[list[Fde], list[Finding]]:
    """The FDEs up to the first entry that cannot be read, and that one as a finding."""
    fdes: list[Fde] = []
    try:
        fdes.extend(entry for entry in section.entries() if not isinstance(entry, Cie))
    except BadInput as error:
        at = error.offset or 0
        return fdes, [Finding(Kind.BROKEN, at, at, "", 1, str(error))]
    return fdes, []


# -- what the rows show


def examine(fdes: Iterable[Fde], elf: Elf, arch: Arch, symbols: Sequence[tuple[int, str]]) -> tuple[list[Finding], int]:
    """The findings of all functions, by address, and how many rows were seen."""
    findings: list[Finding] = []
    seen = 0
    for fde in sorted(fdes, key=lambda fde: fde.start):
        shown: dict[Kind, list[tuple[Row, str]]] = {}
        try:
            for row in rows(fde):
                seen += 1
                for kind, detail in kinds_of(row, fde, elf, arch):
                    shown.setdefault(kind, []).append((row, detail))
        except BadInput as error:
            findings.append(Finding(Kind.BROKEN, fde.start, fde.end, name_of(symbols, fde.start), 1, str(error)))
        for kind, found in shown.items():
            details = ", ".join(dict.fromkeys(detail for _, detail in found if detail))
            findings.append(Finding(kind, found[0][0].start, found[-1][0].end, name_of(symbols, fde.start), len(found), details))
    return findings, seen


def kinds_of(row: Row, fde: Fde, elf: Elf, arch: Arch) -> Iterator[tuple[Kind, str]]:
    """What one row shows."""
    rule = rule_of(row, fde, arch)
    if not isinstance(rule, Rule):
        yield Kind.UNSUPPORTED, rule.detail
        return
    if rule.signal:
        yield Kind.SIGNAL_FRAME, ""
    if rule.outermost:
        yield (Kind.PROCESS_ENTRY if elf.entry and elf.entry in fde else Kind.OUTERMOST), ""
    if rule.nonstandard_ra:
        yield Kind.NONSTANDARD_RA, rule.ra.how.name.lower().replace("_", "-")
    if rule.saves_exception_data:
        yield Kind.EXCEPTION_COMMIT, ""
    failure = next((found for expression in expressions(rule) if (found := unsupported(expression, arch)) is not None), None)
    if failure is not None:
        yield Kind.UNSUPPORTED, failure
    elif rule.cfa.expression is not None:
        yield Kind.EXPRESSION, ""
    elif rule.cfa.register != arch.sp and rule.cfa.register not in arch.callee_saved:
        yield Kind.OTHER_REGISTER, arch.register_name(rule.cfa.register)


def expressions(rule: Rule) -> Iterator[bytes]:
    """Every expression of the rule."""
    if rule.cfa.expression is not None:
        yield rule.cfa.expression
    for how in (rule.ra, *(how for _, how in rule.registers)):
        if how.expression:
            yield how.expression


class _Zeros:
    """Registers and memory that hold nothing but zeros: what an expression needs to run."""

    @staticmethod
    def get(number: int, /) -> int | None:
        """Zero."""
        return 0 if number >= 0 else None

    @staticmethod
    def read(address: int, size: int) -> bytes | None:
        """Zeros."""
        return bytes(size) if address >= 0 else None


def unsupported(expression: bytes, arch: Arch) -> str | None:
    """Why the expression cannot be evaluated, None when it can."""
    result = evaluate(expression, Context(_Zeros, _Zeros, arch.byte_order), (0,))
    return result.detail if isinstance(result, Failure) else None


def name_of(symbols: Sequence[tuple[int, str]], address: int) -> str:
    """A symbol at exactly that address, "" when there is none."""
    index = bisect_left(symbols, (address, ""))
    return symbols[index][1] if index < len(symbols) and symbols[index][0] == address else ""


# -- what code has rows

_PADDING = {
    # NOP in all its lengths (Intel SDM volume 2, "NOP") and int3. Zeros are padding only in long runs: operands end in them.
    "x86_64": re.compile(rb"(?:[\x66\x2e\xf3]*+(?:\x90|\x0f\x1f(?:[\x00-\x03]|\x40.|\x44..|\x80.{4}|\x84.{5}))|\xcc)*+", re.DOTALL),
    "aarch64": re.compile(rb"(?:\x1f\x20\x03\xd5)*+"),
    # BCR 0, BC 0 and BRCL 0 branch nowhere.
    "s390x": re.compile(rb"(?:\x07[\x00-\x0f]|\x47\x00..|\xc0\x04.{4})*+", re.DOTALL),
}


# A run of equal bytes longer than this is fill, and not the end of an instruction.
_LONGEST_OPERAND = 16


def coverage(elf: Elf, fdes: Sequence[Fde], symbols: Sequence[tuple[int, str]]) -> tuple[list[Gap], int, int, int]:
    """The gaps; and the bytes of code, of code with rows, and of padding."""
    gaps: list[Gap] = []
    code = covered = padding = 0
    ranges = merged((fde.start, fde.end) for fde in fdes)
    for name, start, data in executable(elf):
        code += len(data)
        end = start + len(data)
        for low, high in holes(ranges, start, end):
            piece = data[low - start : high - start]
            skipped, kept = without_padding(piece, elf.machine)
            padding += len(piece) - kept
            if kept:
                inside = range(low + skipped, low + skipped + kept)
                first, last = (bisect_left(symbols, (address, "")) for address in (inside.start, inside.stop))
                gaps.append(Gap(inside.start, inside.stop, name, tuple(dict.fromkeys(symbol for _, symbol in symbols[first:last]))))
        covered += sum(max(0, min(high, end) - max(low, start)) for low, high in ranges)
    return gaps, code, covered, padding


def executable(elf: Elf) -> Iterator[tuple[str, int, bytes]]:
    """Every executable section (without sections: segment): its name, stated address and bytes."""
    if elf.sections:
        for section in elf.sections:
            if section.flags & SectionFlag.EXECUTE and section.has_bytes:
                yield section.name, section.address, elf.data(section)
        return
    for load in elf.loads:
        if load.executable:
            yield "segment", load.address, elf.read(load.offset, load.file_size)


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same addresses as sorted ranges that do not touch."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        elif end > start:
            result.append((start, end))
    return result


def holes(ranges: Sequence[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of `[start, end)` that no range covers."""
    at = start
    for low, high in ranges[max(0, bisect_left(ranges, (start, 0)) - 1) :]:
        if low >= end:
            break
        if low > at:
            yield at, low
        at = max(at, high)
    if at < end:
        yield at, end


def without_padding(piece: bytes, machine: int) -> tuple[int, int]:
    """How many bytes of padding the piece begins with, and how many bytes of code follow before nothing but padding is left."""
    if not piece.strip(b"\0"):
        return len(piece), 0
    pattern = _PADDING[ARCHES[machine].name]
    lead = pattern.match(piece)
    skipped = lead.end() if lead else 0
    rest = piece[skipped:]
    filled = rest.rstrip(b"\0\x90\xcc")
    if len(rest) - len(filled) > _LONGEST_OPERAND:
        rest = filled
    # The longest tail that is padding as a whole: every start in the last 64 bytes is tried, because it can begin anywhere.
    for at in range(max(0, len(rest) - 64), len(rest)):
        if pattern.fullmatch(rest, at):
            return skipped, at
    return skipped, len(rest)
