"""CIEs, FDEs and search tables."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import pytest
from formats.dwarf.cfi_builder import RA, RSP, Section, advance, def_cfa, def_cfa_offset, offset
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.dwarf import FrameSection, SearchTable, row_at
from unspool.formats.dwarf.cfi import SectionKind
from unspool.model.memory import Bytes, Layered

AT = 0x2000
PLAIN = (def_cfa(RSP, 8), offset(RA, 1))


def opened(section: Section) -> FrameSection:
    data = section.bytes()
    kind: SectionKind = "debug_frame" if section.debug else "eh_frame"
    return FrameSection(Bytes(section.address, data), section.address, section.address + len(data), kind=kind)


@pytest.mark.parametrize(
    "section", [Section(AT), Section(AT, dwarf64=True), Section(AT, debug=True), Section(AT, debug=True, dwarf64=True)], ids=str
)
def test_an_entry_reads_back_as_it_was_written(section: Section) -> None:
    cie = section.cie(*PLAIN, augmentation="" if section.debug else "zR", version=4 if section.debug else 1)
    section.fde(cie, 0x1000, 0x20, advance(1), def_cfa_offset(16))
    section.fde(cie, 0x1020, 0x40)
    fdes = list(opened(section).fdes())
    assert [(0x1000, 0x1020), (0x1020, 0x1060)] == [(fde.start, fde.end) for fde in fdes]
    assert (1, -8, RA, False) == (fdes[0].cie.code_align, fdes[0].cie.data_align, fdes[0].cie.ra_register, fdes[0].cie.signal)


def test_fdes_share_a_cie_that_is_read_once() -> None:
    section = Section(AT)
    cie = section.cie(*PLAIN)
    section.fde(cie, 0x1000, 8)
    section.fde(cie, 0x1008, 8)
    first, second = opened(section).fdes()
    assert first.cie is second.cie


def test_augmentation_s_marks_a_signal_frame() -> None:
    section = Section(AT)
    section.fde(section.cie(*PLAIN, augmentation="zRS"), 0x1000, 8)
    assert next(opened(section).fdes()).cie.signal


def test_an_lsda_and_a_personality_are_passed_over() -> None:
    section = Section(AT)
    cie = section.cie(*PLAIN, augmentation="zPR")
    section.fde(cie, 0x1000, 8)
    assert [(0x1000, 0x1008)] == [(fde.start, fde.end) for fde in opened(section).fdes()]


def test_the_terminator_ends_the_section() -> None:
    section = Section(AT)
    section.fde(section.cie(*PLAIN), 0x1000, 8)
    data = section.bytes() + b"rubbish that is not read"
    assert 1 == len(list(FrameSection(Bytes(AT, data), AT, AT + len(data)).fdes()))


def test_a_section_without_terminator_ends_where_its_bytes_end() -> None:
    section = Section(AT)
    section.fde(section.cie(*PLAIN), 0x1000, 8)
    data = bytes(section.data)
    assert 1 == len(list(FrameSection(Bytes(AT, data), AT, AT + len(data)).fdes()))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda data: struct.pack("<I", 0xFFFFFFF1) + data[4:], "entry length"),
        (lambda data: struct.pack("<I", 0x7FFFFFFF) + data[4:], "entry of"),
        (lambda data: struct.pack("<I", 3) + data[4:], "entry of"),
        (lambda data: struct.pack("<IQ", 0xFFFFFFFF, 1 << 62) + data[12:], "entry of"),
        (lambda data: data[:8] + b"\x07" + data[9:], "CIE version 7"),
    ],
)
def test_broken_entries_are_bad_input(damage: Callable[[bytes], bytes], what: str) -> None:
    section = Section(AT)
    section.fde(section.cie(*PLAIN), 0x1000, 8)
    data = damage(section.bytes())
    broken = FrameSection(Bytes(AT, data), AT, AT + len(data))
    with pytest.raises(BadInput, match=what):
        list(broken.fdes())


def test_an_fde_that_names_itself_as_cie_is_bad_input() -> None:
    # For .eh_frame the distance would have to be 0, which makes it a CIE; one that names another FDE is as wrong.
    section = Section(AT)
    cie = section.cie(*PLAIN)
    fde = section.fde(cie, 0x1000, 8)
    section.fde(fde, 0x1008, 8)
    with pytest.raises(BadInput, match="no CIE"):
        list(opened(section).fdes())


HDR = 0x1800


def table_of(section: Section, **options: object) -> tuple[SearchTable, FrameSection]:
    data, hdr = section.bytes(), section.hdr(HDR, **options)  # type: ignore[arg-type]
    memory = Layered((Bytes(AT, data), Bytes(HDR, hdr)))
    return SearchTable.read(memory, HDR, size=len(hdr)), FrameSection(memory, AT, AT + len(data))


def test_it_finds_every_function_by_each_of_its_addresses() -> None:
    section = Section(AT)
    cie = section.cie(*PLAIN)
    for start in (0x1040, 0x1000, 0x1020):
        section.fde(cie, start, 0x10)
    table, frames = table_of(section)
    assert AT == table.frames
    for start in (0x1000, 0x1020, 0x1040):
        for pc in (start, start + 0xF):
            fde = table.find(pc, frames)
            assert fde is not None
            assert start == fde.start
        assert table.find(start + 0x10, frames) is None
    assert table.find(0xFFF, frames) is None


def test_an_empty_function_does_not_hide_the_one_at_its_address() -> None:
    section = Section(AT)
    cie = section.cie(*PLAIN)
    section.fde(cie, 0x1000, 0x10)
    section.fde(cie, 0x1000, 0)
    table, frames = table_of(section)
    fde = table.find(0x1008, frames)
    assert fde is not None
    assert 0x1010 == fde.end


def test_a_count_that_does_not_fit_leaves_no_table() -> None:
    section = Section(AT)
    section.fde(section.cie(*PLAIN), 0x1000, 0x10)
    hdr = bytearray(section.hdr(HDR))
    struct.pack_into("<I", hdr, 8, 1 << 31)
    table = SearchTable.read(Bytes(HDR, bytes(hdr)), HDR, size=len(hdr))
    assert (AT, 0) == (table.frames, table.count)


def test_another_version_is_bad_input() -> None:
    with pytest.raises(BadInput, match="version 2"):
        SearchTable.read(Bytes(HDR, b"\x02\x1b\x03\x3b" + bytes(60)), HDR, size=64)


@given(st.binary(max_size=200), st.sampled_from(["eh_frame", "debug_frame"]))
def test_any_bytes_give_entries_or_bad_input(data: bytes, kind: SectionKind) -> None:
    section = FrameSection(Bytes(AT, data), AT, AT + len(data), kind=kind)
    with contextlib.suppress(BadInput):
        for fde in section.fdes():
            row_at(fde, fde.start)


@given(st.data())
def test_a_damaged_section_gives_entries_or_bad_input(data: st.DataObject) -> None:
    section = Section(AT)
    cie = section.cie(*PLAIN)
    for number in range(4):
        section.fde(cie, 0x1000 + 16 * number, 16, advance(1), def_cfa_offset(16), advance(2), offset(3, 2))
    damaged = bytearray(section.bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    broken = FrameSection(Bytes(AT, bytes(damaged)), AT, AT + len(damaged))
    with contextlib.suppress(BadInput):
        for fde in broken.fdes():
            row_at(fde, fde.start)


@given(st.binary(max_size=64), st.integers(0, 64))
def test_any_bytes_are_a_search_table_or_bad_input(data: bytes, pc: int) -> None:
    with contextlib.suppress(BadInput):
        table = SearchTable.read(Bytes(0, data), 0, size=len(data))
        table.find(pc, FrameSection(Bytes(0, data), 0, len(data)))
