from __future__ import annotations

import ctypes
import mmap
import os

import pytest

from unspool.errors import NoSuchTarget
from unspool.targets.process import Process, ProcessMemory

PAGE = mmap.PAGESIZE


@pytest.fixture
def pages() -> mmap.mmap:
    """Four pages of this process, the bytes counting up."""
    memory = mmap.mmap(-1, 4 * PAGE)
    memory.write(bytes(index % 251 for index in range(4 * PAGE)))
    return memory


def address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


@pytest.mark.parametrize(("start", "size"), [(0, 8), (PAGE - 4, 8), (PAGE, PAGE), (1, 2 * PAGE), (5, 3 * PAGE), (0, 4 * PAGE), (7, 0)])
def test_a_read_gives_the_bytes_across_pages(pages: mmap.mmap, start: int, size: int) -> None:
    assert pages[start : start + size] == ProcessMemory(os.getpid()).read(address_of(pages) + start, size)


def test_what_cannot_be_read_is_none() -> None:
    memory = ProcessMemory(os.getpid())
    for address, size in ((0, 1), (0, 3 * PAGE), (2**64 - 1, 1), (2**64 - 1, 2), (-1, 4), (2**65, 8), (PAGE, 1 << 40), (8, -1)):
        assert memory.read(address, size) is None


def test_pages_are_kept_until_forgotten(pages: mmap.mmap) -> None:
    memory = ProcessMemory(os.getpid())
    before = memory.read(address_of(pages), 4)
    pages[0:4] = b"new!"
    assert before == memory.read(address_of(pages), 4)
    memory.forget()
    assert b"new!" == memory.read(address_of(pages), 4)


def test_a_process_that_is_not_there_is_an_error_with_a_hint() -> None:
    with pytest.raises(NoSuchTarget, match="there is no process 4194305") as caught:
        Process(2**22 + 1)
    assert caught.value.hint


def test_a_process_shows_its_mappings_and_entry_points() -> None:
    process = Process(os.getpid()).refresh()
    assert process.ends.process is not None
    assert process.ends.initial_sp is not None
    entry, stack = process.space.find(process.ends.process), process.space.find(process.ends.initial_sp)
    assert entry is not None
    assert entry.executable
    assert stack is not None
    assert "[stack]" == stack.path
    if process.ends.interpreter is not None:
        loader = process.space.find(process.ends.interpreter)
        assert loader is not None
        assert loader.executable


def test_refreshing_what_did_not_change_keeps_the_very_same_mappings() -> None:
    process = Process(os.getpid()).refresh()
    space, generation = process.space, process.generation
    other = mmap.mmap(-1, 64 * PAGE, prot=mmap.PROT_READ)
    assert process.refresh().generation > generation
    assert process.space is not space
    other.close()
