"""The kernel's symbols as text."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.kallsyms import Kallsyms, KernelSymbol

TEXT = b"""\
ffffffff81000000 T _text
ffffffff81000100 t first
ffffffff81000200 T do_read
ffffffff81000200 T alias
ffffffff81000300 D data
ffffffffc0000000 t probe\t[snd]
ffffffffc0001000 t bpf_prog_6deef7357e7b4530_x\t[bpf]
"""


def test_an_address_has_the_function_before_it() -> None:
    symbols = Kallsyms(TEXT)
    assert KernelSymbol(0xFFFFFFFF81000100, "first", "") == symbols.find(0xFFFFFFFF810001FF)
    assert KernelSymbol(0xFFFFFFFFC0000000, "probe", "snd") == symbols.find(0xFFFFFFFFC0000010)
    assert KernelSymbol(0xFFFFFFFFC0001000, "bpf_prog_6deef7357e7b4530_x", "bpf") == symbols.find(0xFFFFFFFFC0001004)


def test_of_several_names_the_first_counts() -> None:
    found = Kallsyms(TEXT).find(0xFFFFFFFF81000204)
    assert found is not None
    assert "do_read" == found.name


def test_far_from_every_symbol_there_is_no_name() -> None:
    symbols = Kallsyms(TEXT)
    assert symbols.find(0xFFFFFFFF80FFFFFF) is None
    assert symbols.find(0xFFFFFFFF90000000) is None


def test_zeros_say_that_addresses_are_hidden() -> None:
    hidden = Kallsyms(b"0000000000000000 T _text\n0000000000000000 t first\n")
    assert hidden.hidden
    assert hidden.find(0x10) is None
    assert not Kallsyms(TEXT).hidden
    assert Kallsyms(b"").hidden


def test_this_kernels_symbols_are_understood() -> None:
    symbols = Kallsyms(Path("/proc/kallsyms").read_bytes())
    if symbols.hidden:
        pytest.skip("kernel addresses are hidden here")
    lines = Path("/proc/kallsyms").read_text(encoding="utf-8").splitlines()
    address = next(int(line.split()[0], 16) for line in lines if line.endswith(" T schedule"))
    found = symbols.find(address + 1)
    assert found is not None
    assert address == found.address


@given(st.binary())
def test_any_bytes_are_symbols_or_bad_input(data: bytes) -> None:
    with contextlib.suppress(BadInput):
        Kallsyms(data).find(0x1000)


@given(st.lists(st.tuples(st.integers(1, 1 << 64), st.from_regex(r"[a-z_.]{1,20}", fullmatch=True)), min_size=1))
def test_every_start_is_found(rows: list[tuple[int, str]]) -> None:
    symbols = Kallsyms(b"".join(b"%x t %s\n" % (address, name.encode()) for address, name in rows))
    for address, _ in rows:
        found = symbols.find(address)
        assert found is not None
        assert address == found.address
