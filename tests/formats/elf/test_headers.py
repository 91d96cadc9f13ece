"""ELF's tables, against readelf on the machine's own programs and against files put together here."""

from __future__ import annotations

import contextlib
import functools
import mmap
import re
import struct
import subprocess
from pathlib import Path

import pytest
from elf_bytes import ElfBytes, Part
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.elf import Elf, SegmentType
from unspool.model.memory import Bytes

SYSTEM = ["/bin/ls", "/usr/bin/perl", "/usr/bin/python3", "/bin/bash", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
LAYOUTS = [(64, "<"), (64, ">"), (32, "<"), (32, ">")]


@functools.cache
def readelf(option: str, path: str) -> str:
    return subprocess.run(["readelf", "-W", option, path], check=True, capture_output=True, text=True, timeout=60).stdout


def sample(bits: int = 64, order: str = "<") -> ElfBytes:
    elf = ElfBytes(bits, order)
    elf.parts = [
        Part(".text", b"\x90" * 64, flags=6, address=0x1000, segment=SegmentType.LOAD, permissions=5),
        Part(".data", b"d" * 32, flags=3, address=0x3000, segment=SegmentType.LOAD, permissions=6),
        Part(".note.gnu.build-id", elf.note(b"GNU", 3, bytes.fromhex("c0ffee11")), 7, segment=SegmentType.NOTE),
    ]
    return elf


@pytest.mark.parametrize("path", SYSTEM)
def test_sections_are_those_of_readelf(path: str) -> None:
    rows = re.findall(r"^  \[ *(\d+)\] (\S*) +([A-Z_]\S*) +([0-9a-f]{16}) ([0-9a-f]+) ([0-9a-f]+) ", readelf("-S", path), re.MULTILINE)
    expected = [(int(index), name, int(address, 16), int(offset, 16), int(size, 16)) for index, name, _, address, offset, size in rows]
    sections = Elf(Path(path).read_bytes()).sections
    assert len(expected) > 20
    assert expected == [(s.index, s.name, s.address, s.offset, s.size) for s in sections][len(sections) - len(expected) :]


@pytest.mark.parametrize("path", SYSTEM)
def test_loaded_segments_are_those_of_readelf(path: str) -> None:
    rows = re.findall(r"^  LOAD +0x(\w+) 0x(\w+) 0x\w+ 0x(\w+) 0x(\w+) (...)", readelf("-l", path), re.MULTILINE)
    expected = [(*(int(number, 16) for number in row[:4]), "E" in row[4]) for row in rows]
    loads = Elf(Path(path).read_bytes()).loads
    assert expected
    assert expected == [(s.offset, s.address, s.file_size, s.memory_size, s.executable) for s in loads]


@pytest.mark.parametrize("path", SYSTEM)
def test_build_id_and_interpreter_are_those_of_readelf(path: str) -> None:
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        elf = Elf(data)
        build_id = re.search(r"Build ID: (\w+)", readelf("-n", path))
        interpreter = re.search(r"program interpreter: (\S+)\]", readelf("-l", path))
        assert (build_id[1] if build_id else "") == elf.build_id
        assert (interpreter[1] if interpreter else "") == elf.interpreter
        assert f"0x{elf.entry:x}\n" in readelf("-h", path)


@pytest.mark.parametrize("path", SYSTEM)
def test_offsets_and_addresses_are_each_others_inverse(path: str) -> None:
    elf = Elf(Path(path).read_bytes())
    for segment in elf.loads:
        for inner in (0, segment.file_size // 2, segment.file_size - 1):
            assert segment.offset + inner == elf.file_offset(segment.address + inner)
        if segment.executable:
            assert segment.address == elf.svma(segment.offset)


@pytest.mark.parametrize(("bits", "order"), LAYOUTS)
def test_both_classes_and_byte_orders_are_read(bits: int, order: str) -> None:
    elf = Elf(sample(bits, order).bytes())
    assert ["", ".text", ".data", ".note.gnu.build-id", ".shstrtab"] == [section.name for section in elf.sections]
    assert ("c0ffee11", 0x1000, 62) == (elf.build_id, elf.entry, elf.machine)
    assert b"d" * 32 == elf.section_data(".data") == elf.read_svma(0x3000, 32)
    assert [True, False] == [segment.executable for segment in elf.loads]


def test_an_image_in_memory_is_read_by_address() -> None:
    """A process's pages: the segments lie at their addresses from the image's start on, and no section headers are there."""
    file = sample()
    data = bytearray(file.bytes().ljust(0x4000, b"\0"))
    data[0x1000:0x1040] = b"\x90" * 64
    image = Elf(Bytes(0x7F0000, bytes(data)), base=0x7F0000, image=True)
    assert () == image.sections
    assert 2 == len(image.loads)
    assert b"\x90" * 8 == image.read_svma(image.image_start + 0x1000, 8)


def test_extended_numbering_is_followed() -> None:
    """More sections than e_shnum can say: the counts are in section 0 (gABI, e_shnum and e_shstrndx)."""
    data = bytearray(sample().bytes())
    (sections_at,) = struct.unpack_from("<Q", data, 0x28)
    count, names = struct.unpack_from("<HH", data, 0x3C)
    struct.pack_into("<HH", data, 0x3C, 0, 0xFFFF)
    struct.pack_into("<QI", data, sections_at + 32, count, names)
    assert ["", ".text", ".data", ".note.gnu.build-id", ".shstrtab"] == [section.name for section in Elf(bytes(data)).sections]


@pytest.mark.parametrize(
    ("offset", "value", "what"),
    [
        (0, b"\x7fELG", "not an ELF file"),
        (4, b"\x07", "class 7"),
        (5, b"\x00", "byte order 0"),
        (0x28, b"\xff" * 8, "not there"),
        (0x36, b"\x08\x00", "entries of 8 bytes"),
        (0x3E, b"\x77\x00", "section 119 of"),
    ],
)
def test_broken_bytes_are_named_with_file_and_offset(offset: int, value: bytes, what: str) -> None:
    data = bytearray(sample().bytes())
    data[offset : offset + len(value)] = value
    with pytest.raises(BadInput, match=what) as caught:
        _everything(Elf(bytes(data), file="a.out"))
    assert "a.out" == caught.value.file
    assert caught.value.offset is not None


def test_a_table_of_impossible_size_is_refused_before_it_is_read() -> None:
    data = bytearray(sample().bytes())
    (sections_at,) = struct.unpack_from("<Q", data, 0x28)
    struct.pack_into("<H", data, 0x3C, 0)
    struct.pack_into("<Q", data, sections_at + 32, 1 << 40)
    with pytest.raises(BadInput, match="headers"):
        _ = Elf(bytes(data)).sections


def test_a_table_of_names_without_an_end_is_not_read_to_its_end() -> None:
    """Thousands of sections that all point into megabytes without a zero."""
    file = sample()
    file.parts += [Part("n" * 100_000, b"")] * 20
    assert {4096} == {len(section.name) for section in Elf(file.bytes()).sections[4:-1]}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_bad_input(data: bytes) -> None:
    _survives(data)


@given(st.sampled_from(LAYOUTS), st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=8))
def test_any_damage_is_a_file_or_bad_input(layout: tuple[int, str], damage: list[tuple[int, int]]) -> None:
    data = bytearray(sample(*layout).bytes())
    for position, value in damage:
        data[position % len(data)] = value
    _survives(bytes(data))


@given(st.integers(0, 600))
def test_any_cut_is_a_file_or_bad_input(size: int) -> None:
    _survives(sample().bytes()[:size])


def _survives(data: bytes) -> None:
    with contextlib.suppress(BadInput):
        _everything(Elf(data))


def _everything(elf: Elf) -> None:
    _ = elf.segments, elf.interpreter, elf.dynamic, elf.build_id, elf.svma(0x1000), elf.file_offset(0x1000), elf.image_start
    for section in elf.sections:
        elf.data(section)
