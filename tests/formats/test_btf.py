"""BTF: where members lie, through arrays, anonymous members, qualifiers and bit fields."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from formats.btf_bytes import UNION, BtfBytes
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.btf import Btf, Member


def sample() -> bytes:
    """A struct with all that occurs in the kernel's."""
    made = BtfBytes()
    byte = made.int("char", 1)
    number = made.int("unsigned int", 4)
    alias = made.typedef("u32", made.const(number))
    pointer = made.ptr()
    inner = made.struct("inner", 16, [("first", pointer, 0), ("second", alias, 64)])
    unnamed = made.struct("", 8, [("deep", alias, 32)], UNION)
    made.struct("whole", 120, [
        ("name", made.array(byte, 16), 0), ("", unnamed, 128), ("parts", made.array(inner, 3), 192), ("next", pointer, 576),
        ("grid", made.array(made.array(alias, 2), 3), 640),
    ])  # fmt: skip
    made.struct("packed", 6, [("plain", number, 0), ("low", number, 32, 4), ("high", number, 36, 3)])
    made.enum("kind", {"KIND_NONE": -1, "KIND_TEXT": 5})
    return bytes(made)


def test_members_are_found_by_path() -> None:
    whole = Btf(sample()).struct("whole")
    assert 120 == whole.size
    assert 0 == whole.offset("name")
    assert 16 == whole.member("name").size
    assert 20 == whole.offset("deep"), "a member of an anonymous union"
    assert 24 == whole.offset("parts")
    assert 24 + 16 * 2 + 8 == whole.offset("parts[2].second")
    assert 72 == whole.offset("next")
    assert 8 == whole.member("next").size
    assert 80 + 8 * 2 + 4 == whole.offset("grid[2][1]")


def test_bit_fields_have_their_width() -> None:
    packed = Btf(sample()).struct("packed")
    low, high = packed.member("low"), packed.member("high")
    assert (32, 4, 4) == (low.bit_offset, low.bits, low.size)
    assert (36, 3, 4) == (high.bit_offset, high.bits, high.offset)
    assert 0 == packed.member("plain").bits
    with pytest.raises(BadInput, match="bit field"):
        packed.offset("low")


@pytest.mark.parametrize(
    "path", ["", "nothing", "name.x", "parts[3]", "parts[0].third", "next.first", "parts[-1]", "name[0", "deep.deep", "."]
)
def test_what_is_not_there_is_none(path: str) -> None:
    whole = Btf(sample()).struct("whole")
    assert whole.find(path) is None
    with pytest.raises(BadInput, match="no member"):
        whole.offset(path)


def test_names_are_whole_names() -> None:
    made = Btf(sample())
    assert made.has("inner")
    assert not made.has("inne")
    assert not made.has("nner")
    assert not made.has("u32"), "a typedef is no struct"
    assert 5 == made.enumerator("KIND_TEXT")
    assert -1 == made.enumerator("KIND_NONE")
    assert made.enumerator("KIND") is None
    with pytest.raises(BadInput, match="no struct nothing"):
        made.struct("nothing")


def test_types_that_hold_themselves_come_to_an_end() -> None:
    made = BtfBytes()
    made.struct("loop", 8, [("", 1, 0), ("", 1, 0), ("x", 2, 0)])
    made.typedef("ring", 2)
    made.array(3, 7)
    btf = Btf(bytes(made))
    assert btf.struct("loop").find("y") is None
    assert Member(0, 0, 0, 2) == btf.struct("loop").find("x")
    assert 0 == btf.size_of(3)


@pytest.mark.parametrize("cut", [0, 3, 24, 40, -1])
def test_what_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(BadInput, match="BTF"):
        Btf(sample()[:cut])


def test_this_kernels_types_are_understood() -> None:
    path = Path("/sys/kernel/btf/vmlinux")
    if not path.exists():
        pytest.skip("this kernel has no BTF")
    btf = Btf(path.read_bytes())
    task = btf.struct("task_struct")
    assert 16 == task.member("comm").size
    assert task.offset("comm") + 16 <= task.size
    assert 0 == btf.struct("list_head").offset("next")


@given(st.binary(max_size=200))
def test_any_bytes_are_types_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadInput):
        Btf(sample()[:24] + data)
    with contextlib.suppress(BadInput):
        Btf(data)


@given(st.dictionaries(st.integers(0, len(sample()) - 1), st.integers(1, 255), min_size=1, max_size=8))
def test_damaged_types_answer_or_are_refused(change: dict[int, int]) -> None:
    data = bytearray(sample())
    for place, mask in change.items():
        data[place] ^= mask
    with contextlib.suppress(BadInput):
        btf = Btf(bytes(data))
        btf.enumerator("KIND_TEXT")
        for name, path in (("whole", "parts[2].second"), ("whole", "deep"), ("whole", "grid[1][1]"), ("packed", "low")):
            if btf.has(name):
                found = btf.struct(name).find(path)
                assert found is None or (found.bit_offset >= 0 and found.size >= 0)
