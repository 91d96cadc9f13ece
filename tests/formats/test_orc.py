"""ORC: four encodings, one meaning."""

from __future__ import annotations

import contextlib

import pytest
from formats.orc_bytes import END, FIELDS, NOTHING, Encoding, R, call, entry_bytes, orc_tables, regs
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.orc import BITS_TYPE2, BITS_TYPE2_SIGNAL, BITS_TYPE3, OrcBits, OrcEncoding, OrcEntry, OrcTable, OrcType

ADDRESS = 0xFFFF_FFFF_8240_0000
TEXT = 0xFFFF_FFFF_8100_0000
ROWS = [
    (TEXT, END),
    (TEXT + 0x10, call(8)),
    (TEXT + 0x11, call(16, bp_offset=-16)),
    (TEXT + 0x20, regs()),
    (TEXT + 0x30, call(24)),
    (TEXT + 0x40, OrcEntry(R.BP, 16, R.PREV_SP, -16, OrcType.CALL, signal=False, end=False)),
    (TEXT + 0x50, OrcEntry(R.BP_INDIRECT, -8, R.PREV_SP, -16, OrcType.CALL, signal=False, end=False)),
    (TEXT + 0x60, OrcEntry(R.SP_INDIRECT, 8, R.UNDEFINED, 0, OrcType.CALL, signal=False, end=False)),
    (TEXT + 0x70, OrcEntry(R.R10, 0, R.BP, 0, OrcType.CALL, signal=False, end=False)),
    (TEXT + 0x80, regs(partial=True)),
    (TEXT + 0x90, NOTHING),
]


def table(encoding: Encoding) -> OrcTable:
    ips, entries = orc_tables(ROWS, ADDRESS, encoding)
    return OrcTable(ips, entries, OrcEncoding.detect(entries, OrcBits.of(FIELDS[encoding])), ADDRESS)


def meant(entry: OrcEntry, encoding: Encoding) -> OrcEntry:
    """The entry as it comes out: kernels without a signal bit take what registers were saved for as exact."""
    return entry._replace(signal=entry.type in {OrcType.REGS, OrcType.REGS_PARTIAL}) if encoding is Encoding.TYPE2 else entry


@pytest.mark.parametrize("encoding", Encoding)
def test_every_encoding_comes_out_the_same(encoding: Encoding) -> None:
    made = table(encoding)
    assert len(ROWS) == len(made)
    assert TEXT == made.start
    assert [meant(entry, encoding) for _, entry in ROWS] == [made.find(pc) for pc, _ in ROWS]


@pytest.mark.parametrize("encoding", Encoding)
def test_an_entry_holds_up_to_the_next(encoding: Encoding) -> None:
    made = table(encoding)
    assert made.find(TEXT - 1) is None
    assert call(8) == made.find(TEXT + 0x10)
    assert call(16, bp_offset=-16) == made.find(TEXT + 0x1F)
    assert NOTHING == made.find(TEXT + 0x1000)


def test_the_fields_tell_the_layout() -> None:
    assert [BITS_TYPE2, BITS_TYPE2_SIGNAL, BITS_TYPE3, BITS_TYPE3] == [OrcBits.of(FIELDS[encoding]) for encoding in Encoding]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sp_reg": (32, 4), "bp_reg": (36, 4)},
        {"sp_reg": (32, 4), "bp_reg": (36, 4), "type": (40, 4)},
        {"sp_reg": (36, 4), "bp_reg": (32, 4), "type": (40, 3)},
        {"sp_reg": (32, 4), "bp_reg": (36, 4), "type": (48, 3)},
    ],
)
def test_unknown_fields_are_refused(fields: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(BadInput):
        OrcBits.of(fields)


def test_a_signal_frame_is_marked_where_the_encoding_can() -> None:
    entry = regs(signal=True)
    for encoding in (Encoding.TYPE2_SIGNAL, Encoding.TYPE3, Encoding.RENUMBERED):
        rows = [*ROWS[:3], (TEXT + 0x20, entry), (TEXT + 0x30, call(8))]
        ips, entries = orc_tables(rows, ADDRESS, encoding)
        made = OrcTable(ips, entries, OrcEncoding.detect(entries, OrcBits.of(FIELDS[encoding])), ADDRESS)
        assert entry == made.find(TEXT + 0x20)


def test_the_most_frequent_register_tells_the_numbering() -> None:
    old = b"".join(entry_bytes(call(8), Encoding.TYPE3) for _ in range(9))
    new = b"".join(entry_bytes(call(8), Encoding.RENUMBERED) for _ in range(9))
    nothing = entry_bytes(NOTHING, Encoding.TYPE3) * 100
    assert R.SP is OrcEncoding.detect(nothing + old, BITS_TYPE3).registers[5]
    assert R.SP is OrcEncoding.detect(nothing + new, BITS_TYPE3).registers[3]
    with pytest.raises(BadInput):
        OrcEncoding.detect(nothing, BITS_TYPE3)
    with pytest.raises(BadInput):
        OrcEncoding.detect(b"", BITS_TYPE3)


def test_tables_that_do_not_fit_are_refused() -> None:
    ips, entries = orc_tables(ROWS, ADDRESS, Encoding.TYPE3)
    encoding = OrcEncoding.detect(entries, BITS_TYPE3)
    for bad_ips, bad_entries in ((ips[:-4], entries), (ips, entries[:-6]), (b"", b""), (ips[:-1], entries)):
        with pytest.raises(BadInput):
            OrcTable(bad_ips, bad_entries, encoding, ADDRESS)
    backwards = orc_tables(ROWS[::-1], ADDRESS, Encoding.TYPE3)
    with pytest.raises(BadInput, match="order"):
        OrcTable(*backwards, encoding, ADDRESS)


@given(st.integers(1, 40), st.data(), st.sampled_from([BITS_TYPE2, BITS_TYPE2_SIGNAL, BITS_TYPE3]))
def test_any_bytes_are_entries_or_refused(count: int, data: st.DataObject, bits: OrcBits) -> None:
    entries = data.draw(st.binary(min_size=6 * count, max_size=6 * count))
    ips = data.draw(st.one_of(st.just(bytes(4 * count)), st.binary(min_size=4 * count, max_size=4 * count)))
    with contextlib.suppress(BadInput):
        made = OrcTable(ips, entries, OrcEncoding.detect(entries, bits), ADDRESS)
        found = made.find(ADDRESS + 4 * count)
        assert found is None or isinstance(found, OrcEntry)
