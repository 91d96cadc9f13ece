"""What holds for all values and all bytes: decode(encode(x)) == x; any bytes give a value or a BadInput, in bounded time."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.sframe import Abi, Base, Fde, decode, decode_all, encode, rule_of
from unspool.formats.sframe.encode import function, row
from unspool.formats.sframe.rules import BadRow, default_words, flex_words
from unspool.toolkit.check import check_data

_spec = importlib.util.spec_from_file_location("sframe_strategies", Path(__file__).with_name("strategies.py"))
assert _spec is not None
assert _spec.loader is not None
strategies = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(strategies)

SAMPLE = encode(
    [
        function(0x2000, 64, [row(0, (8,), base=Base.SP), row(1, (16, -16), base=Base.SP), row(4, (16, -16))]),
        function(0x2040, 700, [row(0, (8,), base=Base.SP), row(300, (70000,), base=Base.SP)]),
        function(0x2400, 10, [], signal=True),
    ],
    Abi.AMD64_LITTLE,
    0x1000,
)


@given(st.lists(strategies.fdes(), max_size=5), strategies.abis, st.integers(0, (1 << 46) - 1))
def test_decoding_gives_back_what_was_encoded(fdes: list[Fde], abi: Abi, address: int) -> None:
    data = encode(fdes, abi, address, keep_order=True)
    assert tuple(fdes) == decode(data, address).fdes
    assert data == encode(decode(data, address).fdes, abi, address, keep_order=True)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_value_or_a_bad_input(data: bytes) -> None:
    for magic in (b"", b"\xe2\xde\x03\x05\x03", b"\xde\xe2\x03\x05\x04", b"\xe2\xde\x02\x00\x03", b"\xe2\xde\x01\x00\x02"):
        with contextlib.suppress(BadInput):
            assert all(len(section.fdes) == section.header.num_fdes for section in decode_all(magic + data))
        check_data(magic + data)


@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_sections_are_read_or_refused_and_checked(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLE)
    for place, value in changes:
        data[place] = value
    sections, findings = check_data(bytes(data), 0x1000)
    assert sections or any(finding.kind == "format" for finding in findings)
    for section in sections:
        for fde in section.fdes:
            for fre in fde.fres:
                rule_of(fde, fre, section.header.abi)


@given(st.lists(strategies.fdes(), max_size=4), strategies.abis)
def test_a_rule_becomes_words_that_say_the_same_rule(fdes: list[Fde], abi: Abi) -> None:
    """Rule to words and back: the default form where it can say it, else the flexible one."""
    for fde in fdes:
        for fre in fde.fres:
            rule = rule_of(fde, fre, abi)
            if isinstance(rule, BadRow) or rule.outermost:
                continue
            default, flex = default_words(rule, abi), flex_words(rule, abi)
            if default is not None:
                again = row(0, default[1], base=default[0], mangled_ra=rule.mangled_ra)
                assert rule == rule_of(function(0, 1, [again], signal=rule.signal), again, abi)
            if flex is not None:
                plain = function(0, 1, [], fde_type=strategies.FdeType.FLEX, signal=rule.signal)
                again = strategies.Fre(0, flex, Base.FP, 4, rule.mangled_ra)
                assert rule == rule_of(plain, again, abi)
