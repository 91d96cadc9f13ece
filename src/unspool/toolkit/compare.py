"""Proves a file's `.sframe` against its `.eh_frame`, at every address where either changes.

equal          the same CFA, return address and frame pointer
weaker         SFrame says less: a signal frame without rows, or no rule where a register is saved
missing        .eh_frame has a rule that SFrame could say, SFrame has none
inexpressible  .eh_frame has a rule that SFrame version 3 has no words for, and SFrame has none
contradictory  both have a rule, and they differ: one of them is wrong
extra          SFrame has a rule where .eh_frame has none
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from unspool.errors import BadInput, Unsupported
from unspool.formats.dwarf.program import Row, rows
from unspool.formats.elf import Elf
from unspool.formats.sframe import CFA, BadRow, Fde, FrameRule, Fre, PcType, Place, Section, rule_of
from unspool.model.arch import Arch
from unspool.toolkit.convert import ARCH_OF, MACHINES, PLT_ENTRY, Inexpressible, PltRows, RowRule, rule_of_row
from unspool.toolkit.make import frame_section
from unspool.toolkit.sections import read
from unspool.toolkit.show import place_text
from unspool.toolkit.stats import difference

MOST_CASES = 1000
"""Cases that are kept for each outcome; all are counted."""


class Outcome(enum.StrEnum):
    """What the comparison of one range of addresses says."""

    EQUAL = "equal"
    WEAKER = "weaker"
    MISSING = "missing"
    INEXPRESSIBLE = "inexpressible"
    CONTRADICTORY = "contradictory"
    EXTRA = "extra"


@dataclass(frozen=True, slots=True)
class Case:
    """One range of addresses `[start, end)` with what both say, as text."""

    outcome: Outcome
    start: int
    end: int
    eh_frame: str
    sframe: str


@dataclass(slots=True)
class Comparison:
    """Ranges and bytes by outcome, and the first cases of those that are not equal."""

    ranges: Counter[Outcome] = field(default_factory=Counter)
    bytes: Counter[Outcome] = field(default_factory=Counter)
    cases: list[Case] = field(default_factory=list)

    @property
    def proved(self) -> bool:
        """Whether nothing contradicts."""
        return not self.ranges[Outcome.CONTRADICTORY]

    def add(self, case: Case) -> None:
        """Count one range."""
        self.ranges[case.outcome] += 1
        self.bytes[case.outcome] += case.end - case.start
        if case.outcome is not Outcome.EQUAL and self.ranges[case.outcome] <= MOST_CASES:
            self.cases.append(case)


def compare(elf: Elf) -> Comparison:
    """The whole file. Raises BadInput when either section is missing or broken."""
    if elf.machine not in MACHINES:
        message = f"{elf.file}: SFrame does not know machine {elf.machine}"
        raise Unsupported(message)
    out = Comparison()
    lookups = [_Lookup(section) for section in read(elf)]
    described = []
    for fde in frame_section(elf).fdes():
        if fde.start >= fde.end:
            continue
        described.append((fde.start, fde.end))
        try:
            for line in rows(fde):
                for case in _against(line, rule_of_row(line, fde, _arch(lookups, elf)), lookups):
                    out.add(case)
        except BadInput as error:
            raise error.within(elf.file) from None
    _extra(out, lookups, described)
    return out


def _arch(lookups: list[_Lookup], elf: Elf) -> Arch:
    return ARCH_OF[lookups[0].section.header.abi] if lookups else ARCH_OF[MACHINES[elf.machine]]


class _Lookup:
    """The rows of one section by address."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self.fdes = sorted((fde for fde in section.fdes if fde.size), key=lambda fde: fde.start)
        self.starts = [fde.start for fde in self.fdes]
        self.rules: dict[tuple[object, ...], FrameRule | BadRow] = {}

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, Fde | None, FrameRule | BadRow | None]]:
        """The addresses cut where the section's answer changes; None where it has none."""
        index = max(bisect_right(self.starts, start) - 1, 0)
        at = start
        while at < end:
            while index < len(self.fdes) and self.fdes[index].start + self.fdes[index].size <= at:
                index += 1
            fde = self.fdes[index] if index < len(self.fdes) else None
            if fde is None or fde.start > at:
                stop = end if fde is None else min(end, fde.start)
                yield at, stop, None, None
                at = stop
                continue
            stop = min(end, fde.start + fde.size)
            for low, high, rule in self._rows(fde, at, stop):
                yield low, high, fde, rule
            at = stop

    def _rows(self, fde: Fde, start: int, end: int) -> Iterator[tuple[int, int, FrameRule | BadRow | None]]:
        block = fde.rep_size if fde.pc_type is PcType.MASK and fde.rep_size else 0
        starts = [fre.start for fre in fde.fres]
        at = start
        while at < end:
            inside = at - fde.start
            origin = fde.start + (inside // block * block if block else 0)
            index = bisect_right(starts, at - origin)
            change = origin + starts[index] if index < len(starts) else origin + block if block else end
            stop = min(end, change)
            yield at, stop, self._rule(fde, fde.fres[index - 1] if index else None)
            at = stop

    def _rule(self, fde: Fde, fre: Fre | None) -> FrameRule | BadRow | None:
        if fre is None:
            return FrameRule(None, signal=True) if fde.signal else None
        key = (fde.fde_type, fde.signal, fre.words, fre.base, fre.mangled_ra)
        rule = self.rules.get(key)
        if rule is None:
            header = self.section.header
            fixed = (header.fixed_ra_offset, header.fixed_fp_offset)
            rule = self.rules[key] = rule_of(fde, fre, header.abi, version=header.version, fixed=fixed)
        return rule


def _against(line: Row, expected: RowRule, lookups: list[_Lookup]) -> Iterator[Case]:
    if isinstance(expected, PltRows):
        yield from _plt(line, expected, lookups)
        return
    for start, end, _, rule in _pieces(lookups, line.start, line.end):
        outcome = _outcome(expected, rule)
        if outcome is Outcome.EQUAL:
            yield Case(outcome, start, end, "", "")
        else:
            yield Case(outcome, start, end, _text(expected), _text(rule))


def _pieces(lookups: list[_Lookup], start: int, end: int) -> Iterator[tuple[int, int, Fde | None, FrameRule | BadRow | None]]:
    """The first blob that knows any of the addresses answers."""
    for lookup in lookups:
        pieces = list(lookup.pieces(start, end))
        if any(rule is not None for _, _, _, rule in pieces):
            yield from pieces
            return
    yield start, end, None, None


def _plt(line: Row, expected: PltRows, lookups: list[_Lookup]) -> Iterator[Case]:
    """The rows that the PLT's expression stands for, entry by entry."""
    sp = ARCH_OF[MACHINES[62]].sp
    ra = Place(CFA, -8, deref=True)
    at = line.start
    while at < line.end:
        inside = at % PLT_ENTRY
        pushed = inside >= expected.threshold
        stop = min(line.end, at - inside + (PLT_ENTRY if pushed else expected.threshold))
        piece = Row(at, stop, line.cfa, line.registers)
        yield from _against(piece, FrameRule(Place(sp, 16 if pushed else 8, deref=False), ra), lookups)
        at = stop


def _outcome(expected: RowRule, rule: FrameRule | BadRow | None) -> Outcome:
    if rule is None:
        return Outcome.INEXPRESSIBLE if isinstance(expected, Inexpressible) else Outcome.MISSING
    if isinstance(rule, BadRow):
        return Outcome.CONTRADICTORY
    if rule.signal and rule.cfa is None and not rule.outermost:
        return Outcome.WEAKER
    if isinstance(expected, Inexpressible):
        return Outcome.CONTRADICTORY
    assert isinstance(expected, FrameRule)
    if expected == rule:
        return Outcome.EQUAL
    same = (expected.cfa, expected.ra, expected.outermost, expected.mangled_ra) == (rule.cfa, rule.ra, rule.outermost, rule.mangled_ra)
    return Outcome.WEAKER if same and (rule.fp is None or expected.fp == rule.fp) else Outcome.CONTRADICTORY


def _extra(out: Comparison, lookups: list[_Lookup], described: list[tuple[int, int]]) -> None:
    ranges = [(fde.start, fde.start + fde.size) for lookup in lookups for fde in lookup.fdes if fde.fres]
    for start, end in difference(ranges, described):
        out.add(Case(Outcome.EXTRA, start, end, "nothing", "rules"))


def _text(rule: RowRule | BadRow | None) -> str:
    match rule:
        case None:
            return "nothing"
        case Inexpressible(reason=reason) | BadRow(reason=reason):
            return reason
        case PltRows():
            return "PLT entries"
        case FrameRule(outermost=True):
            return "outermost"
        case FrameRule(cfa=None):
            return "a signal frame without rows"
        case FrameRule():
            abi = MACHINES[62] if rule.ra == Place(CFA, -8, deref=True) else MACHINES[183]
            parts = [f"cfa={place_text(rule.cfa, abi)}" if rule.cfa else "", f"ra={place_text(rule.ra, abi)}" if rule.ra else ""]
            parts.append(f"fp={place_text(rule.fp, abi)}" if rule.fp else "")
            return " ".join(part for part in [*parts, "signal" if rule.signal else "", "signed" if rule.mangled_ra else ""] if part)


def lines(found: Comparison, *, most: int) -> Iterator[str]:
    """Counts, then the first cases of each outcome."""
    total = sum(found.bytes.values()) or 1
    for outcome in Outcome:
        yield f"{outcome:<14} {found.ranges[outcome]:>9} ranges {found.bytes[outcome]:>11} bytes  {found.bytes[outcome] / total:7.3%}"
    shown: Counter[Outcome] = Counter()
    for case in found.cases:
        shown[case.outcome] += 1
        if shown[case.outcome] <= most:
            yield f"{case.outcome} [{case.start:#x}, {case.end:#x})  .eh_frame: {case.eh_frame}  .sframe: {case.sframe}"
