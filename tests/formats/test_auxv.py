"""The auxiliary vector."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.formats.auxv import AuxType, parse_auxv
from unspool.formats.elf import Elf


def test_our_own_vector_points_at_our_program_headers() -> None:
    """AT_PHNUM and AT_PHENT are what the program's file says."""
    values = parse_auxv(Path("/proc/self/auxv").read_bytes())
    header = Elf(Path("/proc/self/exe").read_bytes()).header
    assert (header.segment_count, header.segment_size) == (values[AuxType.PHNUM], values[AuxType.PHENT])


@pytest.mark.parametrize(("word", "order", "fields"), [(8, "little", "<4Q"), (4, "big", ">4I"), (8, "big", ">4Q"), (4, "little", "<4I")])
def test_words_have_the_size_and_order_of_the_program(word: int, order: str, fields: str) -> None:
    data = struct.pack(fields, AuxType.ENTRY, 0x1234, AuxType.ENTRY, 0x5678)
    assert {AuxType.ENTRY: 0x1234} == parse_auxv(data, word=word, byte_order=order)  # type: ignore[arg-type]


def test_at_null_ends_it() -> None:
    assert {} == parse_auxv(struct.pack("<4Q", 0, 0, AuxType.ENTRY, 1))


@given(st.binary(), st.sampled_from([4, 8]))
def test_any_bytes_are_a_vector(data: bytes, word: int) -> None:
    assert len(parse_auxv(data, word=word)) <= len(data) // (2 * word)
