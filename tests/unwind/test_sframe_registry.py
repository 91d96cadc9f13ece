"""SFrameRegistry keeps the rules of the kernel series: registration, fork, overlap, removal on corruption, errnos."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from unspool.formats.sframe import CFA, Abi, Base, Fde, Flag, FrameRule, PcType, Place, encode
from unspool.formats.sframe.encode import function, row
from unspool.model.memory import Bytes, Layered
from unspool.model.module import AddressSpace, Mapping
from unspool.unwind.sframe_registry import SFrameRegistry
from unspool.unwind.sframe_section import Errno, Found, Refused, RegisteredSection

AT, TEXT = 0x10000, range(0x20000, 0x21000)
ROWS = (row(0, (8,), base=Base.SP), row(1, (16, -16), base=Base.SP), row(4, (16, -16)))
FIRST, SECOND, THIRD = (function(start, 64, ROWS) for start in (0x20000, 0x20040, 0x20080))
RETURN = Place(CFA, -8, deref=True)


def section(*fdes: Fde, **options: object) -> bytes:
    return encode(fdes, Abi.AMD64_LITTLE, AT, **options)  # type: ignore[arg-type]


def registry(data: bytes, *, validate: bool = False) -> SFrameRegistry:
    return SFrameRegistry(Bytes(AT, data), validate=validate)


def added(data: bytes, *, validate: bool = False) -> tuple[SFrameRegistry, RegisteredSection | Refused]:
    sections = registry(data, validate=validate)
    return sections, sections.add(range(AT, AT + len(data)), TEXT, file="libx.so")


def test_a_registered_section_answers_for_its_text() -> None:
    sections, _ = added(section(FIRST, SECOND))
    found = sections.find(0x20041)
    assert Found(FrameRule(Place(7, 16, deref=False), RETURN, Place(CFA, -16, deref=True)), 0x20040, 0x20080) == found
    assert Found(FrameRule(Place(7, 8, deref=False), RETURN), 0x20000, 0x20040) == sections.find(0x20000)


def test_addresses_without_data_are_enoent_and_keep_the_section() -> None:
    sections, _ = added(section(FIRST))
    for pc in (0x1F000, 0x20040, 0x20FFF, 0x21000):
        found = sections.find(pc)
        assert isinstance(found, Refused)
        assert (Errno.ENOENT, False) == (found.errno, found.corrupt)
    assert 1 == len(sections)


REFUSED_AT_REGISTRATION = {
    "short": (b"\xe2\xde\x03", Errno.EFAULT),
    "magic": (b"\0" * 64, Errno.EINVAL),
    "version 2": (section(FIRST, version=2), Errno.EINVAL),
    "unsorted": (section(FIRST, flags=Flag.FDE_FUNC_START_PCREL), Errno.EINVAL),
    "not pcrel": (section(FIRST, flags=Flag.FDE_SORTED), Errno.EINVAL),
    "no functions": (section(), Errno.EINVAL),
    "rows behind the end": (section(FIRST)[:-1], Errno.EINVAL),
}


@pytest.mark.parametrize("case", REFUSED_AT_REGISTRATION)
def test_registration_refuses(case: str) -> None:
    data, errno = REFUSED_AT_REGISTRATION[case]
    sections, result = added(data)
    assert isinstance(result, Refused)
    assert errno is result.errno
    assert 0 == len(sections)


def test_registration_checks_the_mappings() -> None:
    data = section(FIRST)
    good = [
        Mapping(AT, AT + 0x1000, True, False, False, 0, "libx.so", inode=1),  # noqa: FBT003 - r, w, x
        Mapping(TEXT.start, TEXT.stop, True, False, True, 0x1000, "libx.so", inode=1),  # noqa: FBT003
    ]
    for mappings, expected in ((good, True), (good[:1], False), (good[1:], False), ([good[0], replace(good[1], executable=False)], False)):
        sections = SFrameRegistry(Bytes(AT, data), AddressSpace.of(mappings))
        result = sections.add(range(AT, AT + len(data)), TEXT)
        assert expected == isinstance(result, RegisteredSection)
    zero = registry(data).add(range(AT, AT + len(data)), range(0))
    assert isinstance(zero, Refused)
    assert Errno.EINVAL is zero.errno


def test_overlapping_text_is_refused_and_removal_makes_room() -> None:
    data = section(FIRST)
    sections, _ = added(data)
    again = sections.add(range(AT + 8, AT + 8 + len(data)), range(0x20FFF, 0x22000))
    assert isinstance(again, Refused)
    assert Errno.EEXIST is again.errno
    assert sections.remove(AT) is None
    unknown = sections.remove(AT)
    assert isinstance(unknown, Refused)
    assert Errno.EINVAL is unknown.errno
    assert isinstance(sections.add(range(AT, AT + len(data)), TEXT), RegisteredSection)


CORRUPT = {
    "index not sorted": section(FIRST, THIRD, SECOND, keep_order=True, flags=Flag.FDE_SORTED | Flag.FDE_FUNC_START_PCREL),
    "rows do not rise": section(replace(FIRST, fres=ROWS[::-1])),
    "repeated block of 0 bytes": section(replace(FIRST, pc_type=PcType.MASK)),
    "row behind its function": section(replace(FIRST, size=2)),
    "too many words": section(replace(FIRST, fres=(row(0, (8, -16, 2)),))),
}


@pytest.mark.parametrize("case", CORRUPT)
def test_a_corrupt_section_is_dropped_and_named(case: str) -> None:
    """Either validation refuses it, or the first lookup that meets the damage drops it."""
    sections, _ = added(CORRUPT[case])
    for pc in range(0x20000, 0x200C0):
        sections.find(pc)
    assert 0 == len(sections)
    assert ["libx.so"] == [dropped.file for dropped in sections.dropped]
    again = sections.find(0x20000)
    assert isinstance(again, Refused)
    assert Errno.ENOENT is again.errno


@pytest.mark.parametrize("case", sorted(set(CORRUPT) - {"repeated block of 0 bytes"}))
def test_full_validation_refuses_at_registration(case: str) -> None:
    sections, result = added(CORRUPT[case], validate=True)
    assert isinstance(result, Refused)
    assert result.corrupt
    assert 1 == len(sections.dropped)


def test_two_functions_of_one_start() -> None:
    """A function of no bytes shares its start with the next one: the range decides; validation refuses the pair, as the kernel does."""
    data = section(FIRST, replace(SECOND, size=0, fres=()), SECOND)
    sections, _ = added(data)
    assert isinstance(sections.find(0x20042), Found)
    assert isinstance(added(data, validate=True)[1], Refused)


def test_a_child_keeps_the_sections_and_its_changes_are_its_own() -> None:
    data = section(FIRST)
    parent, _ = added(data)
    child = parent.fork(Bytes(AT, data))
    child.remove(AT)
    assert isinstance(parent.find(0x20001), Found)
    assert isinstance(child.find(0x20001), Refused)
    broken = parent.fork(Bytes(AT, b""))
    found = broken.find(0x20001)
    assert isinstance(found, Refused)
    assert not found.corrupt


def test_code_that_is_generated_and_replaced() -> None:
    """A JIT registers each new block with its own section, unregisters it, and reuses the addresses."""
    first = section(FIRST)
    second = encode([replace(FIRST, fres=(row(0, (32,), base=Base.SP),))], Abi.AMD64_LITTLE, AT + 0x800)
    memory = Layered([Bytes(AT, first.ljust(0x800, b"\0") + second)])
    sections = SFrameRegistry(memory)
    assert isinstance(sections.add(range(AT, AT + len(first)), TEXT), RegisteredSection)
    before = sections.find(0x20000)
    sections.remove(AT)
    assert isinstance(sections.add(range(AT + 0x800, AT + 0x800 + len(second)), TEXT), RegisteredSection)
    after = sections.find(0x20000)
    assert isinstance(before, Found)
    assert isinstance(after, Found)
    assert (8, 32) == (before.rule.cfa and before.rule.cfa.offset, after.rule.cfa and after.rule.cfa.offset)


def test_a_signal_frame_without_rows_is_a_signal_frame() -> None:
    sections, _ = added(section(FIRST, function(0x20040, 9, [], signal=True)))
    found = sections.find(0x20041)
    assert isinstance(found, Found)
    assert found.rule.signal
    assert found.rule.cfa is None


def test_unreadable_rows_do_not_condemn_the_section() -> None:
    """A page that is not there is no corruption."""
    data = section(FIRST)
    memory = Bytes(AT, data[: 28 + 16])
    sections = SFrameRegistry(memory)
    sections.add(range(AT, AT + len(data)), TEXT)
    found = sections.find(0x20001)
    assert isinstance(found, Refused)
    assert not found.corrupt
    assert 1 == len(sections)
    assert struct.calcsize("<qII") == 16
