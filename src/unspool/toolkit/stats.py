"""How large a file's SFrame data is, against its .eh_frame, and how much of its text both cover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from unspool.formats.elf import Elf
from unspool.formats.sframe import FdeType, PcType
from unspool.toolkit.sections import find, read


@dataclass(frozen=True, slots=True)
class Stats:
    """Sizes in bytes; `coverage` is the share of executable sections (of executable segments without section headers) that FDEs cover."""

    sframe: int
    eh_frame: int
    eh_frame_hdr: int
    text: int
    covered: int
    fdes: int
    fres: int
    flexible: int
    repeated: int
    signal: int
    outermost: int
    start_widths: dict[str, int]
    word_widths: dict[str, int]

    @property
    def coverage(self) -> float:
        """The share of the text that functions with rows cover, 0 to 1."""
        return self.covered / self.text if self.text else 0.0

    def values(self) -> dict[str, object]:
        """The same as JSON values."""
        return {**asdict(self), "coverage": round(self.coverage, 6)}


def stats(elf: Elf) -> Stats:
    """The figures of a linked file. Raises BadInput when it has no SFrame data."""
    sections = read(elf)
    found = find(elf)
    text = text_ranges(elf)
    fdes = [fde for section in sections for fde in section.fdes]
    rows = [fre for fde in fdes for fre in fde.fres]
    return Stats(
        sframe=len(found.data) if found else 0,
        eh_frame=_size(elf, ".eh_frame"),
        eh_frame_hdr=_size(elf, ".eh_frame_hdr"),
        text=sum(end - start for start, end in text),
        covered=overlap(text, ((fde.start, fde.start + fde.size) for fde in fdes if fde.fres)),
        fdes=len(fdes),
        fres=len(rows),
        flexible=sum(fde.fde_type is FdeType.FLEX for fde in fdes),
        repeated=sum(fde.pc_type is PcType.MASK for fde in fdes),
        signal=sum(fde.signal for fde in fdes),
        outermost=sum(fre.outermost for fre in rows),
        start_widths=dict(sorted(Counter(fde.fre_type.name.lower() for fde in fdes).items())),
        word_widths={str(width): count for width, count in sorted(Counter(fre.word_size for fre in rows).items())},
    )


def text_ranges(elf: Elf) -> list[tuple[int, int]]:
    """The addresses of executable sections, sorted; of executable segments in a file without section headers."""
    ranges = [(s.address, s.address + s.size) for s in elf.sections if s.flags & 4 and s.flags & 2 and s.size]
    return sorted(ranges or [(load.address, load.address + load.memory_size) for load in elf.loads if load.executable])


def merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same addresses as disjoint, sorted ranges."""
    current: tuple[int, int] | None = None
    for start, end in sorted(ranges):
        if current is not None and start <= current[1]:
            current = (current[0], max(current[1], end))
            continue
        if current is not None:
            yield current
        current = (start, end)
    if current is not None:
        yield current


def overlap(left: Iterable[tuple[int, int]], right: Iterable[tuple[int, int]]) -> int:
    """How many addresses lie in both."""
    first, second = list(merged(left)), list(merged(right))
    i = j = total = 0
    while i < len(first) and j < len(second):
        total += max(0, min(first[i][1], second[j][1]) - max(first[i][0], second[j][0]))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return total


def difference(left: Iterable[tuple[int, int]], right: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges of addresses that lie in `left` and not in `right`."""
    holes = iter(merged(right))
    hole = next(holes, None)
    for start, end in merged(left):
        at = start
        while hole is not None and hole[1] <= at:
            hole = next(holes, None)
        while at < end:
            if hole is None or hole[0] >= end:
                yield at, end
                break
            if hole[0] > at:
                yield at, hole[0]
            at = hole[1]
            if at < end:
                hole = next(holes, None)


def _size(elf: Elf, name: str) -> int:
    section = elf.section(name)
    return section.size if section is not None else 0


def lines(found: Stats) -> Iterator[str]:
    """The figures for a terminal."""
    yield f".sframe         {found.sframe:>10} bytes"
    for name, size in ((".eh_frame", found.eh_frame), (".eh_frame_hdr", found.eh_frame_hdr)):
        yield f"{name:<15} {size:>10} bytes" + (f"  (.sframe is {found.sframe / size:.2f} of it)" if size else "")
    both = found.eh_frame + found.eh_frame_hdr
    if both:
        yield f"{'both':<15} {both:>10} bytes  (.sframe is {found.sframe / both:.2f} of them)"
    yield f"text            {found.text:>10} bytes, {found.coverage:.1%} covered"
    yield f"functions       {found.fdes:>10}  ({found.flexible} flexible, {found.repeated} repeated blocks, {found.signal} signal frames)"
    yield f"rows            {found.fres:>10}  ({found.outermost} outermost)"
    yield "row starts      " + ", ".join(f"{name} {count}" for name, count in found.start_widths.items())
    yield "data words      " + ", ".join(f"{width} byte {count}" for width, count in found.word_widths.items())
