"""What an SFrame row says: where the CFA, the return address and the caller's frame pointer are; and the words that say it.

    cfa = base + offset            base is a register
    ra, fp = place                 place = base + offset, or the word there; base is a register or the CFA

The meanings of data words are the specification's sections "Default FDE" and "Flexible FDE"; its pseudo code for a flexible frame
pointer has the branch inverted, so GAS and the kernel are followed.
"""

from __future__ import annotations

from dataclasses import dataclass

from unspool.formats.sframe.layout import Abi, Base, Fde, FdeType, Fre

CFA = -1
"""The base that is the CFA and no register."""

REGISTER_BASE = 0x1
DEREFERENCE = 0x2
RESERVED = 0x4

S390X_CFA_SCALE = 8
S390X_CFA_BIAS = 160
"""An s390x CFA offset is stored as (offset - 160) / 8, in default and flexible rows alike."""


@dataclass(frozen=True, slots=True)
class Place:
    """`base + offset`, or the word there (`deref`); `base` is a DWARF register number or CFA."""

    base: int
    offset: int
    deref: bool


@dataclass(frozen=True, slots=True)
class FrameRule:
    """One row's rules; None for `ra` or `fp`: the register is unchanged (a link register still holds the return address).

    `outermost`: the return address is undefined, and there are no rules. `mangled_ra`: the return address is signed (AArch64).
    """

    cfa: Place | None
    ra: Place | None = None
    fp: Place | None = None
    outermost: bool = False
    mangled_ra: bool = False
    signal: bool = False


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that breaks the format, and the rule it breaks."""

    reason: str


def rule_of(fde: Fde, fre: Fre, abi: Abi, *, version: int = 3, fixed: tuple[int, int] | None = None) -> FrameRule | BadRow:
    """The rule of one row. `fixed` is (RA offset, FP offset) of the header, 0 for not fixed; the machine's own when it is not given."""
    if fre.outermost:
        return FrameRule(None, outermost=True, signal=fde.signal)
    fixed_ra, fixed_fp = fixed if fixed is not None else (abi.fixed_ra_offset, 0)
    default_ra = Place(CFA, fixed_ra, deref=True) if fixed_ra else None
    default_fp = Place(CFA, fixed_fp, deref=True) if fixed_fp else None
    if fde.fde_type is FdeType.FLEX:
        return _flexible(fde, fre, abi, (default_ra, default_fp))
    words = list(fre.words)
    sp, fp, _ = abi.registers
    cfa = Place(sp if fre.base is Base.SP else fp, cfa_offset(abi, words.pop(0)), deref=False)
    ra, caller_fp = default_ra, default_fp
    if not fixed_ra and words:
        ra = _saved(words.pop(0), abi, version)
    if not fixed_fp and words:
        caller_fp = _saved(words.pop(0), abi, version) or default_fp
    if words:
        return BadRow(f"{len(fre.words)} data words, {len(words)} too many")
    return FrameRule(cfa, ra, caller_fp, mangled_ra=fre.mangled_ra, signal=fde.signal)


def cfa_offset(abi: Abi, word: int) -> int:
    """The CFA's offset that a data word stands for."""
    return word * S390X_CFA_SCALE + S390X_CFA_BIAS if abi is Abi.S390X_BIG else word


def _saved(word: int, abi: Abi, version: int) -> Place | None:
    """Where a default row's word says a register was saved."""
    if abi is Abi.S390X_BIG and word == 0:
        return None
    if abi is Abi.S390X_BIG and version < 3 and word & 1:
        # Version 2 on s390x: the value is in another register (a floating-point one), whose DWARF number is word >> 1.
        return Place(word >> 1, 0, deref=False)
    return Place(CFA, word, deref=True)


def _flexible(fde: Fde, fre: Fre, abi: Abi, defaults: tuple[Place | None, Place | None]) -> FrameRule | BadRow:
    words = list(fre.words)
    if len(words) < 2:
        return BadRow(f"a flexible row of {len(words)} data words")
    control, offset = words.pop(0), words.pop(0)
    if control & RESERVED:
        return BadRow(f"reserved bit in control word {control:#x}")
    if not control & REGISTER_BASE:
        return BadRow(f"the CFA's control word {control:#x} names no register")
    cfa = Place(control >> 3, cfa_offset(abi, offset), deref=bool(control & DEREFERENCE))
    places: list[Place | None] = list(defaults)
    for index in range(2):
        if not words:
            break
        control = words.pop(0)
        if control == 0:
            continue
        if not words:
            return BadRow(f"control word {control:#x} without an offset")
        if control & RESERVED:
            return BadRow(f"reserved bit in control word {control:#x}")
        base = control >> 3 if control & REGISTER_BASE else CFA
        places[index] = Place(base, words.pop(0), deref=bool(control & DEREFERENCE))
    if words:
        return BadRow(f"{len(fre.words)} data words, {len(words)} too many")
    return FrameRule(cfa, places[0], places[1], mangled_ra=fre.mangled_ra, signal=fde.signal)


def default_words(rule: FrameRule, abi: Abi) -> tuple[Base, tuple[int, ...]] | None:
    """The base and data words of a default row that say `rule`; None when only a flexible row can (or none)."""
    if rule.outermost:
        return Base.FP, ()
    sp, fp, _ = abi.registers
    cfa = rule.cfa
    if cfa is None or cfa.deref or cfa.base not in {sp, fp}:
        return None
    words = [_cfa_word(abi, cfa.offset)]
    saved = [rule.fp] if abi.fixed_ra_offset else [rule.ra, rule.fp]
    if abi.fixed_ra_offset and rule.ra != Place(CFA, abi.fixed_ra_offset, deref=True):
        return None
    while saved and saved[-1] is None:
        saved.pop()
    for place in saved:
        # A gap (FP saved, RA not) has a padding word on s390x only; offset 0 there is that very padding.
        if place is None and abi is not Abi.S390X_BIG:
            return None
        if place is not None and (place.base != CFA or not place.deref or place.offset == 0):
            return None
        words.append(0 if place is None else place.offset)
    if words[0] is None:
        return None
    return (Base.SP if cfa.base == sp else Base.FP), tuple(word for word in words if word is not None)


def _cfa_word(abi: Abi, offset: int) -> int | None:
    if abi is not Abi.S390X_BIG:
        return offset
    return None if (offset - S390X_CFA_BIAS) % S390X_CFA_SCALE else (offset - S390X_CFA_BIAS) // S390X_CFA_SCALE


def flex_words(rule: FrameRule, abi: Abi) -> tuple[int, ...] | None:
    """The data words of a flexible row that say `rule`; None when version 3 has no words for it."""
    if rule.outermost:
        return ()
    cfa = rule.cfa
    offset = None if cfa is None else _cfa_word(abi, cfa.offset)
    if cfa is None or cfa.base == CFA or offset is None:
        return None
    words = [_control(cfa), offset]
    fixed = Place(CFA, abi.fixed_ra_offset, deref=True) if abi.fixed_ra_offset else None
    ra = None if rule.ra == fixed else rule.ra
    if fixed is not None and rule.ra is None:
        return None
    for place in (ra, rule.fp):
        if place is None:
            words.append(0)
        elif _control(place) == 0:
            # CFA + offset without a dereference has the control word of padding.
            return None
        else:
            words += [_control(place), place.offset]
    while len(words) > 2 and words[-1] == 0 and (rule.fp is None):
        words.pop()
        if ra is not None:
            break
    return tuple(words)


def _control(place: Place) -> int:
    register = 0 if place.base == CFA else place.base << 3 | REGISTER_BASE
    return register | (DEREFERENCE if place.deref else 0)
