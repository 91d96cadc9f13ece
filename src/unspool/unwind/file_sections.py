"""Unwind data that no process has in its memory, or that nothing in memory leads to, out of the mapped file itself.

A static program that is not position independent has .eh_frame mapped, but no PT_GNU_EH_FRAME that says where (GCC leaves --eh-frame-hdr
out for -static): only the file's section headers do. .debug_frame is never mapped.
"""

from __future__ import annotations

from collections.abc import Iterator

from unspool.formats.dwarf.cfi import SectionKind
from unspool.formats.elf import Elf, SegmentType
from unspool.model.module import Mapping
from unspool.unwind.image import UnwindData

MAX_SECTION = 64 << 20
"""Bytes of one section, unpacked, that are read while a thread waits."""


def sections_of(elf: Elf, mapping: Mapping) -> Iterator[UnwindData]:
    """The unwind sections of a mapped file that memory does not have, or does not lead to; BadInput when one is broken."""
    stated = elf.svma(mapping.offset)
    if stated is None:
        return
    bias = mapping.start - stated
    kinds: list[tuple[SectionKind, str]] = [("debug_frame", ".debug_frame")]
    if not any(segment.type == SegmentType.GNU_EH_FRAME for segment in elf.segments):
        kinds.insert(0, ("eh_frame", ".eh_frame"))
    for kind, name in kinds:
        section = elf.section(name)
        if section is not None and section.has_bytes:
            yield UnwindData(kind, elf.data(section, max_size=MAX_SECTION), section.address, bias)
