"""Whole files of x86-64 to SFrame in columns: the C library gives every row, NumPy lays the section out.

The functions that are plain, nearly all of them, are never Python values; the others go through `convert`, one by one. Both give the same
functions and rows; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unspool.formats.dwarf.cfi import FrameSection
from unspool.formats.sframe import CFA, Abi, Fde, FdeType, Flag, FrameRule, Fre, Place
from unspool.formats.sframe.encode import encode_rows
from unspool.formats.sframe.layout import ATTRIBUTE_SIZE, HEADER_SIZE, INDEX_ENTRY_SIZE, LATEST, MAGIC
from unspool.native.frame_rows import AT_CFA, AT_REGISTER, UNDEFINED, frame_rows
from unspool.toolkit.convert import Converted, Inexpressible, Skipped, checked_rule, convert, default_row, flexible_row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]

ABI = Abi.AMD64_LITTLE
LONGEST = 2 + 15 * 4
ENTRY = INDEX_ENTRY_SIZE[LATEST]


@dataclass(frozen=True, slots=True)
class Laid:
    """A laid-out section, and what it covers: `starts` and `sizes` are of its functions, sorted."""

    section: bytes
    rows: int
    starts: Array
    sizes: Array
    skipped: tuple[Skipped, ...]


def lay_out(frames: FrameSection, data: bytes, address: int) -> Laid | None:
    """The SFrame section for `frames` (whose bytes are `data`) to stand at `address`; None when the columns cannot hold the file.

    That is: broken sections, and functions that overlap.
    """
    import numpy as np

    found = frame_rows(data, frames.start)
    if found is None or not len(found):
        return None
    function = found["function"]
    rows = found if (function[1:] >= function[:-1]).all() else found[np.argsort(function, kind="stable")]
    first = _firsts(rows["function"])
    starts, ends = rows["function"][first], rows["function_end"][first]
    if (starts[1:] < ends[:-1]).any():
        return None
    rules, which = _rules(rows)
    number = np.cumsum(_is_first(rows["function"])) - 1
    odd = np.unique(number[np.array([rule is None for rule in rules])[which]])
    others = convert((frames.fde_at(int(entry)) for entry in rows["entry"][first][odd]), ABI)
    keep = ~np.isin(number, odd)
    same = np.zeros(len(rows), dtype=bool)
    same[1:] = (which[1:] == which[:-1]) & (number[1:] == number[:-1])
    keep &= ~same
    return _assemble(rows[keep], which[keep], [rule for rule in rules if rule is not None], _dense(rules), others, address)


def _dense(rules: list[FrameRule | None]) -> list[int]:
    """Where each rule that has words is among those that do."""
    out, next_ = [], 0
    for rule in rules:
        out.append(next_)
        next_ += rule is not None
    return out


def _is_first(values: Array) -> Array:
    import numpy as np

    out = np.ones(len(values), dtype=bool)
    out[1:] = values[1:] != values[:-1]
    return out


def _firsts(values: Array) -> Array:
    import numpy as np

    return np.flatnonzero(_is_first(values))


def _rules(rows: Array) -> tuple[list[FrameRule | None], Array]:
    """The different rules, None for those that need `convert`, and each row's among them."""
    import numpy as np

    words = rows.view("<u8").reshape(len(rows), -1)
    (offsets, by_offset), (_, by_kind) = _distinct(words[:, 4]), _distinct(words[:, 5])
    pairs, which = _distinct(by_kind * len(offsets) + by_offset)
    example = np.empty(len(pairs), dtype=np.int64)
    example[which] = np.arange(len(which))
    return [_rule(rows[index]) for index in example], which


def _distinct(values: Array) -> tuple[Array, Array]:
    """The different values, sorted, and each one's place among them: a sort and a search, where np.unique sorts places too."""
    import numpy as np

    ordered = np.sort(values)
    distinct = ordered[_is_first(ordered)]
    return distinct, np.searchsorted(distinct, values)


def _rule(row: np.void) -> FrameRule | None:
    if not row["plain"]:
        return None
    if row["ra_kind"] == UNDEFINED:
        return FrameRule(None, outermost=True)
    fp = None
    if row["fp_kind"] == AT_CFA:
        fp = Place(CFA, int(row["fp_offset"]), deref=True)
    elif row["fp_kind"] == AT_REGISTER:
        fp = Place(int(row["fp_base"]), int(row["fp_offset"]), deref=True)
    cfa = Place(int(row["cfa_base"]), int(row["cfa_offset"]), deref=bool(row["cfa_deref"]))
    rule = checked_rule(FrameRule(cfa, Place(CFA, int(row["ra_offset"]), deref=True), fp), ABI)
    return None if isinstance(rule, Inexpressible) else rule


def _assemble(rows: Array, which: Array, rules: list[FrameRule], dense: list[int], others: Converted, address: int) -> Laid:
    """Rows of one function after the other, each function's attribute before them; then the functions that `convert` made."""
    import numpy as np

    which = np.array(dense)[which]
    first = _firsts(rows["function"])
    counts = np.diff(np.append(first, len(rows)))
    number = np.repeat(np.arange(len(first)), counts)
    starts, sizes = rows["function"][first], (rows["function_end"] - rows["function"])[first]
    plain = np.array([default_row(rule, ABI) is not None for rule in rules], dtype=bool)
    flex = np.zeros(len(first), dtype=bool)
    flex[number[~plain[which]]] = True
    payload, lengths = _payloads(rules)
    column = which * 2 + flex[number]
    kind = np.where(sizes < 1 << 8, 0, np.where(sizes < 1 << 16, 1, 2))
    width = (1 << kind)[number]
    length = width + lengths[column]
    at = np.cumsum(length) - length + ATTRIBUTE_SIZE * (number + 1)
    total = int(length.sum()) + ATTRIBUTE_SIZE * len(first)
    area = np.zeros(total, dtype=np.uint8)
    attribute = at[first] - ATTRIBUTE_SIZE
    for byte, value in enumerate((counts & 0xFF, counts >> 8, kind, flex * int(FdeType.FLEX))):
        area[attribute + byte] = value
    _put_starts(area, at, width, (rows["start"] - rows["function"]).astype("<u4"))
    _put_payloads(area, at + width, payload, (lengths, column))
    return _with_others(area.tobytes(), (starts, sizes, attribute), (len(rows), others), address)


def _put_starts(area: Array, at: Array, width: Array, start: Array) -> None:
    """Each row's start within its function, in 1, 2 or 4 bytes."""
    import numpy as np

    raw = start.view(np.uint8).reshape(-1, 4)
    area[at] = raw[:, 0]
    for byte in (1, 2, 3):
        there = np.flatnonzero(width > byte)
        area[at[there] + byte] = raw[there, byte]


def _put_payloads(area: Array, at: Array, payload: Array, of_rows: tuple[Array, Array]) -> None:
    """Each row's bytes behind its start, one byte of all rows at a time; rows that have no more of them drop out."""
    lengths, column = of_rows
    shortest, longest = (int(bound) for bound in (lengths[column].min(initial=LONGEST), lengths.max(initial=0)))
    for byte in range(longest):
        if byte >= shortest:
            more = lengths[column] > byte
            at, column = at[more], column[more]
        area[at + byte] = payload[:, byte][column]


def _payloads(rules: list[FrameRule]) -> tuple[Array, Array]:
    """Each rule's bytes behind a row's start, as a default row and (after it) as a flexible one; and their lengths."""
    import numpy as np

    payload = np.zeros((len(rules) * 2, LONGEST), dtype=np.uint8)
    lengths = np.zeros(len(rules) * 2, dtype=np.int64)
    for index, rule in enumerate(rules):
        for flexible, pattern in enumerate((default_row(rule, ABI), flexible_row(rule, ABI))):
            if pattern is not None:
                raw = _payload(pattern, FdeType(flexible))
                payload[index * 2 + flexible, : len(raw)] = np.frombuffer(raw, dtype=np.uint8)
                lengths[index * 2 + flexible] = len(raw)
    return payload, lengths


def _payload(pattern: Fre, fde_type: FdeType) -> bytes:
    return encode_rows(Fde(0, 1, (pattern,), fde_type=fde_type), ABI)[ATTRIBUTE_SIZE + 1 :]


def _with_others(area: bytes, columns: tuple[Array, Array, Array], rest: tuple[int, Converted], address: int) -> Laid:
    """The section of both kinds of functions, sorted by address."""
    import numpy as np

    rows, others = rest
    offsets, blobs, place = [], [], len(area)
    for fde in others.fdes:
        offsets.append(place)
        blobs.append(encode_rows(fde, ABI))
        place += len(blobs[-1])
    extra = ([fde.start for fde in others.fdes], [fde.size for fde in others.fdes], offsets)
    starts, sizes, fres = (np.concatenate([c.astype(np.int64), np.array(e, dtype=np.int64)]) for c, e in zip(columns, extra, strict=True))
    order = np.argsort(starts, kind="stable")
    index = np.zeros(len(order), dtype=[("start", "<i8"), ("size", "<u4"), ("fres", "<u4")])
    index["start"] = starts[order] - (address + HEADER_SIZE + ENTRY * np.arange(len(order)))
    index["size"], index["fres"] = sizes[order], fres[order]
    rows += sum(len(fde.fres) for fde in others.fdes)
    flags = Flag.FDE_SORTED | Flag.FDE_FUNC_START_PCREL
    head = np.zeros(1, dtype=[("magic", "<u2"), ("small", "i1", 6), ("large", "<u4", 5)])
    head["magic"] = MAGIC
    head["small"] = (LATEST, int(flags), int(ABI), 0, ABI.fixed_ra_offset, 0)
    head["large"] = (len(order), rows, place, 0, len(order) * ENTRY)
    section = head.tobytes() + index.tobytes() + area + b"".join(blobs)
    return Laid(section, rows, starts[order], sizes[order], tuple(others.skipped))
