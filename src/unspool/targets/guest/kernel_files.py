"""A kernel's names from a file that the user gives, for a guest whose memory does not hold them: /proc/kallsyms, System.map or vmlinux.

Addresses in the file may be those at which the kernel was linked, or those of one boot: they are moved to where this guest's kernel is.
The file must be of the very kernel that runs: its banner (and a vmlinux's build id) is compared with the one in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from struct import Struct

from unspool.errors import BadInput
from unspool.formats.btf import Btf
from unspool.formats.elf import Elf, SectionFlag
from unspool.formats.kallsyms_tables import MAX_NAME, MAX_SYMBOLS, MAX_TEXT, KernelSymbols
from unspool.formats.orc import OrcEncoding, OrcTable
from unspool.targets.guest.kernel_image import Placement
from unspool.targets.guest.kernel_tables import Image, KernelTables, orc_bits, read_static

MAX_FILE = 1 << 30
_SYMBOL = Struct("<IBBHQQ")
_KERNEL_HALF = 1 << 63
# gABI, "Symbol Table": no type, object, function.
_TYPES = frozenset({0, 1, 2})
_UNDEFINED, _ABSOLUTE = 0, 0xFFF1


@dataclass(frozen=True, slots=True)
class KernelFile:
    """What a file says of a kernel, at the file's own addresses; `orc` is (`.orc_unwind_ip`, its address, `.orc_unwind`)."""

    symbols: KernelSymbols
    build_id: str = ""
    btf: bytes | None = None
    orc: tuple[bytes, int, bytes] | None = None

    @classmethod
    def of(cls, data: bytes, *, file: str = "") -> KernelFile:
        """Read any of the three kinds; BadInput when it is none of them, or names no kernel."""
        if len(data) > MAX_FILE:
            raise BadInput(f"{len(data)} bytes are too many for a kernel", file=file)
        try:
            found = _vmlinux(data) if data.startswith(b"\x7fELF") else cls(_listed(data))
        except BadInput as error:
            raise error.within(file) from None
        if not found.text:
            raise BadInput("there is no symbol _text with an address", file=file, hint=_HINT)
        return found

    @property
    def text(self) -> int:
        """Where `_text` is in the file; 0 when it does not say."""
        return self.symbols.address("_text") or 0


_HINT = (
    "Give the guest's own /proc/kallsyms (as root, with kernel.kptr_restrict=0), its System.map, or a vmlinux with symbols; "
    "Debian's /boot/System.map is an empty stub."
)


def read_with_file(data: bytes, placement: Placement, given: KernelFile) -> KernelTables:
    """The tables of the kernel whose image is `data`, with names by the file; BadInput when the file is of another kernel."""
    moved = placement.start - given.text
    image = Image(data, placement.start, _moved(given.symbols, moved))
    try:
        tables = read_static(image)
    except BadInput as error:
        raise BadInput(f"the file that was given is of another kernel than the guest's ({error.what})", hint=_HINT) from None
    if given.build_id and tables.build_id and given.build_id != tables.build_id:
        raise BadInput(f"the file's build id is {given.build_id}, the guest's kernel has {tables.build_id}", hint=_HINT)
    return _completed(tables, given, moved)


def _completed(tables: KernelTables, given: KernelFile, moved: int) -> KernelTables:
    """The tables with what only the file has; what of the file cannot be read stays missing."""
    btf, orc, missing = tables.btf, tables.orc, list(tables.missing)
    if btf is None and given.btf is not None:
        try:
            btf = Btf(given.btf)
            missing = [reason for reason in missing if "(BTF)" not in reason]
        except BadInput as error:
            missing.append(f"No type information (BTF) in the file either: {error}.")
    if orc is None and given.orc is not None:
        ips, address, entries = given.orc
        try:
            encoding = OrcEncoding.detect(entries, orc_bits(btf, tables.release))
            orc = OrcTable(ips, entries, encoding, address + moved)
            missing = [reason for reason in missing if "(ORC)" not in reason]
        except BadInput as error:
            missing.append(f"No unwind tables (ORC) in the file either: {error}.")
    return replace(tables, btf=btf, orc=orc, missing=tuple(missing))


def _moved(symbols: KernelSymbols, distance: int) -> KernelSymbols:
    """The symbols at other addresses; per-CPU symbols that count from 0 stay."""
    if not distance:
        return symbols
    rows = [(address + distance if address >= _KERNEL_HALF else address, kind, name) for address, kind, name in symbols]
    if any(not 0 <= address < 1 << 64 for address, _, _ in rows):
        raise BadInput("symbols that do not fit where the guest's kernel is")
    return KernelSymbols.of(rows)


def _listed(data: bytes) -> KernelSymbols:
    """The symbols in the text of /proc/kallsyms or a System.map; those of modules are left out, their place changes."""
    if len(data) > MAX_TEXT * 2:
        raise BadInput(f"{len(data)} bytes of symbols")
    rows: list[tuple[int, str, str]] = []
    offset = 0
    for line in data.split(b"\n"):
        parts = line.split()
        if len(parts) == 3:
            try:
                address = int(parts[0], 16)
            except ValueError:
                address = -1
            if not 0 <= address < 1 << 64 or len(parts[1]) != 1 or len(parts[2]) > MAX_NAME:
                raise BadInput("not a line of kallsyms or System.map", offset=offset, hint=_HINT)
            rows.append((address, parts[1].decode("ascii", "replace"), parts[2].decode("utf-8", "replace")))
        elif len(parts) not in {0, 4}:
            raise BadInput("not a line of kallsyms or System.map", offset=offset, hint=_HINT)
        if len(rows) > MAX_SYMBOLS:
            raise BadInput(f"more than {MAX_SYMBOLS} symbols", offset=offset)
        offset += len(line) + 1
    return KernelSymbols.of(rows)


def _vmlinux(data: bytes) -> KernelFile:
    """The symbols, types and unwind tables in a vmlinux."""
    elf = Elf(data)
    ips, entries = elf.section(".orc_unwind_ip"), elf.section_data(".orc_unwind")
    orc = None if ips is None or entries is None else (elf.data(ips), ips.address, entries)
    return KernelFile(_elf_symbols(elf), elf.build_id, elf.section_data(".BTF"), orc)


def _elf_symbols(elf: Elf) -> KernelSymbols:
    table, names = elf.section_data(".symtab"), elf.section_data(".strtab")
    if table is None or names is None or (elf.layout.bits, elf.layout.byte_order) != (64, "little"):
        raise BadInput("not a vmlinux with symbols", hint=_HINT)
    code = {section.index for section in elf.sections if section.flags & SectionFlag.EXECUTE}
    rows: list[tuple[int, str, str]] = []
    for name_at, info, _, section, value, _ in _SYMBOL.iter_unpack(table[: len(table) // _SYMBOL.size * _SYMBOL.size]):
        if info & 15 not in _TYPES or section == _UNDEFINED:
            continue
        name = names[name_at : names.find(b"\0", name_at, name_at + MAX_NAME)]
        if name and b"\n" not in name:
            letter = "t" if section in code else "a" if section == _ABSOLUTE else "d"
            rows.append((value, letter.upper() if info >> 4 else letter, name.decode("utf-8", "replace")))
        if len(rows) > MAX_SYMBOLS:
            raise BadInput(f"more than {MAX_SYMBOLS} symbols")
    return KernelSymbols.of(rows)
