"""One address space over time: which file was mapped at an address at an instant, so that a late sample meets no newer mapping."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Any

from unspool.model.module import ModuleKind

DEAD_REGIONS = 1024
"""How many replaced regions an address space remembers; a just-in-time compiler replaces them for ever."""


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells one mapped file from another: the path, and the build id or else device and inode.

    `path` is the one the process saw, in its own mount namespace; for memory without a file it is "[vdso]" or "[anon]".
    """

    path: str
    kind: ModuleKind
    build_id: str = ""
    device: tuple[int, int] = (0, 0)
    inode: int = 0
    deleted: bool = False


def identity(path: str, build_id: str, device: tuple[int, int], inode: int, *, deleted: bool) -> FileIdentity:
    """The identity behind a mapping as /proc/PID/maps or an MMAP2 event names it.

    >>> identity("//anon", "", (0, 0), 0, deleted=False).path
    '[anon]'
    """
    if path == "[vdso]":
        return FileIdentity(path, "vdso", build_id)
    if path.startswith("["):
        return FileIdentity(path, "anon")
    # perf_event_mmap_event() in kernel/events/core.c writes "//anon" for memory without a file.
    if path in {"", "//anon"}:
        return FileIdentity("[anon]", "anon")
    return FileIdentity(path, "file", build_id, device, inode, deleted=deleted)


class Region:
    """`[start, end)` shows `file` from byte `offset` on, from `born` until `died` (CLOCK_MONOTONIC nanoseconds; None: still)."""

    __slots__ = ("born", "died", "end", "file", "offset", "start")

    def __init__(self, start: int, end: int, offset: int, file: FileIdentity, born: int) -> None:
        """Take the row; it lives from `born` on."""
        self.start = start
        self.end = end
        self.offset = offset
        self.file = file
        self.born = born
        self.died: int | None = None

    def file_offset(self, address: int) -> int:
        """The byte of the file that shows at `address`."""
        return address - self.start + self.offset

    def continues(self, other: Region) -> bool:
        """Whether both show the same bytes at the same addresses, so that one in place of the other changes nothing."""
        return self.file == other.file and self.start - self.offset == other.start - other.offset

    def piece(self, start: int, end: int) -> Region:
        """The part of this region that lies in `[start, end)`."""
        return Region(start, end, self.offset + start - self.start, self.file, self.born)

    def __repr__(self) -> str:
        """The region as a line of /proc/PID/maps would show it."""
        return f"<{self.start:x}-{self.end:x} {self.offset:x} {self.file.path} {self.born}..{self.died}>"


class Space:
    """The executable mappings of one program, from one exec to the next.

    `frames`, `callers` and `stacks` are room for what was worked out for addresses; all are emptied when an address changes its meaning,
    and hold for samples from `changed_ns` on. The kernel does not tell of unmapping: nothing runs there until something is mapped.
    """

    __slots__ = ("_dead", "_regions", "_starts", "callers", "changed_ns", "frames", "since_ns", "stacks")

    def __init__(self, since_ns: int) -> None:
        """An address space without mappings, from that instant on."""
        self.since_ns = since_ns
        self.changed_ns = since_ns
        self.frames: dict[int, int] = {}
        self.callers: dict[bytes, tuple[int, ...]] = {}
        self.stacks: dict[bytes, Any] = {}
        self._starts: list[int] = []
        self._regions: list[Region] = []
        self._dead: deque[Region] = deque(maxlen=DEAD_REGIONS)

    def inherit(self, parent: Space) -> None:
        """Take over the mappings of the process that forked; the regions are shared until one of the two replaces them."""
        self._starts = parent._starts.copy()
        self._regions = parent._regions.copy()

    def map(self, region: Region) -> None:
        """Put a region in place of whatever lay there."""
        starts, regions = self._starts, self._regions
        first = bisect_right(starts, region.start) - 1
        if first < 0 or regions[first].end <= region.start:
            first += 1
        last = first
        while last < len(regions) and regions[last].start < region.end:
            last += 1
        replacement = self._replace(regions[first:last], region) if first < last else [region]
        regions[first:last] = replacement
        starts[first:last] = [piece.start for piece in replacement]

    def forget(self) -> None:
        """Empty what was worked out for addresses."""
        self.frames.clear()
        self.callers.clear()
        self.stacks.clear()

    def _replace(self, old: list[Region], new: Region) -> list[Region]:
        """What takes the place of `old`: the new region and the parts of the old ones that it leaves."""
        if all(region.continues(new) for region in old):
            start, end = min(new.start, old[0].start), max(new.end, old[-1].end)
            # Same file, same bias: a mapping that grew, or a change of its protection. It has been true since the oldest of them.
            grown = Region(start, end, new.offset - (new.start - start), new.file, min(region.born for region in old))
            return [grown]
        self.forget()
        self.changed_ns = new.born
        for region in old:
            gone = region.piece(region.start, region.end)
            gone.died = new.born
            self._dead.append(gone)
        pieces = []
        if old[0].start < new.start:
            pieces.append(old[0].piece(old[0].start, new.start))
        pieces.append(new)
        if old[-1].end > new.end:
            pieces.append(old[-1].piece(new.end, old[-1].end))
        return pieces

    def find(self, address: int, time_ns: int) -> Region | None:
        """The region at the address at that instant, None where nothing was mapped.

        A region that is younger than the instant is given when nothing older was there: a deferred sample keeps its own time, and
        the kernel tells of a mapping a little after it can be used.
        """
        index = bisect_right(self._starts, address) - 1
        region = self._regions[index] if index >= 0 else None
        if region is not None and address >= region.end:
            region = None
        if region is not None and region.born <= time_ns:
            return region
        for old in reversed(self._dead):
            if old.start <= address < old.end and old.born <= time_ns and old.died is not None and time_ns < old.died:
                return old
        return region

    def __len__(self) -> int:
        """How many regions are mapped now."""
        return len(self._regions)

    def regions(self) -> tuple[Region, ...]:
        """The regions that are mapped now, by address."""
        return tuple(self._regions)
