"""Links to separate debug files."""

from __future__ import annotations

import contextlib
import lzma

import pytest
from elf_bytes import ElfBytes, Part
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.elf import Elf
from unspool.formats.elf.debug_links import AltLink, DebugLink, alt_link, debug_link, mini_debug_info


def with_section(name: str, data: bytes, order: str = "<") -> Elf:
    elf = ElfBytes(order=order)
    elf.parts = [Part(name, data)]
    return Elf(elf.bytes())


@pytest.mark.parametrize(("order", "crc"), [("<", b"\x78\x56\x34\x12"), (">", b"\x12\x34\x56\x78")])
def test_a_name_is_padded_and_followed_by_a_checksum(order: str, crc: bytes) -> None:
    for name in (b"a.debug", b"ab.debug", b"abcd"):
        data = name + bytes(4 - len(name) % 4) + crc
        assert DebugLink(name.decode(), 0x12345678) == debug_link(with_section(".gnu_debuglink", data, order))


@pytest.mark.parametrize("name", [b"../../etc/passwd", b"/etc/passwd", b"", b"..", b"."])
def test_a_name_that_leads_elsewhere_is_none(name: bytes) -> None:
    data = name + bytes(4 - len(name) % 4) + b"1234"
    assert debug_link(with_section(".gnu_debuglink", data)) is None


def test_a_link_without_its_checksum_is_none() -> None:
    assert debug_link(with_section(".gnu_debuglink", b"a.debug\0")) is None


def test_the_supplementary_file_is_known_by_its_build_id() -> None:
    assert AltLink("/usr/lib/debug/.dwz/x", "c0ffee") == alt_link(with_section(".gnu_debugaltlink", b"/usr/lib/debug/.dwz/x\0\xc0\xff\xee"))


def test_without_sections_there_are_no_links() -> None:
    elf = with_section(".text", b"")
    assert debug_link(elf) is alt_link(elf) is mini_debug_info(elf) is None


def test_mini_debug_info_is_unpacked() -> None:
    assert b"an ELF file" == mini_debug_info(with_section(".gnu_debugdata", lzma.compress(b"an ELF file")))


@pytest.mark.parametrize("data", [b"nonsense", lzma.compress(b"cut short" * 100)[:-20], lzma.compress(bytes(129 << 20))])
def test_what_is_no_stream_or_a_bomb_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="gnu_debugdata"):
        mini_debug_info(with_section(".gnu_debugdata", data))


@given(st.sampled_from([".gnu_debuglink", ".gnu_debugaltlink", ".gnu_debugdata"]), st.binary())
def test_any_bytes_are_a_link_or_none(name: str, data: bytes) -> None:
    elf = with_section(name, data)
    with contextlib.suppress(BadInput):
        link = debug_link(elf)
        assert link is None or "/" not in link.name
        alt_link(elf)
        mini_debug_info(elf)
