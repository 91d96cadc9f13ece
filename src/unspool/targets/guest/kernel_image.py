"""Where a guest's kernel lies: found in the page tables of any of its vCPUs, and read in one piece.

Linux maps its image between 0xffffffff80000000 and 0xffffffffc0000000 (Documentation/arch/x86/x86_64/mm.rst), contiguous in physical
memory; with KASLR both places are random, and page tables tell both.
"""

from __future__ import annotations

from dataclasses import dataclass

from unspool.formats.paging import PAGE, PageTables
from unspool.model.memory import Memory
from unspool.targets.guest.registers import VcpuState

IMAGE_START, IMAGE_END = 0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_C000_0000
MAX_IMAGE = 128 << 20
"""The largest piece of a kernel that is looked at, in bytes; Debian's kernels have 42 to 56 MiB."""
_MIN_IMAGE = 1 << 20
_CHUNK = 1 << 20
# Page table isolation gives user mode its own top table, in the page behind the kernel's (arch/x86/include/asm/pgtable.h).
_USER_TABLE = PAGE


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A guest whose kernel cannot be made out (yet): the reason, a sentence for the user."""

    reason: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the image is: `[start, end)` in virtual memory, from `pa` on in physical; and the levels of the page tables."""

    start: int
    end: int
    pa: int
    levels: int

    def physical(self, address: int) -> int:
        """The physical address of an address of the image."""
        return address - self.start + self.pa


def place(physical: Memory, state: VcpuState) -> Placement | Unreadable:
    """The kernel's place by the page tables that the vCPU uses."""
    if not state.long_mode:
        return Unreadable("The vCPU is not in long mode: the guest has not started its kernel yet, or is being reset.")
    roots = [state.root]
    if state.root & _USER_TABLE:
        roots.append(state.root & ~_USER_TABLE)
    # With page table isolation the table of user mode maps only the kernel's entry code: the one that maps more is the kernel's.
    found = [_in_tables(PageTables(physical, root, state.levels)) for root in roots]
    best = max((entry for entry in found if entry is not None), key=lambda entry: entry[1], default=None)
    if best is None:
        return Unreadable("No Linux kernel is mapped: the guest has not started it yet, or runs another system.")
    placement, mapped = best
    if mapped < _MIN_IMAGE:
        return Unreadable("Too little of the kernel is mapped by the vCPU's page tables.")
    return placement


def read_image(physical: Memory, placement: Placement) -> bytes:
    """The image, at most `MAX_IMAGE` of it, to be searched; pages that are not there are zeros, as to a guest that never wrote them."""
    size = min(placement.end - placement.start, MAX_IMAGE)
    return b"".join(_chunk(physical, placement.pa + offset, min(_CHUNK, size - offset)) for offset in range(0, size, _CHUNK))


def _chunk(physical: Memory, address: int, size: int) -> bytes:
    data = physical.read(address, size)
    if data is not None:
        return data
    pages = (physical.read(page, PAGE) for page in range(address, address + size, PAGE))
    return b"".join(bytes(PAGE) if page is None else page for page in pages)


def _in_tables(tables: PageTables) -> tuple[Placement, int] | None:
    """The image's place, and how many bytes of it are mapped."""
    first, end, mapped = None, 0, 0
    for region in tables.regions(IMAGE_START, IMAGE_END):
        first = first or region
        # Pages that lie elsewhere in physical memory are no part of the image.
        if region.pa - region.start == first.pa - first.start:
            end = region.start + region.size
            mapped += region.size
    return None if first is None else (Placement(first.start, end, first.pa, tables.levels), mapped)
