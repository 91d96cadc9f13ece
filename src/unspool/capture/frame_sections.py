"""Where a static program has its .eh_frame, as its section headers say.

GCC links static programs that are not position independent without PT_GNU_EH_FRAME, and section headers are not mapped.
"""

from __future__ import annotations

import os
from typing import Protocol

from unspool.capture.beneath import open_regular
from unspool.capture.files import Descriptor
from unspool.errors import BadInput
from unspool.formats.elf.file import Elf
from unspool.formats.elf.headers import FileType, SectionFlag, SegmentFlag, SegmentType

MAX_TRIES = 16
"""How often a file is looked for, each time in another process: a short one is gone before it can be asked."""


class Teacher(Protocol):
    """Who is told: `capture.kernel.Sampler`."""

    def unread(self) -> list[tuple[int, int, int]]:
        """Files whose unwind data was not found: key, process, address in the code."""

    def frame_section(self, key: int, start: int, end: int) -> None:
        """Tell where the file of that key has its section."""


class FrameSections:
    """Looks into files that the kernel's walk could not unwind, and tells it what it needs; each file is looked into once."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._tries: dict[int, int] = {}

    def teach(self, sampler: Teacher) -> int:
        """Look into what the last drain brought; how many sections were found."""
        found = 0
        for key, pid, address in sampler.unread():
            tries = self._tries.get(key, 0)
            if tries >= MAX_TRIES:
                continue
            self._tries[key] = tries + 1
            section = frame_section(pid, address)
            if section is not None:
                self._tries[key] = MAX_TRIES
                sampler.frame_section(key, *section)
                found += 1
        return found


def frame_section(pid: int, address: int) -> tuple[int, int] | None:
    """Start and end (Svma) of .eh_frame in the program of a process, when it is one with its code at that address; else None."""
    descriptor = open_regular(f"/proc/{pid}/exe")
    if descriptor is None:
        return None
    try:
        return section_of(Elf(Descriptor(descriptor), file=f"/proc/{pid}/exe"), address)
    except BadInput:
        return None
    finally:
        os.close(descriptor)


def section_of(elf: Elf, address: int) -> tuple[int, int] | None:
    """The same of an ELF file; BadInput when it is broken."""
    if elf.header.type != FileType.EXEC or any(segment.type == SegmentType.GNU_EH_FRAME for segment in elf.segments):
        return None
    code = (segment for segment in elf.loads if segment.flags & SegmentFlag.EXECUTE)
    if not any(segment.address <= address < segment.address + segment.memory_size for segment in code):
        return None
    section = elf.section(".eh_frame")
    if section is None or not section.flags & SectionFlag.ALLOC:
        return None
    return section.address, section.address + section.size
