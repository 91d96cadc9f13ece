"""Hypothesis strategies for SFrame values that a section can hold."""

from __future__ import annotations

from hypothesis import strategies as st

from unspool.formats.sframe import Abi, Base, Fde, FdeType, Fre, FreType, PcType
from unspool.formats.sframe.decode import flexible_words

abis = st.sampled_from(list(Abi))


@st.composite
def fres(draw: st.DrawFn, fre_type: FreType, fde_type: FdeType) -> tuple[Fre, ...]:
    """Rows with rising starts."""
    limit = (1 << fre_type.size * 8) - 1
    starts = sorted(draw(st.sets(st.integers(0, limit), max_size=6)))
    rows = []
    for start in starts:
        size = draw(st.sampled_from([1, 2, 4]))
        bits = size * 8
        count = draw(st.integers(0, 15))
        if fde_type is FdeType.FLEX:
            raw = tuple(draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=count, max_size=count)))
            rows.append(Fre(start, flexible_words(raw, size), Base.FP, size, draw(st.booleans())))
            continue
        words = draw(st.lists(st.integers(-(1 << bits - 1), (1 << bits - 1) - 1), min_size=count, max_size=count))
        rows.append(Fre(start, tuple(words), draw(st.sampled_from(list(Base))), size, draw(st.booleans())))
    return tuple(rows)


@st.composite
def fdes(draw: st.DrawFn) -> Fde:
    """A function of version 3."""
    fre_type, fde_type = draw(st.sampled_from(list(FreType))), draw(st.sampled_from(list(FdeType)))
    return Fde(
        start=draw(st.integers(0, (1 << 47) - 1)),
        size=draw(st.integers(0, (1 << 32) - 1)),
        fres=draw(fres(fre_type, fde_type)),
        fre_type=fre_type,
        pc_type=draw(st.sampled_from(list(PcType))),
        fde_type=fde_type,
        signal=draw(st.booleans()),
        pauth_key=draw(st.sampled_from(["A", "B"])),
        rep_size=draw(st.integers(0, 255)),
    )
