"""One registered SFrame V3 section, read lazily from memory as the kernel's series "unwind_user/sframe" reads it.

Nothing is decoded that a lookup does not need: the header at registration, then a binary search of the index and the rows of one
function. Every refusal carries the errno of the kernel series and says whether the section is to be dropped.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from functools import cached_property

from unspool.errors import BadInput
from unspool.formats.sframe import BadRow, Base, Fde, FdeType, Flag, FrameRule, Fre, FreType, Header, PcType, decode_header, rule_of
from unspool.formats.sframe.decode import flexible_words
from unspool.formats.sframe.layout import ATTRIBUTE_SIZE, HEADER_SIZE, INDEX_ENTRY_SIZE, LATEST
from unspool.model.memory import Memory

INDEX_ENTRY = INDEX_ENTRY_SIZE[LATEST]
MOST_ROW = 4 + 1 + 15 * 4
"""Bytes of the largest row: a 4-byte start, the info byte, 15 words of 4 bytes."""


class Errno(enum.Enum):
    """How the kernel series answers: no data for the pc, memory that cannot be read or data that breaks its rules, a bad argument."""

    ENOENT = "ENOENT"
    EFAULT = "EFAULT"
    EINVAL = "EINVAL"
    EEXIST = "EEXIST"


@dataclass(frozen=True, slots=True)
class Refused:
    """No answer, and why; `corrupt`: the section breaks the format and is dropped."""

    errno: Errno
    reason: str
    corrupt: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The rule at a pc, and the addresses `[start, end)` of its function: the rule itself may end earlier."""

    rule: FrameRule
    start: int
    end: int


def _corrupt(reason: str) -> Refused:
    return Refused(Errno.EFAULT, reason, corrupt=True)


@dataclass(frozen=True)
class RegisteredSection:
    """A section whose header was accepted: `[start, end)` holds it, `[text_start, text_end)` is the code it describes."""

    memory: Memory
    start: int
    end: int
    text_start: int
    text_end: int
    header: Header
    file: str = ""

    @classmethod
    def open(cls, memory: Memory, sframe: range, text: range, *, file: str = "") -> RegisteredSection | Refused:
        """The section, its header checked by the rules of registration; Refused otherwise."""
        raw = memory.read(sframe.start, HEADER_SIZE)
        if raw is None:
            return Refused(Errno.EFAULT, "the header cannot be read")
        try:
            header = decode_header(raw, size=len(sframe))
        except BadInput as error:
            return Refused(Errno.EINVAL, error.what, corrupt=True)
        if header.version != LATEST:
            return Refused(Errno.EINVAL, f"version {header.version} is not {LATEST}", corrupt=True)
        if not header.flags & Flag.FDE_SORTED or not header.flags & Flag.FDE_FUNC_START_PCREL:
            return Refused(
                Errno.EINVAL, f"flags {int(header.flags):#x}: sorted functions and field-relative starts are needed", corrupt=True
            )
        if not header.num_fdes or not header.num_fres:
            return Refused(Errno.EINVAL, f"{header.num_fdes} FDEs and {header.num_fres} FREs")
        return cls(memory, sframe.start, sframe.stop, text.start, text.stop, header, file)

    @cached_property
    def _index(self) -> struct.Struct:
        return struct.Struct(("<" if self.header.abi.byte_order == "little" else ">") + "qII")

    @cached_property
    def _attribute(self) -> struct.Struct:
        return struct.Struct(("<" if self.header.abi.byte_order == "little" else ">") + "HBBB")

    def find(self, pc: int) -> Found | Refused:
        """The rule at the address."""
        fde = self.function_at(pc)
        return fde if isinstance(fde, Refused) else self._row(fde, pc)

    def function_at(self, pc: int) -> _Function | Refused:
        """The function that covers the address, by binary search; every probed start must respect the ones met before."""
        low, high = 0, self.header.num_fdes
        lowest, highest = self.text_start, self.text_end
        best: _Function | None = None
        while low < high:
            middle = (low + high) // 2
            entry = self.entry(middle)
            if isinstance(entry, Refused):
                return entry
            if not lowest <= entry.start <= highest:
                return _corrupt(f"FDE {middle} starts at {entry.start:#x}: the index is not sorted, or leaves the text")
            if entry.start <= pc:
                best, low, lowest = entry, middle + 1, entry.start
            else:
                high, highest = middle, entry.start
        # Two functions may share a start when one is empty; the last is found first, and the range decides.
        while best is not None and best.size == 0 and best.number > 0:
            entry = self.entry(best.number - 1)
            if isinstance(entry, Refused) or entry.start != best.start:
                break
            best = entry
        if best is None or pc - best.start >= best.size:
            return Refused(Errno.EINVAL, f"no function covers {pc:#x}")
        return best

    def entry(self, number: int) -> _Function | Refused:
        """One function of the index."""
        place = self.start + self.header.index_start + number * INDEX_ENTRY
        raw = self.memory.read(place, INDEX_ENTRY)
        if raw is None:
            return Refused(Errno.EFAULT, f"FDE {number} cannot be read")
        start, size, offset = self._index.unpack(raw)
        return _Function(number, (place + start) & 0xFFFF_FFFF_FFFF_FFFF, size, offset)

    def _row(self, function: _Function, pc: int) -> Found | Refused:
        rows = _Rows.open(self, function)
        if isinstance(rows, Refused):
            return rows
        offset = pc - function.start
        if rows.fde.pc_type is PcType.MASK:
            if not rows.fde.rep_size:
                return _corrupt(f"FDE {function.number}: a repeated block of 0 bytes")
            offset %= rows.fde.rep_size
        found = rows.last_at(offset)
        if isinstance(found, Refused):
            return found
        return Found(found, function.start, function.start + function.size)

    def validate(self) -> Refused | None:
        """The kernel's CONFIG_SFRAME_VALIDATION: every function and every row; None when all of it is sound."""
        previous = -1
        for number in range(self.header.num_fdes):
            function = self.entry(number)
            if isinstance(function, Refused):
                return function
            if function.start <= previous:
                return _corrupt(f"FDE {number} starts at {function.start:#x}, not behind {previous:#x}")
            if not self.text_start <= function.start < self.text_end:
                return _corrupt(f"FDE {number} starts at {function.start:#x}, outside the text")
            previous = function.start
            rows = _Rows.open(self, function)
            if isinstance(rows, Refused):
                return rows
            problem = rows.validate()
            if problem is not None:
                return problem
        return None


@dataclass(frozen=True, slots=True)
class _Function:
    """An index entry with its start resolved."""

    number: int
    start: int
    size: int
    fre_offset: int


@dataclass(slots=True)
class _Rows:
    """The rows of one function, read one after the other."""

    section: RegisteredSection
    function: _Function
    fde: Fde
    count: int
    position: int
    end: int

    @classmethod
    def open(cls, section: RegisteredSection, function: _Function) -> _Rows | Refused:
        header = section.header
        if function.fre_offset + ATTRIBUTE_SIZE > header.fre_len:
            return _corrupt(f"FDE {function.number}: its attribute lies behind the rows")
        place = section.start + header.fres_start + function.fre_offset
        raw = section.memory.read(place, ATTRIBUTE_SIZE)
        if raw is None:
            return Refused(Errno.EFAULT, f"FDE {function.number}: its attribute cannot be read")
        count, info, info2, rep_size = section._attribute.unpack(raw)  # noqa: SLF001 - the section's own reader
        if info & 0xF > FreType.ADDR4:
            return _corrupt(f"FDE {function.number}: fre_type {info & 0xF}")
        if info2 & 0x1F > FdeType.FLEX:
            return _corrupt(f"FDE {function.number}: fde_type {info2 & 0x1F}")
        fde = Fde(
            function.start, function.size, (), FreType(info & 0xF), PcType(info >> 4 & 1), FdeType(info2 & 0x1F),
            bool(info & 0x80), "B" if info & 0x20 else "A", rep_size, function.fre_offset,
        )  # fmt: skip
        return cls(section, function, fde, count, place + ATTRIBUTE_SIZE, section.start + header.size)

    def last_at(self, offset: int) -> FrameRule | Refused:
        """The rule of the last row at or below the offset."""
        found: Fre | None = None
        for number in range(self.count):
            fre = self._next(number, found)
            if isinstance(fre, Refused):
                return fre
            if fre.start > offset:
                break
            found = fre
        if found is not None:
            return self._rule(found)
        if self.fde.signal:
            # GAS: a signal frame whose CFI it cannot express still gets an FDE, without rows.
            return FrameRule(None, signal=True)
        return Refused(Errno.EINVAL, f"no row of the function at {self.fde.start:#x} holds at +{offset:#x}")

    def validate(self) -> Refused | None:
        previous: Fre | None = None
        for number in range(self.count):
            fre = self._next(number, previous)
            if isinstance(fre, Refused):
                return fre
            rule = self._rule(fre)
            if isinstance(rule, Refused):
                return rule
            previous = fre
        return None

    def _rule(self, fre: Fre) -> FrameRule | Refused:
        header = self.section.header
        rule = rule_of(self.fde, fre, header.abi, fixed=(header.fixed_ra_offset, header.fixed_fp_offset))
        return _corrupt(f"FDE {self.function.number} row +{fre.start:#x}: {rule.reason}") if isinstance(rule, BadRow) else rule

    def _next(self, number: int, previous: Fre | None) -> Fre | Refused:
        size = self.fde.fre_type.size
        here = f"FDE {self.function.number} row {number}"
        if self.position + size + 1 > self.end:
            return _corrupt(f"{here} lies behind the rows")
        raw = self.section.memory.read(self.position, min(MOST_ROW, self.end - self.position))
        if raw is None:
            return Refused(Errno.EFAULT, f"{here} cannot be read")
        order = self.section.header.abi.byte_order
        start, info = int.from_bytes(raw[:size], order), raw[size]
        count, code = info >> 1 & 0xF, info >> 5 & 3
        if code > 2:
            return _corrupt(f"{here}: data word size code 3")
        width = 1 << code
        end = size + 1 + count * width
        if end > len(raw):
            return _corrupt(f"{here}: its data words end behind the rows")
        if self.fde.pc_type is PcType.INC and start > self.fde.size:
            return _corrupt(f"{here} starts behind its function")
        if previous is not None and start <= previous.start:
            return _corrupt(f"{here}: rows do not rise")
        self.position += end
        flex = self.fde.fde_type is FdeType.FLEX
        words = tuple(int.from_bytes(raw[place : place + width], order, signed=not flex) for place in range(size + 1, end, width))
        return Fre(start, flexible_words(words, width) if flex else words, Base(info & 1), width, bool(info & 0x80))
