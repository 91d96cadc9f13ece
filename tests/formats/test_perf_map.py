"""Names of code that a program compiled at run time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.formats.perf_map import JitSymbol, PerfMap


def test_code_has_the_name_of_its_range() -> None:
    jit = PerfMap(b"7f00 10 first one\n7f20 8 second\n")
    assert JitSymbol(0x7F00, 16, "first one") == jit.find(0x7F0F)
    assert jit.find(0x7F10) is None
    assert jit.find(0x6000) is None
    assert 2 == len(jit)


def test_code_that_replaced_other_code_has_the_later_name() -> None:
    found = PerfMap(b"7f00 10 old\n7f00 20 new\n").find(0x7F04)
    assert JitSymbol(0x7F00, 32, "new") == found


@pytest.mark.parametrize("line", [b"", b"7f00", b"7f00 10", b"x y z", b"7f00 0 empty", b"7f00 -1 negative", b"-7 10 negative", b"\0\xff"])
def test_other_lines_are_left_out(line: bytes) -> None:
    jit = PerfMap(line + b"\n7f20 8 good\n")
    assert 1 == len(jit)
    assert bool(line) == bool(jit.skipped)


def test_addresses_may_have_a_prefix_and_names_any_bytes() -> None:
    found = PerfMap(b"0x7f00 0x10 Lfoo;::bar \xff<script>\n").find(0x7F00)
    assert JitSymbol(0x7F00, 16, "Lfoo;::bar \ufffd<script>") == found


@given(st.binary(), st.integers(0, 1 << 64))
def test_any_bytes_are_a_map(data: bytes, address: int) -> None:
    found = PerfMap(data).find(address)
    assert found is None or found.start <= address < found.start + found.size
