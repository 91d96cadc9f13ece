"""Where guest-physical memory lies in a file or in the VMM's address space: from QEMU, from the machine's type, or as the user says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from unspool.errors import BadInput, BadRequest
from unspool.model.module import Mapping
from unspool.targets.guest.hmp_text import host_address, system_memory

GIB = 1 << 30
FOUR_GIB = 4 * GIB
_TOP = 1 << 52
_LONGEST = 64 * 1024
# Memory of devices, not of the machine: its pages never hold what a kernel's page tables point to.
_DEVICE = re.compile(r"vram|vga|rom|bios|flash|qxl|cirrus|ramfb|ivshmem|BAR|virtio", re.IGNORECASE)
_PART = re.compile(r"(0x[0-9a-f]{1,16}):(0x[0-9a-f]{1,16})@(0x[0-9a-f]{1,16})", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """`size` bytes of guest memory from guest-physical `start`; `position` is their address in the VMM, or their offset in its file."""

    start: int
    size: int
    position: int

    @property
    def end(self) -> int:
        """The first guest-physical address after it."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Block:
    """A block of memory that QEMU allocates as one: its name (the backend's id, or the machine type's), and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a QEMU command line says of the memory: the machine's type ("" for the default), the blocks in order of guest addresses.

    `low_limit` is the option max-ram-below-4g.
    """

    machine_type: str
    blocks: tuple[Block, ...]
    low_limit: int | None = None

    @property
    def size(self) -> int:
        """Bytes of all blocks."""
        return sum(block.size for block in self.blocks)

    def extents(self, positions: Sequence[int]) -> tuple[Extent, ...]:
        """The memory, when the blocks begin at those positions: up to the hole from address 0, the rest from 4 GiB."""
        if self._low is None:
            return ()
        found, start = [], 0
        for block, position in zip(self.blocks, positions, strict=True):
            below = min(max(self._low - start, 0), block.size)
            if below:
                found.append(Extent(start, below, position))
            if below < block.size:
                found.append(Extent(FOUR_GIB + start + below - self._low, block.size - below, position + below))
            start += block.size
        return joined(found)

    @property
    def _low(self) -> int | None:
        return low_memory(self.machine_type, self.size, self.low_limit)


Hmp = Callable[[str], str]
"""A command of QEMU's human monitor, and what it prints."""


def from_monitor(hmp: Hmp) -> tuple[Extent, ...]:
    """The machine's memory at the VMM's addresses, as QEMU itself tells; BadInput when its answers make no sense."""
    regions = system_memory(hmp("info mtree -f"))
    bases: dict[str, int] = {}
    for region in regions:
        if region.kind == "ram" and not _DEVICE.search(region.name) and region.name not in bases:
            bases[region.name] = host_address(hmp(f"gpa2hva {region.start:#x}")) - region.offset
    # A part of a block that is write-protected (the BIOS area) is shown as rom, and is memory all the same.
    return joined(
        Extent(region.start, region.size, bases[region.name] + region.offset)
        for region in regions
        if region.name in bases and region.kind in {"ram", "rom"}
    )


def joined(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """The extents by address, neighbours made one; BadInput when they overlap or leave the physical address space."""
    result: list[Extent] = []
    for extent in sorted(extents):
        if extent.size <= 0 or extent.position < 0 or not 0 <= extent.start <= extent.end <= _TOP:
            raise BadInput(f"impossible guest memory at {extent.start:#x}")
        last = result[-1] if result else None
        if last and extent.start < last.end:
            raise BadInput(f"guest memory that overlaps at {extent.start:#x}")
        if last and (extent.start, extent.position) == (last.end, last.position + last.size):
            result[-1] = Extent(last.start, last.size + extent.size, last.position)
        else:
            result.append(extent)
    return tuple(result)


def parse(text: str) -> tuple[Extent, ...]:
    """A layout as a user writes it: `0x0:0x80000000@0x7f0000000000,...` (guest address:size@address in the VMM); BadRequest."""
    parts = []
    for word in text[:_LONGEST].split(","):
        match = _PART.fullmatch(word.strip())
        if match is None:
            raise BadRequest(f"{word!r} is no part of a memory layout", hint="Write 0xGUEST:0xSIZE@0xADDRESS, parts separated by commas.")
        parts.append(Extent(*(int(number, 16) for number in match.groups())))
    try:
        return joined(parts)
    except BadInput as error:
        raise BadRequest(str(error)) from None


def low_memory(machine_type: str, size: int, limit: int | None = None) -> int | None:
    """How much of the memory lies below 4 GiB; the rest begins there. None for a type that is not known.

    QEMU hw/i386/pc_piix.c pc_init1, pc_q35.c pc_q35_init, microvm.c microvm_memory_init; `limit` is the option max-ram-below-4g.
    """
    if re.fullmatch(r"(|pc|pc-i440fx-.*|ubuntu)", machine_type):
        low = limit or 0xE000_0000
        low = min(low, 0xC000_0000) if size >= low else low
    elif re.fullmatch(r"q35|pc-q35-.*|ubuntu-q35", machine_type):
        low = min(0x8000_0000 if size >= 0xB000_0000 else 0xB000_0000, limit or FOUR_GIB)
    elif machine_type == "microvm":
        low = min(0xC000_0000, limit or FOUR_GIB)
    else:
        return None
    return min(low, size)


def by_size(mappings: Sequence[Mapping], size: int) -> Mapping | None:
    """The one mapping of exactly that size that can be a machine's memory, None when there is none or more than one."""
    found = [mapping for mapping in mappings if mapping.end - mapping.start == size and is_ram(mapping)]
    return found[0] if len(found) == 1 else None


def guessed(mappings: Sequence[Mapping], smallest: int = 16 << 20) -> tuple[Extent, ...]:
    """The memory of a VMM of which nothing is known: its largest mapping from address 0, or split as Firecracker or cloud-hypervisor do.

    They map the part below 4 GiB (3 GiB, or 3.25 GiB in Firecracker) and the part above one by one.
    """
    largest = sorted((mapping for mapping in mappings if is_ram(mapping)), key=lambda one: one.start - one.end)[:2]
    sizes = [mapping.end - mapping.start for mapping in largest]
    if not sizes or sizes[0] < smallest:
        return ()
    for low, high in ((0, 1), (1, 0)):
        if len(sizes) > 1 and sizes[low] in {3 * GIB, 0xD000_0000} and sizes[high] >= smallest:
            return (Extent(0, sizes[low], largest[low].start), Extent(FOUR_GIB, sizes[high], largest[high].start))
    if sizes[0] > FOUR_GIB - GIB // 2:
        return ()
    return (Extent(0, sizes[0], largest[0].start),)


def is_ram(mapping: Mapping) -> bool:
    """Whether the mapping can hold a machine's memory: readable and writable data, also of a file (huge pages)."""
    return mapping.readable and mapping.writable and not mapping.executable and not mapping.path.startswith("[")
