"""Files out of a guest's page cache: trees of every height, folios of several pages, and what is not there."""

from __future__ import annotations

import random

import pytest
from guest.fake_kernel import DIRECT_MAP, MEMORY_STRUCTS, VMEMMAP, FakeKernel

from unspool.formats.paging import PAGE
from unspool.targets.guest.page_cache import GuestFile, PageCache

SHADOW = 0x1235
"""What a tree holds for a page that was there once (xa_is_value)."""


def setting() -> tuple[FakeKernel, PageCache, int]:
    """A kernel, its page cache, and the `struct address_space` of one file."""
    kernel = FakeKernel()
    return kernel, PageCache(kernel.memory, MEMORY_STRUCTS, VMEMMAP), kernel.take(64)


def file(pages: int, size: int = 100 * PAGE) -> GuestFile:
    return GuestFile(pages, "/bin/x", deleted=False, device=(8, 1), inode=7, size=size)


def letter(number: int) -> bytes:
    return bytes([65 + number]) * PAGE


def test_a_file_of_one_page_has_no_node() -> None:
    kernel, cache, pages = setting()
    kernel.put(pages, kernel.cached(pages, 0, b"hello"))
    assert b"hello" == cache.read(file(pages, 5), 0, 5)
    assert b"hello" == cache.whole(file(pages, 5))
    assert cache.page(file(pages), 1) is None


def test_pages_are_found_in_trees_of_any_height() -> None:
    kernel, cache, pages = setting()
    low = kernel.xa_node(0, {number: kernel.cached(pages, number, letter(number)) for number in (0, 3, 63)})
    far = kernel.xa_node(0, {1: kernel.cached(pages, 64 * 5 + 1, letter(9))})
    middle = kernel.xa_node(6, {0: low, 5: far})
    for top in (middle, kernel.xa_node(12, {0: middle})):
        kernel.put(pages, top)
        found = [None if (page := cache.page(file(pages, 1 << 30), index)) is None else page[:1] for index in (0, 1, 3, 63, 64, 321, 4096)]
        assert [b"A", None, b"D", b"\x80", None, b"J", None] == found
        assert cache.page(file(pages, 1 << 60), 1 << 40) is None


def test_reads_cross_pages_and_end_at_the_files_end() -> None:
    kernel, cache, pages = setting()
    kernel.put(pages, kernel.xa_node(0, {number: kernel.cached(pages, number, letter(number)) for number in range(3)}))
    of = file(pages, 2 * PAGE + 10)
    assert b"AB" == cache.read(of, PAGE - 1, 2)
    assert 2 * PAGE + 10 == len(cache.whole(of) or b"")
    assert cache.read(of, 2 * PAGE, 11) is None
    assert cache.read(of, -1, 4) is None
    assert [True, True, True, False] == [page is not None for page in cache.piece(of, 0, 4)]


def test_a_large_folio_holds_many_pages() -> None:
    """Its slots point at the first of them, and its pages follow each other in memory."""
    kernel, cache, pages = setting()
    folio = kernel.cached(pages, 4, letter(0))
    for number in range(1, 4):
        kernel.page(letter(number))
    sibling = 4 << 2 | 2
    kernel.put(pages, kernel.xa_node(0, {4: folio, 5: sibling, 6: sibling, 7: sibling}))
    assert [b"A", b"B", b"C", b"D"] == [(cache.page(file(pages), index) or b"")[:1] for index in range(4, 8)]


@pytest.mark.parametrize("entry", [0, SHADOW, 0x402, 2, DIRECT_MAP, 8, (1 << 64) - 2])
def test_what_is_no_page_is_not_there(entry: int) -> None:
    kernel, cache, pages = setting()
    kernel.put(pages, entry)
    assert cache.page(file(pages), 0) is None
    kernel.put(pages, kernel.xa_node(0, {0: entry}))
    assert cache.page(file(pages), 0) is None


@pytest.mark.parametrize("words", [(0, 0), (4, 9), (4, 1)], ids=["not up to date", "another place", "another file"])
def test_a_page_that_is_not_the_files_any_more_is_not_there(words: tuple[int, int]) -> None:
    kernel, cache, pages = setting()
    folio = kernel.cached(pages, 0, b"hello")
    kernel.put(pages, folio)
    kernel.put(folio, *words, pages + 8 * (words == (4, 1)))
    assert cache.page(file(pages), 0) is None


def test_a_tree_that_leads_to_itself_ends() -> None:
    kernel, cache, pages = setting()
    node = kernel.xa_node(6, {})
    kernel.put(node - 2 + 40, node)
    kernel.put(pages, node)
    assert cache.page(file(pages), 0) is None


def test_flipped_bits_never_raise() -> None:
    kernel, cache, pages = setting()
    low = kernel.xa_node(0, {number: kernel.cached(pages, number, letter(number)) for number in range(8)})
    kernel.put(pages, kernel.xa_node(6, {0: low}))
    whole, chance = bytes(kernel.ram.data), random.Random(2)
    places = [at for at in range(PAGE, kernel.used) if whole[at] and not 65 <= whole[at] <= 72]
    for _ in range(400):
        kernel.ram.data[:] = whole
        for _ in range(chance.randrange(1, 12)):
            kernel.ram.data[chance.choice(places)] ^= 1 << chance.randrange(8)
        kernel.memory.forget()
        for index in range(10):
            page = cache.page(file(pages), index)
            assert page is None or PAGE == len(page)
