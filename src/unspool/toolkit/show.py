"""SFrame sections as text, one row a line, in readelf's notation; and as JSON values.

sp+16 fp-8 r10+0    base register and offset         c-16      the word at CFA - 16
(fp-8)              the word there                   f         the header's fixed offset
u                   no data word: unchanged          U         a padding word: no rule of its own
[m] [s]             a repeated block; a signed return address
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from unspool.formats.sframe import CFA, Abi, BadRow, Fde, FdeType, Flag, FrameRule, Fre, PcType, Place, Section, rule_of

Names = Mapping[int, str]
"""Function names by address (Svma)."""


def lines(section: Section, names: Names | None = None) -> Iterator[str]:
    """The section as readelf --sframe prints it, with the functions' names when they are given."""
    header = section.header
    abi = header.abi.name.lower().replace("_", " ")
    yield f"SFrame version {header.version}, {abi} endian, at {section.address:#x}, {header.size} bytes"
    flags = ", ".join(flag.name or "" for flag in Flag if flag in header.flags) or "none"
    yield f"  flags {flags}; fixed RA offset {header.fixed_ra_offset}, fixed FP offset {header.fixed_fp_offset}"
    yield f"  {header.num_fdes} FDEs, {header.num_fres} FREs, {header.fre_len} bytes of rows"
    for index, fde in enumerate(section.fdes):
        yield ""
        yield from function_lines(section, index, fde, (names or {}).get(fde.start))


def function_lines(section: Section, index: int, fde: Fde, name: str | None = None) -> Iterator[str]:
    """One function: its line, then its rows."""
    title = f"    func idx [{index}]: pc = {fde.start:#x}, size = {fde.size} bytes"
    attributes = ("S" if fde.signal else "") + ("F" if fde.fde_type is FdeType.FLEX else "")
    if attributes:
        title += f', attr = "{attributes}"'
    if fde.pauth_key == "B":
        title += ", pauth = B key"
    if fde.pc_type is PcType.MASK:
        title += f", repeats every {fde.rep_size} bytes"
    yield title + (f"  <{name}>" if name else "")
    yield f"    {'STARTPC[m]' if fde.pc_type is PcType.MASK else 'STARTPC':<16}CFA       FP        RA"
    origin = 0 if fde.pc_type is PcType.MASK else fde.start
    for fre in fde.fres:
        yield f"    {origin + fre.start:016x}  {row_text(section, fde, fre)}"


def row_text(section: Section, fde: Fde, fre: Fre) -> str:
    """One row's columns."""
    if fre.outermost:
        return "RA undefined"
    rule = _rule(section, fde, fre)
    if isinstance(rule, BadRow):
        return f"invalid: {rule.reason}"
    assert rule.cfa is not None
    cells = (_base(rule.cfa, section.header.abi), _fp(section, fde, fre, rule), _ra(section, fde, fre, rule))
    signed = "[s]" if fre.mangled_ra else ""
    return f"{cells[0]:<10}{cells[1]:<10}{cells[2]}{signed}"


def _rule(section: Section, fde: Fde, fre: Fre) -> FrameRule | BadRow:
    header = section.header
    return rule_of(fde, fre, header.abi, version=header.version, fixed=(header.fixed_ra_offset, header.fixed_fp_offset))


def _base(place: Place, abi: Abi) -> str:
    sp, fp, _ = abi.registers
    name = {CFA: "c", sp: "sp", fp: "fp"}.get(place.base, f"r{place.base}")
    text = f"{name}{place.offset:+d}"
    # readelf shows no dereference for a place relative to the CFA: a saved register is always the word there.
    return f"({text})" if place.deref and place.base != CFA else text


def _ra(section: Section, fde: Fde, fre: Fre, rule: FrameRule) -> str:
    fixed = section.header.fixed_ra_offset
    if fde.fde_type is FdeType.FLEX:
        if len(fre.words) > 2 and fre.words[2] == 0:
            return "U"
        return _base(rule.ra, section.header.abi) if rule.ra is not None and len(fre.words) > 2 else ("f" if fixed else "u")
    if fixed:
        return "f"
    if rule.ra is not None:
        return _base(rule.ra, section.header.abi)
    return "U" if len(fre.words) > 1 else "u"


def _fp(section: Section, fde: Fde, fre: Fre, rule: FrameRule) -> str:
    if section.header.fixed_fp_offset:
        return "f"
    if rule.fp is not None:
        return _base(rule.fp, section.header.abi)
    present = len(fre.words) > (2 if section.header.fixed_ra_offset == 0 else 1)
    return "U" if present and fde.fde_type is FdeType.DEFAULT else "u"


def values(section: Section, names: Names | None = None) -> dict[str, object]:
    """The section as JSON values: addresses are hexadecimal strings, sizes are bytes."""
    header = section.header
    return {
        "version": header.version,
        "abi": header.abi.name.lower(),
        "address": hex(section.address),
        "size": header.size,
        "flags": [flag.name for flag in Flag if flag in header.flags],
        "fixed_ra_offset": header.fixed_ra_offset,
        "fixed_fp_offset": header.fixed_fp_offset,
        "num_fdes": header.num_fdes,
        "num_fres": header.num_fres,
        "functions": [_function_values(section, fde, (names or {}).get(fde.start)) for fde in section.fdes],
    }


def _function_values(section: Section, fde: Fde, name: str | None) -> dict[str, object]:
    return {
        "start": hex(fde.start),
        "size": fde.size,
        "name": name,
        "pc_type": fde.pc_type.name.lower(),
        "fde_type": fde.fde_type.name.lower(),
        "signal": fde.signal,
        "pauth_key": fde.pauth_key,
        "rep_size": fde.rep_size,
        "rows": [_row_values(section, fde, fre) for fre in fde.fres],
    }


def _row_values(section: Section, fde: Fde, fre: Fre) -> dict[str, object]:
    rule = _rule(section, fde, fre)
    if isinstance(rule, BadRow):
        return {"start": fre.start, "invalid": rule.reason}
    abi = section.header.abi
    return {
        "start": fre.start,
        "outermost": rule.outermost,
        "cfa": rule.cfa and place_text(rule.cfa, abi),
        "ra": rule.ra and place_text(rule.ra, abi),
        "fp": rule.fp and place_text(rule.fp, abi),
        "mangled_ra": rule.mangled_ra,
    }


def place_text(place: Place, abi: Abi) -> str:
    """A place with its dereference always shown: `(c-16)` is the word at CFA - 16."""
    sp, fp, _ = abi.registers
    name = {CFA: "c", sp: "sp", fp: "fp"}.get(place.base, f"r{place.base}")
    text = f"{name}{place.offset:+d}"
    return f"({text})" if place.deref else text
