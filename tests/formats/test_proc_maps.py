"""The mappings of a process as the kernel prints them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.proc_maps import parse_maps
from unspool.model.module import AddressSpace, Mapping


def line(path: bytes = b"", *, start: int = 0x1000, mode: bytes = b"r-xp") -> bytes:
    return b"%x-%x %s 00002000 fe:0a 77                         %s\n" % (start, start + 0x1000, mode, path)


def test_a_line_has_all_fields() -> None:
    [mapping] = parse_maps(line(b"/usr/lib/a b.so"))
    expected = Mapping(0x1000, 0x2000, True, False, True, 0x2000, "/usr/lib/a b.so", (0xFE, 0x0A), 77)  # noqa: FBT003
    assert expected == mapping


@pytest.mark.parametrize(
    ("printed", "path", "deleted"),
    [
        (b"", "", False),
        (b"[vdso]", "[vdso]", False),
        (b"[stack]", "[stack]", False),
        (b"/memfd:x (deleted)", "/memfd:x", True),
        (b"/a (deleted) (deleted)", "/a (deleted)", True),
        (b"/two\\012lines", "/two\nlines", False),
        (b"/trailing ", "/trailing ", False),
        (b"/bad\xff", os.fsdecode(b"/bad\xff"), False),
        (b"/return\r", "/return\r", False),
        ("/file\u2028separator".encode(), "/file\u2028separator", False),
    ],
)
def test_a_name_is_what_the_kernel_keeps(printed: bytes, path: str, deleted: bool) -> None:  # noqa: FBT001
    [mapping] = parse_maps(line(printed))
    assert (path, deleted) == (mapping.path, mapping.deleted)


def test_mode_is_read_letter_by_letter() -> None:
    [mapping] = parse_maps(line(mode=b"-w-s"))
    assert (False, True, False, True) == (mapping.readable, mapping.writable, mapping.executable, mapping.shared)


def test_mappings_are_sorted_and_found() -> None:
    space = parse_maps(line(b"/b", start=0x9000) + line(b"/a", start=0x1000))
    assert ["/a", "/b"] == [mapping.path for mapping in space]
    assert "/b" == getattr(space.find(0x9FFF), "path", None)
    assert space.find(0x5000) is None


def test_the_last_page_of_the_address_space_is_a_mapping() -> None:
    [mapping] = parse_maps(b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n")
    assert "[vsyscall]" == mapping.path


@pytest.mark.parametrize("bad", [b"x", b"1-2", b"2-1 rwxp 0 0:0 0", b"1-2 rwxp z 0:0 0", b"1-2-3 rwxp 0 0:0 0", b"-1-2 r-xp 0 0:0 0"])
def test_another_line_is_named_with_its_offset(bad: bytes) -> None:
    good = line()
    with pytest.raises(BadInput) as caught:
        parse_maps(good + bad, file="maps")
    assert ("maps", len(good)) == (caught.value.file, caught.value.offset)


def test_our_own_mappings_are_understood() -> None:
    text = Path("/proc/self/maps").read_bytes()
    space = parse_maps(text)
    assert text.count(b"\n") == len(space.mappings)
    assert any(mapping.kind == "vdso" for mapping in space)
    assert any(mapping.path.endswith("python3.11") or "python" in mapping.path for mapping in space)


@given(st.binary())
def test_any_bytes_are_mappings_or_bad_input(data: bytes) -> None:
    with contextlib.suppress(BadInput):
        assert isinstance(parse_maps(data), AddressSpace)


@given(st.text(st.characters(blacklist_characters="\0\n\\", blacklist_categories=["Cs"]), min_size=1))
def test_every_name_survives(name: str) -> None:
    path = "/" + name
    [mapping] = parse_maps(line(path.encode() + b" (deleted)"))
    assert (path, True) == (mapping.path, mapping.deleted)
