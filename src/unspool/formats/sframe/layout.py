"""The constants and values of an SFrame section, as the specification names them (binutils, "The SFrame Format", versions 1 to 3)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import Literal

MAGIC = 0xDEE2
HEADER_SIZE = 28
INDEX_ENTRY_SIZE = {1: 17, 2: 20, 3: 16}
"""Bytes of one FDE in the index, by version."""
ATTRIBUTE_SIZE = 5
"""Bytes of version 3's FDE attribute, which stands before the function's FREs."""
LATEST = 3


class Flag(enum.IntFlag):
    """The header's flags."""

    FDE_SORTED = 0x1
    FRAME_POINTER = 0x2
    FDE_FUNC_START_PCREL = 0x4


VALID_FLAGS = {1: 0x3, 2: 0x7, 3: 0x5}
"""The flag bits that may be set, by version: version 3 has no FRAME_POINTER."""


class Abi(enum.IntEnum):
    """`abi_arch`: the machine and its byte order."""

    AARCH64_BIG = 1
    AARCH64_LITTLE = 2
    AMD64_LITTLE = 3
    S390X_BIG = 4

    @property
    def byte_order(self) -> Literal["little", "big"]:
        """The order of every integer in the section."""
        return "big" if self in {Abi.AARCH64_BIG, Abi.S390X_BIG} else "little"

    @property
    def registers(self) -> tuple[int, int, int]:
        """The DWARF numbers of stack pointer, frame pointer and return address."""
        if self is Abi.AMD64_LITTLE:
            return (7, 6, 16)
        return (15, 11, 14) if self is Abi.S390X_BIG else (31, 29, 30)

    @property
    def fixed_ra_offset(self) -> int:
        """The header's `cfa_fixed_ra_offset` on this machine: -8 where a call pushes the return address, else 0 (not fixed)."""
        return -8 if self is Abi.AMD64_LITTLE else 0


class FreType(enum.IntEnum):
    """The width of a row's start address: 1, 2 or 4 bytes."""

    ADDR1 = 0
    ADDR2 = 1
    ADDR4 = 2

    @property
    def size(self) -> int:
        """Bytes of the start address."""
        return 1 << self


class PcType(enum.IntEnum):
    """Whether rows are found by the offset in the function, or in a block that repeats (PLT entries)."""

    INC = 0
    MASK = 1


class FdeType(enum.IntEnum):
    """Whether data words have fixed meanings, or come as (control, offset) pairs."""

    DEFAULT = 0
    FLEX = 1


class Base(enum.IntEnum):
    """The base register of a default row's CFA; the bit in the file is 0 for the frame pointer."""

    FP = 0
    SP = 1


@dataclass(frozen=True, slots=True)
class Header:
    """The section's first 28 bytes (and the auxiliary header, which nobody uses yet); offsets count from the header's end."""

    version: int
    flags: Flag
    abi: Abi
    fixed_fp_offset: int
    fixed_ra_offset: int
    num_fdes: int
    num_fres: int
    fre_len: int
    fdeoff: int
    freoff: int
    aux: bytes = b""

    @property
    def end(self) -> int:
        """Where the header ends, in bytes from the section's start."""
        return HEADER_SIZE + len(self.aux)

    @property
    def index_start(self) -> int:
        """Where the FDE index starts, in bytes from the section's start."""
        return self.end + self.fdeoff

    @property
    def fres_start(self) -> int:
        """Where the FRE sub-section starts, in bytes from the section's start."""
        return self.end + self.freoff

    @property
    def size(self) -> int:
        """The section's true length in bytes; a segment may be larger (GNU ld lays it out before it merges)."""
        return self.fres_start + self.fre_len


@dataclass(frozen=True, slots=True)
class Fre:
    """One row: from `start` (bytes from the function's start, or in the repeated block) to the next row it holds.

    `words` are the data words as the file's bits say them: signed in a default FDE; in a flexible FDE control words are unsigned.
    No words: the return address is undefined, the frame is the outermost.
    """

    start: int
    words: tuple[int, ...]
    base: Base = Base.FP
    word_size: int = 1
    mangled_ra: bool = False

    @property
    def outermost(self) -> bool:
        """Whether the stack ends here."""
        return not self.words


@dataclass(frozen=True, slots=True)
class Fde:
    """One function: `start` is its address (Svma) resolved against the section's own, `size` its bytes; then its rows in order.

    `pauth_key` is AArch64's key, "A" or "B". `rep_size` is the repeated block's size in bytes with PcType.MASK, else 0.
    `fre_offset` is where its attribute (version 3) or first row stands in the FRE sub-section.
    """

    start: int
    size: int
    fres: tuple[Fre, ...]
    fre_type: FreType = FreType.ADDR1
    pc_type: PcType = PcType.INC
    fde_type: FdeType = FdeType.DEFAULT
    signal: bool = False
    pauth_key: Literal["A", "B"] = "A"
    rep_size: int = 0
    fre_offset: int = field(default=-1, compare=False)

    def covers(self, pc: int) -> bool:
        """Whether the address lies in the function."""
        return self.start <= pc < self.start + self.size

    def row_at(self, pc: int) -> Fre | None:
        """The row that holds at the address; None before the first one, or when there is none."""
        offset = pc - self.start
        if self.pc_type is PcType.MASK:
            offset %= self.rep_size or 1
        found = None
        for fre in self.fres:
            if fre.start > offset:
                break
            found = fre
        return found

    def moved(self, distance: int) -> Fde:
        """The same function `distance` bytes further."""
        return replace(self, start=self.start + distance)


@dataclass(frozen=True, slots=True)
class Section:
    """One SFrame section (or one blob of several that a linker concatenated): `address` is where its first byte is (Svma)."""

    address: int
    header: Header
    fdes: tuple[Fde, ...]

    def find(self, pc: int) -> Fde | None:
        """The function that covers the address: two may share a start, so the range decides.

        A linear search when the section is not sorted; sections that are come from `decode`, whose order is the file's.
        """
        if not self.header.flags & Flag.FDE_SORTED:
            return next((fde for fde in self.fdes if fde.covers(pc)), None)
        low, high = 0, len(self.fdes)
        while low < high:
            middle = (low + high) // 2
            if self.fdes[middle].start <= pc:
                low = middle + 1
            else:
                high = middle
        start = self.fdes[low - 1].start if low else None
        while low and self.fdes[low - 1].start == start:
            low -= 1
            if self.fdes[low].covers(pc):
                return self.fdes[low]
        return None
