"""Names from a file, for a kernel whose memory does not hold them."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from elf_bytes import ElfBytes, Part
from formats.orc_bytes import Encoding, orc_tables
from guest.ram_image import BASE, BUILD_ID, RELEASE, Guest, Shape, btf, build
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.targets.guest.kernel import GuestKernel, Unreadable, discover
from unspool.targets.guest.kernel_files import KernelFile

LINKED = 0xFFFF_FFFF_8100_0000
"""Where every x86-64 kernel is linked; KASLR moves it from there."""


def nameless(shape: Shape | None = None) -> Guest:
    """A guest without kallsyms in its memory."""
    guest = build(shape)
    guest.ram.write(guest.physical("kallsyms_token_index"), b"\xff" * 512)
    return guest


def moved(address: int, distance: int) -> int:
    return address + distance if address >= 1 << 63 else address


def listing(guest: Guest, distance: int = 0) -> bytes:
    """The lines of /proc/kallsyms, or with a distance those of System.map."""
    return b"".join(f"{moved(address, distance):016x} {kind} {name}\n".encode() for address, kind, name in guest.rows)


def vmlinux(guest: Guest, build_id: bytes = BUILD_ID, *, tables: bool = False) -> bytes:
    """An ELF file of the kernel at the address at which it was linked; with `tables` also its types and unwind data."""
    elf = ElfBytes(type=2)
    distance = LINKED - BASE
    names = b"\0" + b"".join(name.encode() + b"\0" for _, _, name in guest.rows)
    symbols = elf.symbol(0, 0, 0, 0, 0)
    for address, kind, name in guest.rows:
        info = (0x10 if kind.isupper() else 0) | (2 if kind in "tT" else 1)
        symbols += elf.symbol(names.index(b"\0" + name.encode() + b"\0") + 1, moved(address, distance), 0, info, 1)
    elf.parts = [
        Part(".text", b"\x90" * 64, flags=6, address=LINKED),
        Part(".notes", elf.note(b"GNU", 3, build_id), 7, address=LINKED + 64, segment=4),
        Part(".symtab", symbols, 2, link=4, entry_size=24),
        Part(".strtab", names, 3),
    ]
    if tables:
        ips, entries = orc_tables(guest.orc, BASE + 0x80_0000, guest.shape.encoding)
        elf.parts += [Part(".orc_unwind_ip", ips, address=LINKED + 0x80_0000), Part(".orc_unwind", entries), Part(".BTF", btf(guest.shape))]
    return elf.bytes()


def found(guest: Guest, file: bytes) -> GuestKernel:
    kernel = discover(guest.ram, guest.state, given=KernelFile.of(file))
    assert isinstance(kernel, GuestKernel), kernel
    return kernel


def test_a_listing_of_this_boot_names_everything() -> None:
    guest = nameless()
    assert isinstance(discover(guest.ram, guest.state), Unreadable)
    kernel = found(guest, listing(guest))
    assert guest.rows == list(kernel.symbols)
    assert RELEASE == kernel.release
    assert ["alpha", "beta"] == [module.name for module in kernel.modules]
    assert [entry for _, entry in guest.orc] == [kernel.orc(pc) for pc, _ in guest.orc]


@pytest.mark.parametrize("distance", [LINKED - BASE, 0x1000_0000])
def test_addresses_are_moved_to_where_the_kernel_is(distance: int) -> None:
    """A System.map has the addresses of the linker, a kallsyms of another boot those of that boot."""
    guest = nameless()
    assert guest.rows == list(found(guest, listing(guest, distance)).symbols)


def test_lines_of_modules_are_left_out() -> None:
    guest = nameless()
    text = listing(guest) + b"ffffffffc0100000 t old_place\t[alpha]\n\n"
    assert guest.rows == list(found(guest, text).symbols)


def test_a_vmlinux_names_everything() -> None:
    guest = nameless()
    kernel = found(guest, vmlinux(guest))
    assert [row[::2] for row in guest.rows] == [row[::2] for row in kernel.symbols]
    assert guest.orc[7][1] == kernel.orc(guest.orc[7][0])
    assert () == kernel.missing


@pytest.mark.parametrize("encoding", [Encoding.TYPE3, Encoding.RENUMBERED])
def test_a_vmlinux_gives_tables_that_memory_lacks(encoding: Encoding) -> None:
    guest = nameless(Shape(encoding=encoding))
    guest.ram.write(guest.physical("__start_BTF"), b"\0")
    guest.ram.write(guest.physical("__start_orc_unwind_ip"), b"\xff" * 8)
    bare, full = found(guest, vmlinux(guest)), found(guest, vmlinux(guest, tables=True))
    assert 2 == len(bare.missing)
    assert () == full.missing
    assert full.btf is not None
    assert ["alpha", "beta"] == [module.name for module in full.modules]
    assert [entry for _, entry in guest.orc] == [full.orc(pc) for pc, _ in guest.orc]


def test_what_is_in_memory_goes_before_the_file() -> None:
    guest = build()
    other = replace(guest, rows=[row for row in guest.rows if row[2] != "function_7"])
    assert guest.rows == list(found(guest, listing(other)).symbols)


def test_a_file_of_another_kernel_is_refused() -> None:
    guest, other = nameless(), build(Shape(functions=290))
    refused = discover(guest.ram, guest.state, given=KernelFile.of(listing(other)))
    assert isinstance(refused, Unreadable)
    assert "another kernel" in refused.reason
    refused = discover(guest.ram, guest.state, given=KernelFile.of(vmlinux(guest, b"\xee" * 20)))
    assert isinstance(refused, Unreadable)
    assert "ee" * 20 in refused.reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n",
        b"0000000000000000 T _text\n0000000000000000 t first\n",
        b"ffffffff81000000 t first\n",
        b"\x7fELF",
        b"\x1f\x8b\x08\x00 a compressed file",
        b"fffffffffffffffff T _text\n",
    ],
)
def test_what_names_no_kernel_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput):
        KernelFile.of(data, file="System.map")


@given(st.binary(max_size=400), st.sampled_from([b"", b"\x7fELF\x02\x01\x01", b"ffffffff81000000 T _text\n"]))
def test_any_file_is_read_or_refused(data: bytes, head: bytes) -> None:
    with contextlib.suppress(BadInput):
        assert isinstance(discover(NAMELESS.ram, NAMELESS.state, given=KernelFile.of(head + data)), Unreadable)


@given(st.dictionaries(st.integers(0, 3000), st.integers(1, 255), min_size=1, max_size=6))
def test_a_damaged_vmlinux_is_read_or_refused(change: dict[int, int]) -> None:
    data = bytearray(FILE)
    for place, mask in change.items():
        # From both ends: headers come first, sections last.
        data[place if place % 2 else len(data) - 1 - place // 2] ^= mask
    with contextlib.suppress(BadInput):
        assert isinstance(discover(NAMELESS.ram, NAMELESS.state, given=KernelFile.of(bytes(data))), GuestKernel | Unreadable)


NAMELESS = nameless()
FILE = vmlinux(NAMELESS, tables=True)
