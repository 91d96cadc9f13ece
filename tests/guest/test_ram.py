"""A machine's memory: read by guest-physical address, whatever holds it; what was never touched stays untouched."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import struct
from collections.abc import Iterator

import pytest
from guest.test_qmp import MTREE
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput, BadRequest, NoSuchTarget, Unsupported
from unspool.model.module import Mapping
from unspool.targets.guest import layout, ram, ram_blocks
from unspool.targets.guest.layout import FOUR_GIB, GIB, Block, Extent, Plan
from unspool.targets.guest.ram import Ram, mappings_of

PAGE = 4096
SIZE = 64 * PAGE


@pytest.fixture(params=["memfd", "private", "shared"])
def memory(request: pytest.FixtureRequest) -> Iterator[tuple[Ram, mmap.mmap]]:
    """Pages 2 to 5 and 9 of a block of 64 hold data; the block shows at 1 MiB (half of it) and at 4 GiB (the rest)."""
    fd = os.memfd_create("ram") if request.param == "memfd" else -1
    if fd >= 0:
        os.ftruncate(fd, SIZE)
    block = mmap.mmap(fd, SIZE, mmap.MAP_SHARED if request.param != "private" else mmap.MAP_PRIVATE)
    block[2 * PAGE : 6 * PAGE] = bytes(range(256)) * (4 * PAGE // 256)
    block[9 * PAGE : 9 * PAGE + 4] = b"nine"
    half = SIZE // 2
    start = ctypes.addressof(ctypes.c_char.from_buffer(block))
    extents = [Extent(1 << 20, half, start), Extent(FOUR_GIB, half, start + half)]
    block[half : half + 4] = b"high"
    with contextlib.closing(ram.open_at(os.getpid(), extents)) as opened:
        assert ("memfd" if request.param == "memfd" else "process") == opened.kind
        yield opened, block
    if fd >= 0:
        os.close(fd)


def test_reads_are_by_guest_physical_address(memory: tuple[Ram, mmap.mmap]) -> None:
    """Across pages; None where there is no memory, or any of it was never touched."""
    opened, block = memory
    base = 1 << 20
    assert block[2 * PAGE + 5 : 4 * PAGE] == opened.read(base + 2 * PAGE + 5, 2 * PAGE - 5)
    assert b"nine" == opened.read(base + 9 * PAGE, 4)
    assert b"high" == opened.read(FOUR_GIB, 4)
    assert b"" == opened.read(base + 2 * PAGE, 0)
    for address, size in [(0, 8), (base - 4, 8), (base, 8), (base + 6 * PAGE - 4, 8), (base + SIZE // 2 - 4, 8), (FOUR_GIB + SIZE, 8)]:
        assert opened.read(address, size) is None
    for address, size in [(-1, 8), (base, -1), (1 << 64, 8), (base + 2 * PAGE, 1 << 40)]:
        assert opened.read(address, size) is None


def test_reading_allocates_nothing(memory: tuple[Ram, mmap.mmap]) -> None:
    """Every page of the block is asked for; none that was untouched comes into being."""
    opened, _ = memory
    before = list(opened.touched())
    for extent in opened.extents():
        for address in range(extent.start, extent.end, PAGE):
            opened.read(address, PAGE)
    base = 1 << 20
    assert before == list(opened.touched())
    touched = [(start, size) for start, size in before if start < FOUR_GIB]
    assert [(base + 2 * PAGE, 4 * PAGE), (base + 9 * PAGE, PAGE)] == touched


def test_touched_ranges_can_be_asked_for_in_parts(memory: tuple[Ram, mmap.mmap]) -> None:
    opened, _ = memory
    base = 1 << 20
    assert [(base + 3 * PAGE, 2 * PAGE)] == list(opened.touched(base + 3 * PAGE, base + 5 * PAGE))
    assert [] == list(opened.touched(0, base))


def test_a_shared_file_is_given_on() -> None:
    """What another process needs: the descriptor and the extents, whose positions are the file's offsets."""
    fd = os.memfd_create("ram")
    os.ftruncate(fd, SIZE)
    block = mmap.mmap(fd, SIZE)
    block[:4] = b"zero"
    start = ctypes.addressof(ctypes.c_char.from_buffer(block))
    with contextlib.closing(ram.open_at(os.getpid(), [Extent(0, SIZE, start)])) as opened:
        assert opened.fd is not None
        assert (Extent(0, SIZE, 0),) == opened.extents()
        with contextlib.closing(Ram.of_file(os.dup(opened.fd), opened.extents())) as again:
            assert b"zero" == again.read(0, 4)
    os.close(fd)


def test_memory_that_is_not_mapped_is_an_error() -> None:
    with pytest.raises(Unsupported):
        ram.open_at(os.getpid(), [Extent(0, PAGE, 0x1000)])
    with pytest.raises(NoSuchTarget):
        ram.open_at(1 << 22, [Extent(0, PAGE, 0x1000)])


def test_the_monitors_layout_leaves_devices_out() -> None:
    """The BIOS area is shown as rom, and belongs to the block all the same."""
    asked = []

    def hmp(command: str) -> str:
        asked.append(command)
        return MTREE if command == "info mtree -f" else "Host virtual address for 0x0 (ram 0) is 0x7f0000000000\n"

    base = 0x7F0000000000
    expected = (
        Extent(0, 0xA0000, base),
        Extent(0xC0000, 0xC0000000 - 0xC0000, base + 0xC0000),
        Extent(FOUR_GIB, GIB, base + 0xC0000000),
    )
    assert expected == layout.from_monitor(hmp)
    assert ["info mtree -f", "gpa2hva 0x0"] == asked


@pytest.mark.parametrize(
    ("machine", "size", "low"),
    [
        ("pc", 2 * GIB, 2 * GIB),
        ("pc-i440fx-7.2", 4 * GIB, 0xC000_0000),
        ("", 0xD000_0000, 0xD000_0000),
        ("q35", 2 * GIB, 2 * GIB),
        ("pc-q35-9.0", 4 * GIB, 0x8000_0000),
        ("microvm", 8 * GIB, 0xC000_0000),
        ("isapc2", GIB, None),
    ],
)
def test_a_plain_machine_is_split_below_4_gib(machine: str, size: int, low: int | None) -> None:
    assert low == layout.low_memory(machine, size)


def test_a_layout_is_parsed_as_written() -> None:
    assert (Extent(0, 0x1000, 0x7F00), Extent(FOUR_GIB, 0x2000, 0x9F00)) == layout.parse("0x100000000:0x2000@0x9f00, 0x0:0x1000@0x7f00")


@pytest.mark.parametrize("text", ["", "0x0", "0x0:0x0@0x0", "0x0:0x2000@0x1,0x1000:0x1000@0x9", "0:1@2", "0xffffffffffffffff:0x1000@0x0"])
def test_a_layout_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        layout.parse(text)


@given(st.lists(st.tuples(*[st.integers(-1, 1 << 53)] * 3), max_size=6))
def test_joined_extents_are_sorted_apart_and_complete(parts: list[tuple[int, int, int]]) -> None:
    with contextlib.suppress(BadInput):
        extents = layout.joined(Extent(*part) for part in parts)
        assert sum(part[1] for part in parts) == sum(extent.size for extent in extents)
        assert all(one.end <= two.start for one, two in itertools.pairwise(extents))


def mapping(start: int, size: int, path: str = "", *, shared: bool = False) -> Mapping:
    return Mapping(start, start + size, readable=True, writable=True, executable=False, offset=0, path=path, shared=shared)


def test_unknown_vmms_are_guessed_by_their_largest_mappings() -> None:
    """One from 0; two when the first is as large as Firecracker or cloud-hypervisor make the part below 4 GiB; a small one is none."""
    heap = mapping(0x1000, GIB, "[heap]")
    assert (Extent(0, GIB, 0x5000_0000_0000),) == layout.guessed([heap, mapping(0x5000_0000_0000, GIB), mapping(0x6000_0000_0000, 1 << 25)])
    both = [mapping(0x5000_0000_0000, 3 * GIB), mapping(0x6000_0000_0000, 5 * GIB)]
    assert (Extent(0, 3 * GIB, 0x5000_0000_0000), Extent(FOUR_GIB, 5 * GIB, 0x6000_0000_0000)) == layout.guessed(both)
    assert () == layout.guessed([mapping(0x5000_0000_0000, 1 << 20)])


def test_memory_is_found_by_its_size_only_when_that_is_one_mapping() -> None:
    one, two = mapping(0x5000_0000_0000, GIB), mapping(0x6000_0000_0000, GIB)
    assert one == layout.by_size([one, mapping(0x7000_0000_0000, PAGE)], GIB)
    assert layout.by_size([one, two], GIB) is None


def test_blocks_lie_one_after_the_other_around_the_hole() -> None:
    """The block that reaches over its beginning is two parts; a machine type that is not known has none."""
    blocks = (Block("a", GIB), Block("b", 2 * GIB), Block("c", GIB))
    assert (
        Extent(0, GIB, 0x1000_0000_0000),
        Extent(GIB, GIB, 0x3000_0000_0000),
        Extent(FOUR_GIB, GIB, 0x3000_0000_0000 + GIB),
        Extent(FOUR_GIB + GIB, GIB, 0x2000_0000_0000),
    ) == Plan("q35", blocks).extents((0x1000_0000_0000, 0x3000_0000_0000, 0x2000_0000_0000))
    assert (Extent(0, GIB, 0),) == Plan("pc", blocks[:1]).extents((0,))
    assert () == Plan("raspi3b", blocks).extents((0, 0, 0))


class RamBlock:
    """What begins a struct RAMBlock of QEMU, on the heap."""

    def __init__(self, name: bytes, host: int, size: int) -> None:
        """A block with that name, at that address, of that size."""
        self.libc = ctypes.CDLL(None)
        self.libc.malloc.restype = ctypes.c_void_p
        self.address = self.libc.malloc(ctypes.c_size_t(400))
        data = struct.pack("<3Q Q 2Q 2Q Q I", 0, 0, 0, host, 0, 0, size, size, 0, 0) + name
        ctypes.memset(self.address, 0, 400)
        ctypes.memmove(self.address, data, len(data))

    def free(self) -> None:
        """Give it back, without a trace."""
        ctypes.memset(self.address, 0, 400)
        self.libc.free(ctypes.c_void_p(self.address))


def test_blocks_are_found_in_the_lists_of_their_process() -> None:
    """Those of one size are told apart by their names; a name without a mapping's address, or with two, is not believed."""
    one, two = Block("unspool-node0", 1 << 20), Block("unspool-node1", 1 << 20)
    with mmap.mmap(-1, 1 << 20) as first, mmap.mmap(-1, 1 << 20) as second:
        places = [ctypes.addressof(ctypes.c_char.from_buffer(memory)) for memory in (first, second)]
        found = [RamBlock(b"unspool-node0", places[0], 1 << 20), RamBlock(b"/objects/unspool-node1", places[1], 1 << 20)]
        try:
            pid = os.getpid()
            found.append(RamBlock(b"unspool-node0", 0x10, 1 << 20))
            found.append(RamBlock(b"unspool-node0", places[1], 2 << 20))
            assert tuple(places) == ram_blocks.addresses(pid, mappings_of(pid), (one, two))
            assert tuple(places[::-1]) == ram_blocks.addresses(pid, mappings_of(pid), (two, one))
            assert () == ram_blocks.addresses(pid, mappings_of(pid), (one, Block("unspool-node2", 1 << 20)))
            found.append(RamBlock(b"unspool-node0", places[1], 1 << 20))
            assert () == ram_blocks.addresses(pid, mappings_of(pid), (one, two))
        finally:
            for block in found:
                block.free()
    assert () == ram_blocks.addresses(1 << 22, [], (one,))
