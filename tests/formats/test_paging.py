"""Page tables of x86-64: where an address lies, and that no table makes a walk endless."""

from __future__ import annotations

import pytest
from formats.paging_bytes import HUGE, LARGE, NO_EXECUTE, PAGE, USER, WRITABLE, Damaged, FakeRam, TableWriter
from hypothesis import given
from hypothesis import strategies as st

from unspool.formats.paging import MAX_READ, MAX_TABLES, PageTables, Region, Translation

ROOT = 0x10000
TOP = 0xFFFF_FFFF_8000_0000


def writer(levels: int = 4) -> TableWriter:
    return TableWriter(FakeRam(), ROOT, ROOT + PAGE, levels=levels)


def tables(made: TableWriter) -> PageTables:
    return PageTables(made.ram, made.root, made.levels)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("size", [PAGE, LARGE, HUGE])
def test_an_address_in_a_page_of_each_size_is_found(levels: int, size: int) -> None:
    made = writer(levels)
    made.map(TOP, 0x40000000, size)
    found = tables(made)
    assert Translation(0x40000000 + 0xABC, size, writable=True, user=False, executable=True) == found.translate(TOP + 0xABC)
    last = found.translate(TOP + size - 1)
    assert last is not None
    assert 0x40000000 + size - 1 == last.pa
    assert found.translate(TOP + size) is None


def test_rights_are_those_of_every_level() -> None:
    """A page may do what all the tables above it allow; NX at any level forbids execution."""
    made = writer()
    made.map(0x400000, 0x5000, rights=USER)
    made.map(0x401000, 0x6000, rights=USER | WRITABLE | NO_EXECUTE)
    found = tables(made)
    assert Translation(0x5000, PAGE, writable=False, user=True, executable=True) == found.translate(0x400000)
    assert Translation(0x6000, PAGE, writable=True, user=True, executable=False) == found.translate(0x401000)
    top = made.ram.word(ROOT)
    made.ram.write(ROOT, (top & ~USER & ~WRITABLE | NO_EXECUTE).to_bytes(8, "little"))
    found.forget()
    assert Translation(0x6000, PAGE, writable=False, user=False, executable=False) == found.translate(0x401000)


def test_tables_are_kept_until_they_are_forgotten() -> None:
    made = writer()
    made.map(TOP, 0x5000)
    found = tables(made)
    found.translate(TOP)
    made.map(TOP, 0x7000)
    before = found.translate(TOP)
    found.forget()
    after = found.translate(TOP)
    assert before is not None
    assert after is not None
    assert (0x5000, 0x7000) == (before.pa, after.pa)


@pytest.mark.parametrize(("levels", "address"), [(4, 1 << 47), (4, -1), (4, 1 << 64), (4, 0xFF11_0000_0000_0000), (5, 1 << 56)])
def test_an_address_that_is_not_canonical_is_not_mapped(levels: int, address: int) -> None:
    made = writer(levels)
    for index in range(512):
        made.ram.write(ROOT + 8 * index, (ROOT | 3).to_bytes(8, "little"))
    assert tables(made).translate(address) is None


def test_a_large_page_bit_in_a_table_of_512_gib_maps_nothing() -> None:
    made = writer()
    made.ram.write(ROOT, (0x83).to_bytes(8, "little"))
    assert tables(made).translate(0x1000) is None
    assert [] == list(tables(made).regions(0, 1 << 39))


def test_a_read_crosses_pages_that_lie_apart() -> None:
    made = writer()
    made.map(TOP, 0x30000)
    made.map(TOP + PAGE, 0x20000)
    made.ram.write(0x30000 + PAGE - 2, b"ab")
    made.ram.write(0x20000, b"cd")
    found = tables(made)
    assert b"abcd" == found.read(TOP + PAGE - 2, 4)
    assert b"" == found.read(TOP, 0)
    assert found.read(TOP + 2 * PAGE - 2, 4) is None, "the next page is not mapped"
    assert found.read(TOP, MAX_READ + 1) is None
    assert found.read(TOP, -1) is None


def test_regions_join_what_is_contiguous_and_alike() -> None:
    made = writer()
    for page in range(3):
        made.map(TOP + page * PAGE, 0x100000 + page * PAGE)
    made.map(TOP + 3 * PAGE, 0x100000 + 3 * PAGE, rights=0)
    made.map(TOP + 4 * PAGE, 0x900000)
    made.map(TOP + 6 * PAGE, 0x902000)
    made.map(TOP + LARGE, 0x800000, LARGE)
    made.map(TOP + 2 * LARGE, 0x800000 + LARGE, LARGE)
    expected = [
        Region(TOP, 3 * PAGE, 0x100000, writable=True, user=False, executable=True),
        Region(TOP + 3 * PAGE, PAGE, 0x103000, writable=False, user=False, executable=True),
        Region(TOP + 4 * PAGE, PAGE, 0x900000, writable=True, user=False, executable=True),
        Region(TOP + 6 * PAGE, PAGE, 0x902000, writable=True, user=False, executable=True),
        Region(TOP + LARGE, 2 * LARGE, 0x800000, writable=True, user=False, executable=True),
    ]
    assert expected == list(tables(made).regions(TOP, TOP + (1 << 30)))
    assert [Region(TOP + PAGE, PAGE, 0x101000, writable=True, user=False, executable=True)] == list(
        tables(made).regions(TOP + PAGE, TOP + 2 * PAGE)
    )


def test_tables_that_hold_themselves_come_to_an_end() -> None:
    made = writer()
    for index in range(512):
        made.ram.write(ROOT + 8 * index, (ROOT | 3).to_bytes(8, "little"))
    found = PageTables(made.ram, ROOT)
    assert found.translate(TOP) is not None, "the table is read as a page of its own"
    runs = 0
    for runs, _ in enumerate(found.regions(0, 1 << 34), 1):  # noqa: B007 - counted
        pass
    assert 0 < runs <= MAX_TABLES * 512


def test_a_table_in_a_hole_maps_nothing() -> None:
    made = writer()
    made.map(TOP, 0x5000)
    hole = Damaged(made.ram, {}, frozenset({(ROOT + PAGE) // PAGE}))
    assert PageTables(hole, ROOT).translate(TOP) is None
    assert [] == list(PageTables(hole, ROOT).regions(TOP, TOP + LARGE))
    assert PageTables(FakeRam(), 1 << 60).translate(TOP) is None


@given(
    st.lists(st.integers(0, (1 << 64) - 1), min_size=8, max_size=8),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([4, 5]),
    st.integers(0, 3 * PAGE),
)
def test_any_tables_give_an_answer(entries: list[int], address: int, levels: int, size: int) -> None:
    """All memory is the same page of any entries: every table leads anywhere, and most is mapped."""
    ram = FakeRam()
    content = b"".join(entry.to_bytes(8, "little") for entry in entries) * 64
    for page in range(8):
        ram.write(page * PAGE, content)
    found = PageTables(ram, 0, levels)
    where = found.translate(address)
    assert where is None or 0 <= where.pa < 1 << 52
    data = found.read(address, size)
    assert data is None or len(data) == size


def test_all_that_a_kernel_can_have_is_within_the_limit() -> None:
    """1 GiB mapped page by page, each elsewhere."""
    made = writer()
    for table in range(512):
        made.map(TOP + table * LARGE, 0)
        made.map(TOP + table * LARGE + LARGE - PAGE, 0)
    runs = list(tables(made).regions(TOP, TOP + HUGE))
    assert 1024 == len(runs)
    assert TOP + HUGE - PAGE == runs[-1].start
