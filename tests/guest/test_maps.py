"""What is mapped into a guest's process: maple trees of every shape, paths across mounts, and trees that are damaged."""

from __future__ import annotations

import random

import pytest
from guest.fake_kernel import DIRECT_MAP, MEMORY_STRUCTS, FakeKernel

from unspool.formats.paging import PAGE
from unspool.targets.guest.maps import Maps

LEAF, RANGE, ARANGE = 1, 2, 3
TOP = (1 << 64) - 1
READ, WRITE, EXEC, SHARED = 1, 2, 4, 8


def place(number: int) -> tuple[int, int]:
    """The range of the test's mapping of that number."""
    return 0x400000 + 0x10000 * number, 0x400000 + 0x10000 * number + 0x4000


def leaf(kernel: FakeKernel, numbers: range, last: int) -> int:
    """A leaf with those mappings and the gaps before them; its range ends at `last`."""
    entries = []
    for number in numbers:
        start, end = place(number)
        entries += [(start - 1, 0), (end - 1, kernel.vma(start, end))]
    return kernel.maple_node(LEAF, [*entries, (last, 0)] if len(entries) < 16 else entries)


def process(kernel: FakeKernel, root: int) -> int:
    mm = kernel.take(256)
    kernel.put(mm + MEMORY_STRUCTS.tree + MEMORY_STRUCTS.tree_root, root)
    return mm


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


def tall(kernel: FakeKernel, count: int) -> int:
    """A process with that many mappings, seven a leaf, nine leaves a node, two nodes at the top."""
    leaves = []
    for first in range(0, count, 7):
        last = place(first + 7)[0] - 2 if first + 7 < count else TOP
        leaves.append((last, leaf(kernel, range(first, min(first + 7, count)), last)))
    nodes = [(part[-1][0], kernel.maple_node(ARANGE, part)) for part in (leaves[at : at + 9] for at in range(0, len(leaves), 9))]
    return process(kernel, nodes[0][1] if len(nodes) == 1 else kernel.maple_node(RANGE, nodes))


@pytest.mark.parametrize("count", [1, 7, 8, 60, 100])
def test_every_mapping_is_found_in_order(kernel: FakeKernel, count: int) -> None:
    maps, mm = Maps(kernel.memory, MEMORY_STRUCTS), tall(kernel, count)
    assert [place(number) for number in range(count)] == [(vma.start, vma.end) for vma in maps.vmas(mm)]


def test_one_mapping_is_found_by_its_address(kernel: FakeKernel) -> None:
    maps, mm = Maps(kernel.memory, MEMORY_STRUCTS), tall(kernel, 100)
    for number in (0, 6, 7, 41, 99):
        start, end = place(number)
        found = [maps.find(mm, address) for address in (start - 1, start, end - 1, end)]
        assert [None, start, start, None] == [None if vma is None else vma.start for vma in found]


def test_a_mapping_says_what_it_shows_and_allows(kernel: FakeKernel) -> None:
    mount = kernel.mount()
    folder = kernel.dentry(b"lib", kernel.root_of(mount))
    file, pages = kernel.file(mount, kernel.dentry(b"libx.so", folder), 3 * PAGE, number=42, device=259 << 20 | 3)
    vma = kernel.vma(0x400000, 0x402000, flags=READ | EXEC, page=5, file=file)
    space, files = Maps(kernel.memory, MEMORY_STRUCTS).space(process(kernel, vma))
    (mapping,) = space
    assert ("/lib/libx.so", 5 * PAGE, (259, 3), 42) == (mapping.path, mapping.offset, mapping.device, mapping.inode)
    assert (True, False, True, False, False) == (
        mapping.readable, mapping.writable, mapping.executable, mapping.shared, mapping.deleted,
    )  # fmt: skip
    assert (pages, 3 * PAGE) == (files[0x400000].pages, files[0x400000].size)


def test_a_path_goes_through_mounts(kernel: FakeKernel) -> None:
    """At the root of a mount it goes on where that is mounted."""
    outer, inner = kernel.mount(), kernel.mount()
    point = kernel.dentry(b"mnt", kernel.root_of(outer))
    kernel.put(inner, outer, point)
    file, _ = kernel.file(inner, kernel.dentry(b"x", kernel.root_of(inner)), PAGE)
    found = Maps(kernel.memory, MEMORY_STRUCTS).file(file)
    assert found is not None
    assert "/mnt/x" == found.path


def test_a_deleted_file_says_so_and_odd_names_stay_readable(kernel: FakeKernel) -> None:
    mount = kernel.mount()
    file, _ = kernel.file(mount, kernel.dentry(b"a\xffb", kernel.root_of(mount), deleted=True), PAGE)
    found = Maps(kernel.memory, MEMORY_STRUCTS).file(file)
    assert found is not None
    assert ("/a\\xffb", True) == (found.path, found.deleted)


def test_special_mappings_have_the_names_of_proc_maps(kernel: FakeKernel) -> None:
    at = MEMORY_STRUCTS
    starts = [place(number)[0] for number in range(4)]
    area = kernel.take(64)
    mm = tall(kernel, 5)
    kernel.put(area, starts[3])
    for offset, value in ((at.vdso, starts[0]), (at.start_stack, starts[1] + 80), (at.start_brk, starts[2]), (at.brk, starts[2] + 8)):
        kernel.put(mm + offset, value)
    kernel.put(mm + (at.xol_area or 0), area)
    space, _ = Maps(kernel.memory, MEMORY_STRUCTS).space(mm)
    assert ["[vdso]", "[stack]", "[heap]", "[uprobes]", ""] == [mapping.path for mapping in space]


class TestHostile:
    """Trees and paths of a guest that lies."""

    @pytest.mark.parametrize("root", [0, 2, 6, 0x1000, DIRECT_MAP | 6, (1 << 64) - 1, (1 << 64) - 2])
    def test_a_root_that_is_none_has_no_mappings(self, kernel: FakeKernel, root: int) -> None:  # noqa: D102
        mm = process(kernel, root)
        assert [] == Maps(kernel.memory, MEMORY_STRUCTS).vmas(mm)
        assert Maps(kernel.memory, MEMORY_STRUCTS).find(mm, 0x400000) is None

    def test_a_node_that_is_its_own_child_ends(self, kernel: FakeKernel) -> None:  # noqa: D102
        node = kernel.maple_node(RANGE, [])
        address = node & ~0xFF
        for slot in range(16):
            kernel.put(address + 128 + 8 * slot, node)
            kernel.put(address + 8 + 8 * slot, 0x1000 * (slot + 1)) if slot < 15 else None
        assert [] == Maps(kernel.memory, MEMORY_STRUCTS).vmas(process(kernel, node))

    def test_a_path_that_goes_in_circles_ends(self, kernel: FakeKernel) -> None:  # noqa: D102
        mount = kernel.mount()
        first = kernel.dentry(b"a", 0)
        second = kernel.dentry(b"b", first)
        kernel.put(first, second)
        found = Maps(kernel.memory, MEMORY_STRUCTS).file(kernel.file(mount, second, PAGE)[0])
        assert found is not None
        assert len(found.path) <= 4096

    def test_flipped_bits_never_raise(self, kernel: FakeKernel) -> None:  # noqa: D102
        mm = tall(kernel, 30)
        mount = kernel.mount()
        file, _ = kernel.file(mount, kernel.dentry(b"x", kernel.root_of(mount)), PAGE)
        maps = Maps(kernel.memory, MEMORY_STRUCTS)
        for vma in maps.vmas(mm)[:3]:
            assert vma.file == 0
        whole, chance = bytes(kernel.ram.data), random.Random(4)
        places = [at for at in range(PAGE, kernel.used) if whole[at]]
        for _ in range(200):
            kernel.ram.data[:] = whole
            for _ in range(chance.randrange(1, 12)):
                kernel.ram.data[chance.choice(places)] ^= 1 << chance.randrange(8)
            kernel.memory.forget()
            space, _ = maps.space(mm)
            assert list(space.starts) == sorted(space.starts)
            maps.find(mm, 0x420000)
            maps.file(file)
