"""SFrame V3 for an existing program or library, made from its `.eh_frame` and written into it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unspool.errors import BadInput, Unsupported
from unspool.formats.dwarf.cfi import FrameSection
from unspool.formats.elf import Elf
from unspool.formats.sframe import encode
from unspool.model.memory import Bytes
from unspool.toolkit.convert import MACHINES, Converted, Skipped, convert, coverage
from unspool.toolkit.embed import detached, embed, room
from unspool.toolkit.stats import overlap, text_ranges


@dataclass(frozen=True, slots=True)
class Made:
    """The new file, the section's size in bytes, and what the section covers and leaves out."""

    data: bytes
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


def converted(elf: Elf) -> Converted:
    """Every function of the file's .eh_frame as SFrame. Raises BadInput for a broken section, Unsupported for another machine."""
    abi = MACHINES.get(elf.machine)
    if abi is None:
        message = f"{elf.file}: SFrame does not know machine {elf.machine}"
        raise Unsupported(message)
    try:
        return convert(frame_section(elf).fdes(), abi)
    except BadInput as error:
        raise error.within(elf.file) from None


def make(elf: Elf, data: bytes, *, apart: bool = False) -> Made:
    """The file `data` (read as `elf`) with an SFrame section, or with `apart` a side file that holds the section alone."""
    found = converted(elf)
    place = room(elf)
    sframe = encode(found.fdes, MACHINES[elf.machine], place.sframe_address)
    out = detached(elf, place.sframe_address, sframe, elf.build_id or "") if apart else embed(elf, data, place, sframe)
    text = text_ranges(elf)
    section = elf.section(".eh_frame")
    return Made(
        out,
        len(sframe),
        section.size if section else 0,
        len(found.fdes),
        sum(len(fde.fres) for fde in found.fdes),
        sum(end - start for start, end in text),
        overlap(text, coverage(found)),
        tuple(found.skipped),
    )


def lines(made: Made) -> Iterator[str]:
    """What was made, for a terminal."""
    share = made.covered / made.text if made.text else 0.0
    ratio = made.sframe_size / (made.eh_frame_size or 1)
    yield f"{made.functions} functions, {made.rows} rows, {made.sframe_size} bytes ({ratio:.2f} of .eh_frame)"
    yield f"{share:.2%} of {made.text} bytes of text covered"
    left = sum(skipped.end - skipped.start for skipped in made.skipped)
    if made.skipped:
        yield f"{len(made.skipped)} ranges, {left} bytes ({left / (made.text or 1):.3%} of text) could not be expressed:"
