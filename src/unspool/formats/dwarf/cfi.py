"""CIEs and FDEs of .eh_frame and .debug_frame, read one by one from anything that reads memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from unspool.errors import BadInput
from unspool.formats.dwarf.cursor import ByteOrder, Cursor
from unspool.formats.dwarf.pointers import OMIT, Bases, pointer, stored
from unspool.model.memory import Memory

SectionKind = Literal["eh_frame", "debug_frame"]

MAX_ENTRY = 1 << 20
"""Bytes of one CIE or FDE at most; real ones have at most some ten thousand."""
MAX_ENTRIES = 1 << 20
"""Entries of one section at most, when a section is read through."""
_DWARF64 = 0xFFFFFFFF
_RESERVED_LENGTH = 0xFFFFFFF0


@dataclass(frozen=True, slots=True)
class Cie:
    """What many functions share; it stands at `address`. `signal` is augmentation S: the frame interrupted its caller."""

    address: int
    version: int
    augmentation: str
    code_align: int
    data_align: int
    ra_register: int
    encoding: int
    lsda_encoding: int
    word: int
    byte_order: ByteOrder
    signal: bool
    instructions: bytes = field(repr=False)
    instructions_at: int = 0


@dataclass(frozen=True, slots=True)
class Fde:
    """One function's unwind data: code in `[start, end)`, and the program whose rows cover it."""

    cie: Cie
    address: int
    start: int
    end: int
    lsda: int | None
    instructions: bytes = field(repr=False)
    instructions_at: int = 0

    def __contains__(self, pc: object) -> bool:
        """Whether the pc lies in the function."""
        return isinstance(pc, int) and self.start <= pc < self.end

    def moved(self, bias: int) -> Fde:
        """The same, `bias` bytes higher: from stated addresses to those in a process."""
        return replace(self, start=self.start + bias, end=self.end + bias)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry's frame: its id field's value and place, its contents, and where the next entry starts."""

    cursor: Cursor
    id_at: int
    id: int
    offset_size: int
    next: int


class FrameSection:
    """An .eh_frame or .debug_frame section at `[start, end)` of `memory`, whose addresses are a process's or those that the file states."""

    def __init__(
        self, memory: Memory, start: int, end: int, *, kind: SectionKind = "eh_frame", byte_order: ByteOrder = "little", word: int = 8
    ) -> None:
        """Nothing is read yet."""
        self.memory = memory
        self.start = start
        self.end = end
        self.kind = kind
        self.byte_order: ByteOrder = byte_order
        self.word = word
        self._cies: dict[int, Cie] = {}

    def fde_at(self, address: int) -> Fde:
        """The FDE that stands at the address; BadInput when none does."""
        entry = self._entry(address)
        if entry is None or self._is_cie(entry):
            raise BadInput("no FDE", offset=address)
        return self._fde(entry, address)

    def cie_at(self, address: int) -> Cie:
        """The CIE that stands at the address; BadInput when none does."""
        cie = self._cies.get(address)
        if cie is None:
            entry = self._entry(address)
            if entry is None or not self._is_cie(entry):
                raise BadInput("no CIE", offset=address)
            cie = self._cies[address] = self._cie(entry, address)
        return cie

    def entries(self) -> Iterator[Cie | Fde]:
        """Every entry in the order of the section, up to the terminator or the end; BadInput at the first broken one."""
        address = self.start
        for _ in range(MAX_ENTRIES):
            entry = self._entry(address) if address < self.end else None
            if entry is None:
                return
            yield self.cie_at(address) if self._is_cie(entry) else self._fde(entry, address)
            address = entry.next
        raise BadInput(f"more than {MAX_ENTRIES} entries", offset=address)

    def fdes(self) -> Iterator[Fde]:
        """Every FDE in the order of the section."""
        return (entry for entry in self.entries() if isinstance(entry, Fde))

    def find(self, pc: int) -> Fde | None:
        """The first FDE that holds the pc, found by reading the section through; for files without a search table."""
        return next((fde for fde in self.fdes() if pc in fde), None)

    def _read(self, address: int, size: int) -> bytes:
        if address < self.start or address + size > self.end:
            raise BadInput("entry leaves the section", offset=address)
        data = self.memory.read(address, size)
        if data is None:
            raise BadInput(f"{size} bytes cannot be read", offset=address)
        return data

    def _entry(self, address: int) -> _Entry | None:
        length = int.from_bytes(self._read(address, 4), self.byte_order)
        header = 4
        if length == 0:
            return None
        if length == _DWARF64:
            length = int.from_bytes(self._read(address + 4, 8), self.byte_order)
            header = 12
        elif length >= _RESERVED_LENGTH:
            raise BadInput(f"entry length {length:#x}", offset=address)
        # LSB 5.0, section 10.6.1: the id of .eh_frame has four bytes, also behind an extended length.
        offset_size = 8 if header == 12 and self.kind == "debug_frame" else 4
        if not offset_size <= length <= MAX_ENTRY:
            raise BadInput(f"entry of {length} bytes", offset=address)
        cursor = Cursor(self._read(address + header, length), self.byte_order, origin=address + header)
        return _Entry(cursor, address + header, cursor.unsigned(offset_size), offset_size, address + header + length)

    def _is_cie(self, entry: _Entry) -> bool:
        if self.kind == "eh_frame":
            return entry.id == 0
        return entry.id == (1 << 8 * entry.offset_size) - 1

    def _cie(self, entry: _Entry, address: int) -> Cie:
        cursor = entry.cursor
        version = cursor.u8()
        if version not in {1, 3, 4}:
            raise BadInput(f"CIE version {version}", offset=address)
        augmentation = cursor.string()
        if "eh" in augmentation:
            cursor.unsigned(self.word)  # GCC 2's pointer, before augmentations had a size
        word = self.word
        if version == 4:
            word, segment = cursor.u8(), cursor.u8()
            if word not in {4, 8} or segment:
                raise cursor.bad(f"address size {word}, segment size {segment}")
        code_align, data_align = cursor.uleb(), cursor.sleb()
        ra_register = cursor.u8() if version == 1 else cursor.uleb()
        encoding, lsda_encoding, signal = self._augmentation(cursor, augmentation, word)
        at = cursor.origin + cursor.offset
        return Cie(
            address,
            version,
            augmentation,
            code_align,
            data_align,
            ra_register,
            encoding,
            lsda_encoding,
            word,
            self.byte_order,
            signal,
            cursor.bytes(cursor.end - cursor.offset),
            at,
        )

    @staticmethod
    def _augmentation(cursor: Cursor, augmentation: str, word: int) -> tuple[int, int, bool]:
        """The FDE's pointer encoding, that of its LSDA, and whether it is a signal frame (LSB 5.0, section 10.6.1.1.1)."""
        encoding, lsda, signal = 0, OMIT, False
        if not augmentation.startswith("z"):
            # Without sizes nothing unknown can be passed over.
            if augmentation.strip("eh"):
                raise cursor.bad(f"augmentation {augmentation!r}")
            return encoding, lsda, signal
        size = cursor.uleb()
        end = cursor.offset + size
        if end > cursor.end:
            raise cursor.bad("augmentation leaves its CIE")
        for letter in augmentation[1:]:
            if letter == "R":
                encoding = cursor.u8()
            elif letter == "L":
                lsda = cursor.u8()
            elif letter == "P":
                personality = cursor.u8()
                if personality != OMIT:
                    stored(cursor, personality, word)
            elif letter == "S":
                signal = True
            elif letter not in "BG":
                # B: return addresses are signed with key B; G: memory tagging. Anything unknown may have data: stop reading it.
                break
        cursor.offset = end
        return encoding, lsda, signal

    def _fde(self, entry: _Entry, address: int) -> Fde:
        cursor = entry.cursor
        cie_address = entry.id_at - entry.id if self.kind == "eh_frame" else self.start + entry.id
        if cie_address == address:
            raise BadInput("an FDE that names itself as its CIE", offset=address)
        cie = self.cie_at(cie_address)
        start = pointer(cursor, cie.encoding, cie.word)
        size = stored(cursor, cie.encoding & 0x0F, cie.word)
        if size < 0 or start + size > 1 << 64:
            raise BadInput(f"FDE of {size} bytes of code", offset=address)
        lsda = None
        if cie.augmentation.startswith("z"):
            size_of_data = cursor.uleb()
            end = cursor.offset + size_of_data
            if cie.lsda_encoding != OMIT and cursor.offset < end <= cursor.end:
                lsda = pointer(cursor, cie.lsda_encoding, cie.word, Bases(function=start)) or None
            if end > cursor.end:
                raise BadInput("augmentation leaves its FDE", offset=address)
            cursor.offset = end
        at = cursor.origin + cursor.offset
        return Fde(cie, address, start, start + size, lsda, cursor.bytes(cursor.end - cursor.offset), at)
