"""`.eh_frame` to SFrame: each row's rules become a FrameRule, and what version 3 cannot say is listed with its function and reason.

Where GAS leaves a whole function out because of one row (SFrame documentation of GAS, "no SFrame FDE emitted"), the function is split
here: only the addresses of that row stay uncovered, and a reader goes on to .eh_frame there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from unspool.errors import BadInput
from unspool.formats.dwarf.cfi import Fde as CfiFde
from unspool.formats.dwarf.cursor import Cursor
from unspool.formats.dwarf.program import CfaRule, How, RegisterRule, Row, rows
from unspool.formats.sframe import CFA, Abi, Fde, FdeType, FrameRule, Fre, PcType, Place
from unspool.formats.sframe.encode import MOST_FRES, fre_type_for, row
from unspool.formats.sframe.rules import default_words, flex_words
from unspool.model.arch import AARCH64, S390X, X86_64, Arch

MACHINES = {X86_64.elf_machine: Abi.AMD64_LITTLE, AARCH64.elf_machine: Abi.AARCH64_LITTLE, S390X.elf_machine: Abi.S390X_BIG}
ARCH_OF = {Abi.AMD64_LITTLE: X86_64, Abi.AARCH64_LITTLE: AARCH64, Abi.AARCH64_BIG: AARCH64, Abi.S390X_BIG: S390X}

PLT_ENTRY = 16
INT32 = range(-(1 << 31), 1 << 31)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Addresses `[start, end)` that get no rule, and why; `function` is the start of the FDE they belong to."""

    function: int
    start: int
    end: int
    reason: str


@dataclass(slots=True)
class Converted:
    """SFrame functions sorted by address, and what could not be expressed."""

    fdes: list[Fde] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Inexpressible:
    """A row that version 3 has no words for."""

    reason: str


@dataclass(frozen=True, slots=True)
class PltRows:
    """The linker's expression for PLT entries: `CFA = sp + 8`, from byte `threshold` of each 16-byte entry on `sp + 16`."""

    threshold: int


RowRule = FrameRule | PltRows | Inexpressible


def convert(fdes: Iterable[CfiFde], abi: Abi) -> Converted:
    """The SFrame functions of CFI functions (addresses are kept); overlapping and empty ones are listed, not written."""
    out = Converted()
    seen: dict[tuple[int, bytes, int], Fde] = {}
    end, owner = 0, 0
    for fde in sorted(fdes, key=lambda fde: (fde.start, fde.end)):
        if fde.end <= fde.start:
            out.skipped.append(Skipped(fde.start, fde.start, fde.end, "an FDE of no bytes"))
            continue
        if fde.start < end:
            out.skipped.append(Skipped(fde.start, fde.start, fde.end, f"overlaps the FDE at {owner:#x}"))
            continue
        end, owner = fde.end, fde.start
        _convert(fde, abi, out, seen)
    return out


def _convert(fde: CfiFde, abi: Abi, out: Converted, seen: dict[tuple[int, bytes, int], Fde]) -> None:
    """One function; two thirds of a large library's have the program and size of one that was seen, and so its rows."""
    key = (fde.cie.address, fde.instructions, fde.end - fde.start)
    same = seen.get(key)
    if same is not None:
        out.fdes.append(replace(same, start=fde.start))
        return
    count, skipped = len(out.fdes), len(out.skipped)
    _Function(fde, abi, out).convert()
    plain = len(out.fdes) == count + 1 and len(out.skipped) == skipped and out.fdes[-1].pc_type is PcType.INC
    # DW_CFA_set_loc, opcode 1, states an address; what it gives depends on where the function is.
    if plain and b"\x01" not in fde.instructions:
        seen[key] = out.fdes[-1]


class _Function:
    """One CFI function on its way into pieces: consecutive rows that can be expressed become one SFrame function."""

    def __init__(self, fde: CfiFde, abi: Abi, out: Converted) -> None:
        self.fde = fde
        self.abi = abi
        self.arch = ARCH_OF[abi]
        self.out = out
        self.piece: list[tuple[int, FrameRule]] = []

    def convert(self) -> None:
        try:
            found = [(line.start, line.end, rule_of_row(line, self.fde, self.arch)) for line in rows(self.fde)]
        except BadInput as error:
            self.out.skipped.append(Skipped(self.fde.start, self.fde.start, self.fde.end, f"broken CFI: {error.what}"))
            return
        if self.fde.cie.signal and any(isinstance(rule, Inexpressible) for _, _, rule in found):
            # GAS does the same: the function is known to be a signal frame, its registers are in the kernel's frame.
            self.out.fdes.append(Fde(self.fde.start, self.fde.end - self.fde.start, (), signal=True))
            return
        for start, end, rule in found:
            self._add(start, end, rule)
        self._close(self.fde.end)

    def _add(self, start: int, end: int, rule: RowRule) -> None:
        if isinstance(rule, FrameRule):
            if not self.piece or self.piece[-1][1] != rule:
                self.piece.append((start, rule))
            return
        self._close(start)
        if isinstance(rule, PltRows) and start % PLT_ENTRY == 0:
            self.out.fdes.append(plt_function(start, end, rule.threshold))
            return
        reason = "a PLT expression that starts within an entry" if isinstance(rule, PltRows) else rule.reason
        self._skip(start, end, reason)

    def _skip(self, start: int, end: int, reason: str) -> None:
        last = self.out.skipped[-1] if self.out.skipped else None
        if last is not None and last.function == self.fde.start and last.end == start and last.reason == reason:
            self.out.skipped[-1] = replace(last, end=end)
            return
        self.out.skipped.append(Skipped(self.fde.start, start, end, reason))

    def _close(self, end: int) -> None:
        piece, self.piece = self.piece, []
        if not piece:
            return
        start = piece[0][0]
        if len(piece) > MOST_FRES:
            self._skip(start, end, f"{len(piece)} rows, {MOST_FRES} is the most")
            return
        self.out.fdes.append(_encoded(piece, (start, end), self.abi, signal=self.fde.cie.signal))


def _encoded(piece: list[tuple[int, FrameRule]], at: tuple[int, int], abi: Abi, *, signal: bool) -> Fde:
    """Default rows when all of them can be, else flexible ones."""
    start, end = at
    fres: list[Fre] = []
    for place, rule in piece:
        pattern = default_row(rule, abi)
        if pattern is None:
            return _flexible(piece, at, abi, signal=signal)
        fres.append(Fre(place - start, pattern.words, pattern.base, pattern.word_size, pattern.mangled_ra))
    return Fde(start, end - start, tuple(fres), fre_type_for(end - start), signal=signal)


def _flexible(piece: list[tuple[int, FrameRule]], at: tuple[int, int], abi: Abi, *, signal: bool) -> Fde:
    start, end = at
    fres = []
    for place, rule in piece:
        pattern = flexible_row(rule, abi)
        fres.append(Fre(place - start, pattern.words, pattern.base, pattern.word_size, pattern.mangled_ra))
    return Fde(start, end - start, tuple(fres), fre_type_for(end - start), PcType.INC, FdeType.FLEX, signal)


@lru_cache(maxsize=1 << 14)
def default_row(rule: FrameRule, abi: Abi) -> Fre | None:
    """The rule as a default row at offset 0."""
    words = default_words(rule, abi)
    return None if words is None else row(0, words[1], base=words[0], mangled_ra=rule.mangled_ra)


@lru_cache(maxsize=1 << 14)
def flexible_row(rule: FrameRule, abi: Abi) -> Fre:
    """The rule as a flexible row at offset 0."""
    words = flex_words(rule, abi)
    assert words is not None, rule
    return row(0, words, fde_type=FdeType.FLEX, mangled_ra=rule.mangled_ra)


def plt_function(start: int, end: int, threshold: int) -> Fde:
    """A repeated block for x86-64's PLT entries, as GNU ld makes it."""
    sp = X86_64.sp
    rules = [(0, FrameRule(Place(sp, 8, deref=False), _X86_RA)), (threshold, FrameRule(Place(sp, 16, deref=False), _X86_RA))]
    plain = _encoded(rules, (0, PLT_ENTRY), Abi.AMD64_LITTLE, signal=False)
    return replace(plain, start=start, size=end - start, fre_type=fre_type_for(PLT_ENTRY), pc_type=PcType.MASK, rep_size=PLT_ENTRY)


_X86_RA = Place(CFA, -8, deref=True)


def rule_of_row(line: Row, fde: CfiFde, arch: Arch) -> RowRule:
    """What the row says, as SFrame says it; Inexpressible with the reason where it cannot.

    Rules for registers other than RA and FP are left out: SFrame does not know them.
    """
    registers = line.registers
    rules = (registers.get(fde.cie.ra_register), registers.get(arch.fp), registers.get(arch.sp))
    return _rule(line.cfa, rules, MACHINES[arch.elf_machine], signal=fde.cie.signal, signed=line.ra_signed)


# A whole system's unwind data holds a few thousand different rules.
@lru_cache(maxsize=1 << 14)
def _rule(cfa_rule: CfaRule | None, rules: tuple[RegisterRule | None, ...], abi: Abi, *, signal: bool, signed: bool) -> RowRule:
    ra_rule, fp_rule, sp_rule = rules
    if ra_rule is not None and ra_rule.how is How.UNDEFINED:
        return FrameRule(None, outermost=True, signal=signal)
    if cfa_rule is None:
        return Inexpressible("no CFA rule")
    cfa = _cfa(cfa_rule)
    if isinstance(cfa, Inexpressible | PltRows):
        return cfa
    # s390x functions save the stack pointer like other registers; what they save is CFA - 160, which SFrame's readers assume.
    saved = {How.SAME_VALUE, How.OFFSET, How.REGISTER} if abi is Abi.S390X_BIG else {How.SAME_VALUE}
    if sp_rule is not None and sp_rule.how not in saved:
        return Inexpressible("a rule for the stack pointer")
    ra = _place(ra_rule, "return address")
    fp = _place(fp_rule, "frame pointer")
    for place in (ra, fp):
        if isinstance(place, Inexpressible):
            return place
    assert not isinstance(ra, Inexpressible)
    assert not isinstance(fp, Inexpressible)
    return checked_rule(FrameRule(cfa, ra, fp, mangled_ra=signed, signal=signal), abi)


def checked_rule(rule: FrameRule, abi: Abi) -> FrameRule | Inexpressible:
    """The rule, if either form has words for it that fit into 4 bytes."""
    if rule.cfa is not None and abi is Abi.S390X_BIG and (rule.cfa.offset - 160) % 8:
        return Inexpressible(f"CFA offset {rule.cfa.offset} is not a multiple of 8")
    places = [place for place in (rule.cfa, rule.ra, rule.fp) if place is not None]
    if any(place.offset not in INT32 for place in places):
        return Inexpressible("an offset of more than 32 bits")
    if rule.ra is None and abi is Abi.AMD64_LITTLE:
        return Inexpressible("no rule for the return address")
    # A flexible FDE may hold this row beside others, so that both forms must be possible for it to be in any.
    if flex_words(rule, abi) is None:
        return Inexpressible("a saved register that is CFA + offset itself, not the word there")
    if abi in {Abi.AARCH64_LITTLE, Abi.AARCH64_BIG} and default_words(rule, abi) is None:
        return Inexpressible("needs a flexible row, which readers do not expect on AArch64")
    return rule


def _place(rule: RegisterRule | None, what: str) -> Place | Inexpressible | None:
    if rule is None or rule.how is How.SAME_VALUE:
        return None
    match rule.how:
        case How.OFFSET:
            return Place(CFA, rule.value, deref=True)
        case How.VAL_OFFSET:
            return Place(CFA, rule.value, deref=False)
        case How.REGISTER:
            return Place(rule.value, 0, deref=False)
        case How.EXPRESSION | How.VAL_EXPRESSION:
            based = base_of(rule.expression)
            if based is None or based[2]:
                return Inexpressible(f"{what}: expression {rule.expression.hex()}")
            return Place(based[0], based[1], deref=rule.how is How.EXPRESSION)
        case _:
            return Inexpressible(f"{what} is undefined")


def _cfa(rule: CfaRule) -> Place | PltRows | Inexpressible:
    if rule.expression is None:
        return Place(rule.register, rule.offset, deref=False)
    threshold = plt_threshold(rule.expression)
    if threshold is not None:
        return PltRows(threshold)
    based = base_of(rule.expression)
    if based is None:
        return Inexpressible(f"CFA: expression {rule.expression.hex()}")
    return Place(based[0], based[1], deref=based[2])


def base_of(expression: bytes) -> tuple[int, int, bool] | None:
    """(register, offset, dereferenced) of `breg N` or `breg N; deref`; None for any other expression (DWARF 5, section 2.5.1)."""
    try:
        cursor = Cursor(expression, "little")
        operation = cursor.u8()
        if not 0x70 <= operation <= 0x8F:  # DW_OP_breg0..31
            return None
        offset = cursor.sleb()
        if not cursor:
            return operation - 0x70, offset, False
        return (operation - 0x70, offset, True) if cursor.u8() == 0x06 and not cursor else None  # DW_OP_deref
    except BadInput:
        return None


def plt_threshold(expression: bytes) -> int | None:
    """N of the expression that linkers write for .plt: `rsp + 8 + (((rip & 15) >= N) << 3)`; None for any other."""
    # breg7 8; breg16 0; lit15; and; litN; ge; lit3; shl; plus
    if len(expression) == 11 and expression[:6] == bytes.fromhex("77088000 3f1a") and expression[7:] == bytes.fromhex("2a332422"):
        return expression[6] - 0x30 if 0x30 <= expression[6] <= 0x4F else None
    return None
