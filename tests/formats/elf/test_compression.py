"""Compressed sections, and what does not get through as one."""

from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from elf_bytes import ElfBytes, Part
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.elf import Elf, Layout, SectionFlag
from unspool.formats.elf.compression import Algorithm, decompress, decompress_zdebug, unpack

TEXT = b"debugging information " * 50
WIDE = Layout(64, "little")


@pytest.fixture(scope="module")
def with_debug_info(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compression")
    (folder / "a.c").write_text("int twice(int x) { return 2 * x; }\nint main(void) { return twice(3); }\n")
    # Without .eh_frame the compiler writes .debug_frame.
    subprocess.run(["gcc", "-g", "-fno-asynchronous-unwind-tables", "-o", folder / "a", folder / "a.c"], check=True, timeout=120)
    return folder / "a"


@pytest.mark.parametrize("style", ["zlib", "zlib-gnu", "zstd"])
def test_what_objcopy_packs_is_unpacked(with_debug_info: Path, style: str) -> None:
    packed = with_debug_info.with_suffix(f".{style}")
    subprocess.run(["objcopy", f"--compress-debug-sections={style}", with_debug_info, packed], check=True, timeout=60)
    plain, elf = Elf(with_debug_info.read_bytes()), Elf(packed.read_bytes())
    prefix = ".zdebug" if style == "zlib-gnu" else ".debug"
    for name in ("_info", "_str", "_abbrev", "_frame"):
        stored = elf.section(prefix + name) or elf.section(".debug" + name)
        assert stored is not None
        assert plain.section_data(".debug" + name) == elf.data(stored)


@pytest.mark.parametrize(("bits", "order"), [(64, "<"), (32, ">")])
def test_a_section_states_its_compression_in_a_header(bits: int, order: str) -> None:
    elf = ElfBytes(bits, order)
    header = elf.pack("III", "IIQQ", *((Algorithm.ZLIB, len(TEXT), 1) if bits == 32 else (Algorithm.ZLIB, 0, len(TEXT), 1)))
    elf.parts = [Part(".debug_info", header + zlib.compress(TEXT), flags=SectionFlag.COMPRESSED)]
    assert TEXT == Elf(elf.bytes()).section_data(".debug_info")


def test_a_bomb_is_refused_by_what_it_claims_and_by_what_it_does() -> None:
    stream = zlib.compress(bytes(4 << 20))
    with pytest.raises(BadInput, match="claim"):
        unpack(stream, Algorithm.ZLIB, 4 << 20)
    with pytest.raises(BadInput, match="unpacks to 1001"):
        unpack(stream, Algorithm.ZLIB, 1000)
    with pytest.raises(BadInput, match="claim"):
        unpack(b"x", Algorithm.ZSTD, 1 << 40)


def test_sizes_streams_and_algorithms_must_be_right() -> None:
    for stream, algorithm, size in [
        (zlib.compress(TEXT), Algorithm.ZLIB, len(TEXT) + 1),
        (b"nonsense", Algorithm.ZLIB, 5),
        (b"nonsense", Algorithm.ZSTD, 5),
        (TEXT, 99, len(TEXT)),
    ]:
        with pytest.raises(BadInput):
            unpack(stream, algorithm, size)


def test_zdebug_without_its_magic_is_stored_plain() -> None:
    assert TEXT == decompress_zdebug(TEXT)
    assert TEXT == decompress_zdebug(b"ZLIB" + len(TEXT).to_bytes(8, "big") + zlib.compress(TEXT))


@given(st.binary(), st.sampled_from([1, 2]), st.integers(0, 1 << 21))
def test_any_stream_is_bytes_or_bad_input(stream: bytes, algorithm: int, size: int) -> None:
    try:
        assert size == len(decompress(struct.pack("<IIQQ", algorithm, 0, size, 1) + stream, WIDE))
    except BadInput:
        return
