"""The kernel's symbols out of its memory, in five layouts."""

from __future__ import annotations

import contextlib

import pytest
from formats.kallsyms_bytes import Age, Row, kallsyms
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.kallsyms_tables import MAX_NAME, KernelSymbols, _Budget, read_tables

BASE = 0xFFFF_FFFF_A660_0000
BEFORE = 0x1238
"""Where in the image the table stands: other bytes come first."""
LONG = "x" * 300


def rows(age: Age, count: int = 700) -> list[Row]:
    """As in a kernel: per-CPU symbols first (where they are absolute), then text, the table's own labels, and aliases."""
    absolute = age not in {Age.NEW_RELATIVE, Age.SELF_RELATIVE}
    found: list[Row] = [(0x0, "D", "fixed_percpu_data"), (0x1F000, "D", "cpu_number")] if absolute else []
    found += [(BASE, "T", "_text"), (BASE, "T", "_stext"), (BASE + 0x40, "T", LONG)]
    found += [(BASE + 0x80 + 0x10 * index, "t", f"__function_{index}") for index in range(count)]
    found.append((BASE + 0x80 + 0x10 * count, "t", "func"))
    return found


def image(age: Age, *, count: int = 700) -> tuple[bytes, list[Row]]:
    """The bytes of an image, and the symbols that it holds."""
    plain = rows(age, count)
    address = BASE + BEFORE
    # Twice: the labels' addresses are known only when all sizes are.
    labels = kallsyms([*plain, (0, "d", "kallsyms_token_table")], address, age, BASE).labels
    whole = sorted([*plain, (labels["kallsyms_token_table"], "d", "kallsyms_token_table")], key=lambda row: row[0])
    table = kallsyms(whole, address, age, BASE)
    assert table.labels["kallsyms_token_table"] == labels["kallsyms_token_table"]
    noise = bytes(index * 7 & 0xFF for index in range(BEFORE))
    return noise + bytes(table.data) + b"\xcc" * 999, whole


@pytest.mark.parametrize("age", Age)
@pytest.mark.parametrize("count", [1, 252, 253, 700])
def test_every_layout_gives_all_symbols(age: Age, count: int) -> None:
    data, expected = image(age, count=count)
    if len(expected) <= 256:
        # One marker is no pattern: the smallest kernel has tens of thousands of symbols.
        with pytest.raises(BadInput):
            read_tables(data, BASE)
        return
    assert expected == list(read_tables(data, BASE))


def test_symbols_are_found_by_address_and_name() -> None:
    symbols = read_tables(image(Age.NEW)[0], BASE)
    assert ("__function_3", BASE + 0xB0) == symbols.find(BASE + 0xBF)
    assert (BASE + 0xB0, BASE + 0xC0) == symbols.extent(BASE + 0xBF)
    assert ("_text", BASE) == symbols.find(BASE + 1), "of aliases the first"
    assert (BASE, BASE + 0x40) == symbols.extent(BASE)
    assert BASE + 0x40 == symbols.address(LONG)
    assert BASE + 0xB0 == symbols.address("__function_3")
    assert symbols.address("function_3") is None
    assert symbols.address("t__function_3") is None
    assert symbols.address("__function_") is None
    assert 0x1F000 == symbols.address("cpu_number")


def test_rows_may_come_in_any_order() -> None:
    symbols = KernelSymbols.of([(0x30, "t", "b"), (0x10, "T", "a"), (0x30, "t", "alias")])
    assert [(0x10, "T", "a"), (0x30, "t", "b"), (0x30, "t", "alias")] == list(symbols)
    assert symbols.find(0xF) is None
    assert symbols.extent(0xF) is None
    assert ("a", 0x10) == symbols.find(0x2F)
    assert ("b", 0x30) == symbols.find(1 << 63)
    assert symbols.extent(0x30) is None, "nothing says where the last one ends"
    assert symbols.address("a") == 0x10
    assert KernelSymbols.of([]).find(5) is None


@pytest.mark.parametrize("age", Age)
def test_a_table_that_contradicts_itself_is_refused(age: Age) -> None:
    """Each of these bytes is checked against something else."""
    data, whole = image(age)
    table = kallsyms(whole, BASE + BEFORE, age, BASE)
    offsets = {label: address - BASE for label, address in table.labels.items()}
    places = ["kallsyms_num_syms", "kallsyms_markers", "kallsyms_token_index", "kallsyms_names"]
    for place in places:
        damaged = bytearray(data)
        damaged[offsets[place] + (4 if place == "kallsyms_markers" else 0)] ^= 0x55
        with pytest.raises(BadInput):
            read_tables(bytes(damaged), BASE)


@pytest.mark.parametrize("age", Age)
def test_a_table_that_is_cut_is_refused(age: Age) -> None:
    data, _ = image(age)
    for size in (0, BEFORE, len(data) // 2, len(data) - 1400):
        with pytest.raises(BadInput):
            read_tables(data[:size], BASE)


def test_a_kernel_somewhere_else_is_refused() -> None:
    """The table says where it stands itself: an image at another address is not the one that was meant."""
    with pytest.raises(BadInput):
        read_tables(image(Age.NEW)[0], BASE + 0x1000)


def test_names_have_a_limit() -> None:
    data, whole = image(Age.NEW)
    assert len(whole) > 256
    symbols = read_tables(data, BASE)
    assert all(len(name) <= MAX_NAME for _, _, name in symbols)


@given(st.sampled_from(Age), st.data())
def test_damage_gives_symbols_or_a_refusal(age: Age, data: st.DataObject) -> None:
    content = bytearray(IMAGES[age])
    places = st.integers(BEFORE - 8, len(content) - 1)
    for place, mask in data.draw(st.dictionaries(places, st.integers(1, 255), min_size=1, max_size=6)).items():
        content[place] ^= mask
    with contextlib.suppress(BadInput):
        symbols = read_tables(bytes(content), BASE)
        addresses = [address for address, _, _ in symbols]
        assert sorted(addresses) == addresses


@given(st.binary(max_size=3000))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BadInput):
        read_tables(content, BASE)


IMAGES = {age: image(age, count=300)[0] for age in Age}


@pytest.mark.parametrize("budget", [{"names": 300}, {"tables": 0}])
def test_bytes_made_to_look_like_many_tables_are_given_up(budget: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unspool.formats.kallsyms_tables._Budget", lambda: _Budget(**budget))
    with pytest.raises(BadInput, match="too many tables"):
        read_tables(IMAGES[Age.NEW], BASE)


def test_characters_in_utf_16_are_no_token_table() -> None:
    """Kernels hold many tables of them, in which the digits look like tokens."""
    data, expected = image(Age.NEW)
    wide = "".join(map(chr, range(32, 127))).encode("utf-16-le")
    assert len(wide) * 50 % 8 == 4
    shifted = wide * 50 + b"abcd"
    assert expected == list(read_tables(shifted + data, BASE - len(shifted)))
