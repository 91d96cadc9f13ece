"""What stays the same in a running kernel: its names, types and unwind tables, taken out of one copy of its image.

Linux marks each of these tables by symbols of its linker script (include/asm-generic/vmlinux.lds.h), so the symbol table leads to all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from unspool.errors import BadInput
from unspool.formats.btf import Btf
from unspool.formats.elf.notes import build_id_of, parse_notes
from unspool.formats.kallsyms_tables import KernelSymbols
from unspool.formats.orc import BITS_TYPE2, BITS_TYPE3, OrcBits, OrcEncoding, OrcTable

MAX_TABLE = 64 << 20
_MAX_NOTES = 1 << 16
_MAX_BANNER = 512
_BANNER = re.compile(r"Linux version ([0-9A-Za-z.+~_-]{1,64}) ")
_BIT_FIELDS = ("sp_reg", "bp_reg", "type", "signal", "end")
# Linux 6.4 has another layout of struct orc_entry than 6.2; where BTF does not tell, the release must.
_TYPE3_SINCE = (6, 4)


@dataclass(frozen=True, slots=True)
class KernelTables:
    """One build of a kernel at one address: the same for every guest and every moment in which `notes` is found at `notes_at`.

    `base` is `_text`, `end` is `_end`. `text` and `init_text` are address ranges; the second holds code only until the guest has booted.
    `btf` and `orc` are None where the kernel has none (or they are damaged): `missing` says which, and why, in sentences.
    """

    base: int
    end: int
    release: str
    banner: bytes
    build_id: str
    symbols: KernelSymbols
    btf: Btf | None
    orc: OrcTable | None
    text: tuple[int, int]
    init_text: tuple[int, int]
    banner_at: int
    notes_at: int
    notes: bytes
    missing: tuple[str, ...]

    @property
    def size(self) -> int:
        """The memory that these tables take, in bytes, about."""
        return self.symbols.size + (self.btf.size if self.btf else 0) + (self.orc.size if self.orc else 0)


@dataclass(frozen=True, slots=True)
class Image:
    """The bytes of a kernel's image from the address `start` on, with the symbols that say what is where in it."""

    data: bytes
    start: int
    symbols: KernelSymbols

    def between(self, first: str, last: str, limit: int = MAX_TABLE) -> bytes:
        """The bytes between two symbols; BadInput when there are no such symbols, or no such bytes."""
        low, high = self.symbols.address(first), self.symbols.address(last)
        if low is None or high is None:
            raise BadInput(f"the kernel has no symbols {first} and {last}", file="kernel")
        if not self.start <= low < high <= self.start + len(self.data) or high - low > limit:
            raise BadInput(f"{first} to {last} is no readable part of the image", file="kernel", offset=low - self.start)
        return self.data[low - self.start : high - self.start]

    def string(self, name: str) -> bytes:
        """The bytes at a symbol up to the first NUL."""
        address = self.symbols.address(name)
        if address is None or not self.start <= address < self.start + len(self.data):
            raise BadInput(f"the kernel has no {name}", file="kernel")
        return self.data[address - self.start : address - self.start + _MAX_BANNER].partition(b"\0")[0]


def read_static(image: Image) -> KernelTables:
    """The tables of a kernel; BadInput when it is not one, values in `missing` where only a part of it is not there."""
    symbols, missing = image.symbols, []
    banner = image.string("linux_banner")
    match = _BANNER.match(banner.decode("ascii", "replace"))
    if match is None:
        raise BadInput("linux_banner does not hold the kernel's version", file="kernel")
    notes = image.between("__start_notes", "__stop_notes", _MAX_NOTES)
    btf, orc = None, None
    try:
        btf = Btf(image.between("__start_BTF", "__stop_BTF"))
    except BadInput as error:
        missing.append(f"No type information (BTF): {error}.")
    try:
        orc = _orc(image, btf, match[1])
    except BadInput as error:
        missing.append(f"No unwind tables (ORC): {error}.")
    return KernelTables(
        base=_address(symbols, "_text"),
        end=_address(symbols, "_end"),
        release=match[1],
        banner=banner,
        build_id=build_id_of(parse_notes(notes)),
        symbols=symbols,
        btf=btf,
        orc=orc,
        text=(_address(symbols, "_stext"), _address(symbols, "_etext")),
        init_text=(symbols.address("_sinittext") or 0, symbols.address("_einittext") or 0),
        banner_at=_address(symbols, "linux_banner"),
        notes_at=_address(symbols, "__start_notes"),
        notes=notes,
        missing=tuple(missing),
    )


def orc_bits(btf: Btf | None, release: str) -> OrcBits:
    """The bit fields of this kernel's ORC entries: by BTF, else by its release."""
    if btf is not None and btf.has("orc_entry"):
        entry = btf.struct("orc_entry")
        found = {name: entry.find(name) for name in _BIT_FIELDS}
        return OrcBits.of({name: (member.bit_offset, member.bits) for name, member in found.items() if member is not None})
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None:
        raise BadInput(f"the layout of ORC entries in release {release} is not known", file="kernel")
    return BITS_TYPE3 if (int(numbers[1]), int(numbers[2])) >= _TYPE3_SINCE else BITS_TYPE2


def _orc(image: Image, btf: Btf | None, release: str) -> OrcTable:
    entries = image.between("__start_orc_unwind", "__stop_orc_unwind")
    encoding = OrcEncoding.detect(entries, orc_bits(btf, release))
    ips = image.between("__start_orc_unwind_ip", "__stop_orc_unwind_ip")
    return OrcTable(ips, entries, encoding, _address(image.symbols, "__start_orc_unwind_ip"))


def _address(symbols: KernelSymbols, name: str) -> int:
    address = symbols.address(name)
    if address is None:
        raise BadInput(f"the kernel has no symbol {name}", file="kernel")
    return address
