"""Unwind data that a process does not have in its memory, or that nothing in memory leads to: read from the mapped files themselves.

A static program that is not position independent has .eh_frame mapped, but no PT_GNU_EH_FRAME that says where (GCC leaves --eh-frame-hdr
out for -static): only the file's section headers do. .debug_frame is never mapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unspool.capture.files import Descriptor
from unspool.errors import BadInput
from unspool.formats.dwarf.cfi import SectionKind
from unspool.formats.elf import Elf, SegmentType
from unspool.model.module import Mapping
from unspool.model.symbol import Unnamed
from unspool.symbols.mapped_files import open_mapping
from unspool.unwind.image import UnwindData, UnwindDataProvider

MAX_SECTION = 64 << 20
"""Bytes of one section, unpacked, that are read while a thread waits."""


def provider_for(pid: int) -> UnwindDataProvider:
    """What `unspool.unwind` asks for code of that process without an FDE in memory."""

    def provide(mapping: Mapping) -> Sequence[UnwindData]:
        if mapping.kind != "file":
            return ()
        file = open_mapping(pid, mapping)
        if isinstance(file, Unnamed):
            return ()
        try:
            return list(sections_of(Elf(Descriptor(file.descriptor), file=mapping.path), mapping))
        except BadInput:
            return ()
        finally:
            file.close()

    return provide


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
