"""Kernels that were read before, so that a guest that is met again (or a second guest of the same build) costs a look and no search.

The cache lives in memory only, so that nobody but this process can damage it.
"""

from __future__ import annotations

from collections import OrderedDict

from unspool.model.memory import Memory
from unspool.targets.guest.kernel_image import Placement
from unspool.targets.guest.kernel_tables import KernelTables

MAX_KERNELS = 8
MAX_BYTES = 256 << 20
"""What all kept kernels may take, about; a Debian kernel takes 15 to 25 MiB."""


class KernelCache:
    """The tables of the last `MAX_KERNELS` kernels by build id and base."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: OrderedDict[tuple[str, int], KernelTables] = OrderedDict()

    def __len__(self) -> int:
        """How many kernels are kept."""
        return len(self._kept)

    def find(self, physical: Memory, placement: Placement) -> KernelTables | None:
        """The tables of the kernel that is at this place now: its notes (build id among them) and its banner are what they were."""
        for key, tables in self._kept.items():
            if tables.base >= placement.start and tables.end <= placement.end and _is_there(physical, placement, tables):
                self._kept.move_to_end(key)
                return tables
        return None

    def add(self, tables: KernelTables) -> None:
        """Keep these; a kernel without a build id cannot be told from another and is not kept."""
        if not tables.build_id:
            return
        self._kept[tables.build_id, tables.base] = tables
        self._kept.move_to_end((tables.build_id, tables.base))
        while len(self._kept) > MAX_KERNELS or sum(entry.size for entry in self._kept.values()) > MAX_BYTES:
            self._kept.popitem(last=False)


def _is_there(physical: Memory, placement: Placement, tables: KernelTables) -> bool:
    notes = physical.read(placement.physical(tables.notes_at), len(tables.notes))
    return notes == tables.notes and physical.read(placement.physical(tables.banner_at), len(tables.banner)) == tables.banner
