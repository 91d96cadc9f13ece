"""SFrame V3 for an existing program or library, made from its `.eh_frame` and written into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.errors import BadInput, Unsupported
from unspool.formats.dwarf.cfi import FrameSection
from unspool.formats.elf import Elf
from unspool.formats.sframe import Abi, encode
from unspool.model.memory import Bytes
from unspool.toolkit.bulk import Laid, lay_out
from unspool.toolkit.convert import MACHINES, Skipped, convert
from unspool.toolkit.embed import Part, detached, embed, room
from unspool.toolkit.stats import merged, text_ranges

if TYPE_CHECKING:
    from unspool.toolkit.bulk import Array


@dataclass(frozen=True, slots=True)
class Made:
    """The new file in parts, the section's size in bytes, and what the section covers and leaves out."""

    parts: tuple[Part, ...]
    sframe_size: int
    eh_frame_size: int
    functions: int
    rows: int
    text: int
    covered: int
    skipped: tuple[Skipped, ...]


def frame_section(elf: Elf) -> FrameSection:
    """The file's .eh_frame, at the addresses that the file states. Raises BadInput when there is none."""
    section = elf.section(".eh_frame")
    if section is None:
        raise BadInput("no .eh_frame section to make SFrame from", file=elf.file)
    start = section.address
    return FrameSection(Bytes(start, elf.data(section)), start, start + section.size, byte_order=elf.layout.byte_order)


def make(elf: Elf, data: bytes, *, apart: bool = False) -> Made:
    """The file `data` (read as `elf`) with an SFrame section, or with `apart` a side file that holds the section alone.

    Raises BadInput for a broken .eh_frame, Unsupported for a machine that SFrame does not know.
    """
    abi = MACHINES.get(elf.machine)
    if abi is None:
        message = f"{elf.file}: SFrame does not know machine {elf.machine}"
        raise Unsupported(message)
    place = room(elf)
    frames = frame_section(elf)
    try:
        laid = _laid(elf, frames, abi, place.sframe_address)
    except BadInput as error:
        raise error.within(elf.file) from None
    sframe = laid.section
    out = (detached(elf, place.sframe_address, sframe, elf.build_id or ""),) if apart else embed(elf, data, place, sframe)
    text = text_ranges(elf)
    return Made(
        out,
        len(sframe),
        frames.end - frames.start,
        len(laid.starts),
        laid.rows,
        sum(end - start for start, end in text),
        covered(laid.starts, laid.sizes, text),
        laid.skipped,
    )


def _laid(elf: Elf, frames: FrameSection, abi: Abi, address: int) -> Laid:
    """In columns where that is possible, else one function after the other."""
    import numpy as np

    section = elf.section(".eh_frame")
    if abi is Abi.AMD64_LITTLE and section is not None:
        laid = lay_out(frames, elf.data(section), address)
        if laid is not None:
            return laid
    found = convert(frames.fdes(), abi)
    starts, sizes = np.array([fde.start for fde in found.fdes]), np.array([fde.size for fde in found.fdes])
    rows = sum(len(fde.fres) for fde in found.fdes)
    return Laid(encode(found.fdes, abi, address), rows, starts, sizes, tuple(found.skipped))


def covered(starts: Array, sizes: Array, ranges: Iterable[tuple[int, int]]) -> int:
    """How many addresses of the ranges lie in functions of those starts, sorted, and sizes."""
    import numpy as np

    if not len(starts):
        return 0
    ends = np.maximum.accumulate(starts + sizes)
    begins = np.ones(len(ends), dtype=bool)
    begins[1:] = starts[1:] > ends[:-1]
    first = np.flatnonzero(begins)
    start, end = starts[first], ends[np.append(first[1:], len(ends)) - 1]
    before = np.cumsum(end - start) - (end - start)

    def below(address: int) -> int:
        place = int(np.searchsorted(start, address, side="right")) - 1
        return 0 if place < 0 else int(before[place] + min(address, int(end[place])) - start[place])

    return sum(below(to) - below(since) for since, to in merged(ranges))


def lines(made: Made) -> Iterator[str]:
    """What was made, for a terminal."""
    share = made.covered / made.text if made.text else 0.0
    ratio = made.sframe_size / (made.eh_frame_size or 1)
    yield f"{made.functions} functions, {made.rows} rows, {made.sframe_size} bytes ({ratio:.2f} of .eh_frame)"
    yield f"{share:.2%} of {made.text} bytes of text covered"
    left = sum(skipped.end - skipped.start for skipped in made.skipped)
    if made.skipped:
        yield f"{len(made.skipped)} ranges, {left} bytes ({left / (made.text or 1):.3%} of text) could not be expressed:"
