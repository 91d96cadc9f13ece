"""CFI sections, assembled field by field: the tests say what they mean instead of pasting bytes.

section = Section(0x2000)
cie = section.cie(def_cfa(RSP, 8), offset(16, 1))
section.fde(cie, 0x1000, 0x20, advance(1), def_cfa_offset(16))
data = section.bytes()
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

RAX, RDX, RCX, RBX, RSI, RDI, RBP, RSP = range(8)
RA = 16


def uleb(value: int) -> bytes:
    """An unsigned LEB128."""
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def sleb(value: int) -> bytes:
    """A signed LEB128."""
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        done = (value == 0 and not byte & 0x40) or (value == -1 and byte & 0x40)
        out.append(byte | (0 if done else 0x80))
        if done:
            return bytes(out)


# -- instructions (DWARF 5, section 6.4.2); data offsets are factored as they are encoded


def advance(delta: int) -> bytes:
    """DW_CFA_advance_loc and its longer forms, by what fits."""
    if delta < 0x40:
        return bytes([0x40 | delta])
    for opcode, code in ((2, "<B"), (3, "<H"), (4, "<I")):
        if delta < 1 << 8 * struct.calcsize(code):
            return bytes([opcode]) + struct.pack(code, delta)
    return b"\x1d" + struct.pack("<Q", delta)


def offset(register: int, factored: int) -> bytes:
    """DW_CFA_offset, extended where the register does not fit."""
    return bytes([0x80 | register]) + uleb(factored) if register < 0x40 else b"\x05" + uleb(register) + uleb(factored)


def restore(register: int) -> bytes:
    return bytes([0xC0 | register])


def def_cfa(register: int, distance: int) -> bytes:
    return b"\x0c" + uleb(register) + uleb(distance)


def def_cfa_register(register: int) -> bytes:
    return b"\x0d" + uleb(register)


def def_cfa_offset(distance: int) -> bytes:
    return b"\x0e" + uleb(distance)


def def_cfa_expression(expression: bytes) -> bytes:
    return b"\x0f" + uleb(len(expression)) + expression


def expression(register: int, operations: bytes) -> bytes:
    return b"\x10" + uleb(register) + uleb(len(operations)) + operations


def val_expression(register: int, operations: bytes) -> bytes:
    return b"\x16" + uleb(register) + uleb(len(operations)) + operations


def undefined(register: int) -> bytes:
    return b"\x07" + uleb(register)


def same_value(register: int) -> bytes:
    return b"\x08" + uleb(register)


def in_register(register: int, source: int) -> bytes:
    return b"\x09" + uleb(register) + uleb(source)


def offset_sf(register: int, factored: int) -> bytes:
    return b"\x11" + uleb(register) + sleb(factored)


def val_offset(register: int, factored: int) -> bytes:
    return b"\x14" + uleb(register) + uleb(factored)


REMEMBER = b"\x0a"
RESTORE_STATE = b"\x0b"
NEGATE_RA_STATE = b"\x2d"

# -- operations of expressions (DWARF 5, section 7.7.1)


def breg(register: int, distance: int) -> bytes:
    return bytes([0x70 + register]) + sleb(distance)


def skip(distance: int) -> bytes:
    return b"\x2f" + struct.pack("<h", distance)


DEREF = b"\x06"
PLUS = b"\x22"


@dataclass
class Section:
    """An .eh_frame at `address` (or .debug_frame); `dwarf64` gives entries the long form. Entries are named by their offset."""

    address: int
    debug: bool = False
    dwarf64: bool = False
    order: str = "<"
    data: bytearray = field(default_factory=bytearray)
    fdes: list[tuple[int, int]] = field(default_factory=list)

    def entry(self, body: bytes, identity: int) -> int:
        """An entry with that id field and contents; gives its offset."""
        at = len(self.data)
        wide = self.dwarf64 and self.debug
        content = struct.pack(f"{self.order}{'Q' if wide else 'I'}", identity) + body
        content += bytes(-len(content) % 8)  # DW_CFA_nop
        self.data += (
            struct.pack(f"{self.order}IQ", 0xFFFFFFFF, len(content)) if self.dwarf64 else struct.pack(f"{self.order}I", len(content))
        )
        self.data += content
        return at

    @property
    def _header(self) -> int:
        return 12 if self.dwarf64 else 4

    def cie(self, *instructions: bytes, augmentation: str = "zR", data_align: int = -8, ra: int = RA, version: int = 1) -> int:
        """A CIE whose FDEs have pcrel|sdata4 addresses (.eh_frame) or absolute ones."""
        letters = {"R": b"\x1b", "L": b"\x1b", "P": b"\x00" + bytes(8), "S": b"", "B": b""}
        body = bytes([version]) + augmentation.encode() + b"\0"
        if version == 4:
            body += bytes([8, 0])
        body += uleb(1) + sleb(data_align) + (bytes([ra]) if version == 1 else uleb(ra))
        if augmentation.startswith("z"):
            extra = b"".join(letters[letter] for letter in augmentation[1:])
            body += uleb(len(extra)) + extra
        identity = 0 if not self.debug else (1 << (64 if self.dwarf64 else 32)) - 1
        return self.entry(body + b"".join(instructions), identity)

    def fde(self, cie: int, start: int, size: int, *instructions: bytes) -> int:
        """An FDE of that CIE for `[start, start + size)`."""
        at = len(self.data)
        self.fdes.append((start, at))
        if self.debug:
            body = struct.pack(f"{self.order}QQ", start, size)
            return self.entry(body + b"".join(instructions), cie)
        id_at = at + self._header
        body = struct.pack(f"{self.order}iI", start - (self.address + id_at + 4), size) + b"\0"
        return self.entry(body + b"".join(instructions), id_at - cie)

    def bytes(self) -> bytes:
        """The section with its terminator."""
        return bytes(self.data) + bytes(4)

    def hdr(self, address: int, *, fdes: Sequence[tuple[int, int]] | None = None) -> bytes:
        """An .eh_frame_hdr for it at that address, as linkers write it: pcrel|sdata4, udata4, datarel|sdata4."""
        pairs = sorted(self.fdes if fdes is None else fdes)
        head = bytes([1, 0x1B, 0x03, 0x3B]) + struct.pack(f"{self.order}iI", self.address - (address + 4), len(pairs))
        return head + b"".join(struct.pack(f"{self.order}ii", start - address, self.address + at - address) for start, at in pairs)
