"""The unwind data of one mapped file: where it is in the process's memory, and the FDE for a pc."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from unspool.errors import BadInput
from unspool.formats.dwarf import Fde, FrameSection, SearchTable
from unspool.formats.dwarf.cfi import SectionKind
from unspool.formats.elf import Elf, SegmentType
from unspool.model.arch import Arch
from unspool.model.memory import Bytes, Memory
from unspool.model.module import AddressSpace, Mapping


@dataclass(frozen=True, slots=True)
class UnwindData:
    """A section with unwind data out of a file: its bytes, its stated address, and what must be added to get addresses of the process."""

    kind: SectionKind
    data: bytes
    address: int
    bias: int


UnwindDataProvider = Callable[[Mapping], Sequence[UnwindData]]
"""Gives sections of a mapping's file that are not mapped or cannot be found in memory (.debug_frame, .eh_frame without .eh_frame_hdr)."""


class Listed:
    """The FDEs of a section without a search table: read through once, then found by binary search."""

    def __init__(self, section: FrameSection, bias: int = 0) -> None:
        """Read what can be read: a broken entry ends the list, the FDEs before it stand."""
        self._bias = bias
        found: list[Fde] = []
        try:
            found.extend(fde for fde in section.fdes() if fde.end > fde.start)
        except BadInput as error:
            self.broken: BadInput | None = error
        else:
            self.broken = None
        self._fdes = sorted(found, key=lambda fde: fde.start)
        self._starts = [fde.start for fde in self._fdes]

    def find(self, pc: int) -> Fde | None:
        """The FDE that holds the pc."""
        index = bisect_right(self._starts, pc - self._bias) - 1
        if index < 0 or pc - self._bias not in self._fdes[index]:
            return None
        return self._fdes[index].moved(self._bias) if self._bias else self._fdes[index]


class Image:
    """A file's ELF header in memory at `header`, and what it leads to. Nothing is read before it is asked for."""

    def __init__(self, memory: Memory, header: Mapping, arch: Arch) -> None:
        """Name the place."""
        self._memory = memory
        self._header = header
        self._arch = arch

    @cached_property
    def elf(self) -> Elf:
        """The ELF image; BadInput when there is none at the header's place."""
        return Elf(self._memory, file=self._header.path, base=self._header.start, image=True)

    @cached_property
    def bias(self) -> int:
        """What must be added to stated addresses."""
        return self._header.start - self.elf.image_start

    @cached_property
    def table(self) -> SearchTable | None:
        """.eh_frame_hdr, None when the file has none; BadInput when it is broken."""
        for segment in self.elf.segments:
            if segment.type == SegmentType.GNU_EH_FRAME:
                return SearchTable.read(
                    self._memory, self.bias + segment.address, size=max(segment.memory_size, 4), byte_order=self._arch.byte_order
                )
        return None

    @cached_property
    def section(self) -> FrameSection | None:
        """.eh_frame, as far as it can reach: to the end of its segment."""
        table = self.table
        if table is None:
            return None
        for segment in self.elf.loads:
            start = self.bias + segment.address
            if start <= table.frames < start + segment.memory_size:
                return FrameSection(self._memory, table.frames, start + segment.memory_size, byte_order=self._arch.byte_order)
        raise BadInput(".eh_frame lies in no segment", file=self._header.path, offset=table.frames)

    @cached_property
    def _listed(self) -> Listed | None:
        return None if self.section is None else Listed(self.section)

    def find(self, pc: int) -> Fde | None:
        """The FDE that holds the pc, None when the file has none for it; BadInput for broken data."""
        table, section = self.table, self.section
        if table is None or section is None:
            return None
        if table.count:
            return table.find(pc, section)
        listed = self._listed
        return None if listed is None else listed.find(pc)


class Relay:
    """Memory by way of whichever thread is walked now: the one that was first may be gone. `refused` counts the reads that gave nothing."""

    __slots__ = ("memory", "refused")

    def __init__(self, memory: Memory) -> None:
        """Read from that memory until another is set."""
        self.memory = memory
        self.refused = 0

    def read(self, address: int, size: int) -> bytes | None:
        """What the memory gives."""
        data = self.memory.read(address, size)
        self.refused += data is None
        return data


class Images:
    """The images of an address space, by mapping; `provider` gives what is not mapped."""

    def __init__(self, memory: Relay, space: AddressSpace, arch: Arch, provider: UnwindDataProvider | None = None) -> None:
        """Nothing is read yet."""
        self._memory = memory
        self._space = space
        self._arch = arch
        self._provider = provider
        self._images: dict[int, Image | None] = {}
        self._provided: dict[int, tuple[Listed, ...]] = {}
        self._broken: dict[int, BadInput] = {}

    def find(self, mapping: Mapping, pc: int) -> Fde | None:
        """The FDE for a pc of the mapping, None when there is none; BadInput for broken data."""
        if mapping.start in self._broken:
            raise self._broken[mapping.start]
        image = self.of(mapping)
        if image is not None:
            self._prepare(image, mapping)
        fde = image.find(pc) if image is not None else None
        if fde is not None or self._provider is None:
            return fde
        return next((found for listed in self._files(mapping) if (found := listed.find(pc)) is not None), None)

    def of(self, mapping: Mapping) -> Image | None:
        """The image that the mapping is part of, None when its ELF header is not mapped."""
        if mapping.start not in self._images:
            header = next(self._headers(mapping), None)
            magic = None if header is None else self._memory.read(header.start, 4)
            if header is not None and magic is None:
                return None
            self._images[mapping.start] = None if header is None or magic != b"\x7fELF" else Image(self._memory, header, self._arch)
        return self._images[mapping.start]

    def _prepare(self, image: Image, mapping: Mapping) -> None:
        """Read the image's headers. What is wrong with them is remembered, what could not be read this time is not."""
        refused = self._memory.refused
        try:
            image.section  # noqa: B018 - reading it is the point
        except BadInput as error:
            if refused == self._memory.refused:
                self._broken[mapping.start] = error
            raise

    def _headers(self, mapping: Mapping) -> Iterator[Mapping]:
        """The nearest mapping at or below that shows the file's first byte."""
        index = bisect_right(self._space.starts, mapping.start) - 1
        while index >= 0:
            candidate = self._space.mappings[index]
            same = (candidate.path, candidate.inode, candidate.device) == (mapping.path, mapping.inode, mapping.device)
            if same and candidate.offset == 0:
                yield candidate
                return
            index -= 1

    def _files(self, mapping: Mapping) -> tuple[Listed, ...]:
        if mapping.start not in self._provided:
            sections = self._provider(mapping) if self._provider else ()
            self._provided[mapping.start] = tuple(self._list(section) for section in sections)
        return self._provided[mapping.start]

    def _list(self, data: UnwindData) -> Listed:
        return _listed(data, self._arch.byte_order)


@lru_cache(maxsize=8)
def _listed(data: UnwindData, byte_order: Literal["little", "big"]) -> Listed:
    """The FDEs of the section, which is read once for all processes that have the file at the same place."""
    memory = Bytes(data.address, data.data)
    end = data.address + len(data.data)
    return Listed(FrameSection(memory, data.address, end, kind=data.kind, byte_order=byte_order), data.bias)
