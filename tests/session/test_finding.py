from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.session.finding import Definition, Finder, Unsearched, _checked_ranges
from unspool.session.naming import Place
from unspool.symbols.worker import ParserDied
from unspool.targets.process import Process


def find(function: str, module: str | None = None) -> list[Definition | Unsearched]:
    """What is found of a function in this very process."""
    return Finder(function, module).find(os.getpid(), Process(os.getpid()).refresh().space)


def definitions(function: str, module: str | None = None) -> list[Definition]:
    return [one for one in find(function, module) if isinstance(one, Definition)]


def test_a_function_is_found_where_the_dynamic_linker_finds_it() -> None:
    address = ctypes.cast(ctypes.CDLL(None).qsort, ctypes.c_void_p).value
    assert address is not None
    mapping = Process(os.getpid()).refresh().space.find(address)
    assert mapping is not None
    [found] = definitions("qsort")
    assert mapping.path == found.module
    assert found.holds(Place(found.module, mapping.file_offset(address), found.key))
    assert not found.holds(Place(found.module, None, found.key))


def test_a_module_is_meant_by_its_path_or_by_its_last_part() -> None:
    [found] = definitions("qsort")
    for module in (found.module, Path(found.module).name):
        assert [found] == definitions("qsort", module)
    assert [] == definitions("qsort", "no-such-module.so")


def test_a_function_that_is_nowhere_is_not_found() -> None:
    assert [] == definitions("there_is_no_function_of_this_name")


def test_a_file_that_is_no_program_hides_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.so"
    garbage.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 64)
    with garbage.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC):
        found = find("qsort")
    assert [str(garbage)] == [one.module for one in found if isinstance(one, Unsearched)]
    assert 1 == sum(isinstance(one, Definition) for one in found)


def test_a_file_is_searched_once() -> None:
    finder = Finder("qsort")
    space = Process(os.getpid()).refresh().space
    first = finder.find(os.getpid(), space)
    gone = 2**22 + 1
    assert first == finder.find(gone, space)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.sampled_from(["ranges", "x"]), children),
        max_leaves=8,
    )
)
def test_whatever_a_worker_answers_becomes_ranges_or_its_death(answer: object) -> None:
    try:
        ranges = _checked_ranges(answer)
    except ParserDied:
        return
    assert all(0 <= start <= end for start, end in ranges)


@pytest.mark.parametrize("ranges", [[[2, 1]], [[-1, 1]], [[0, 2**70]], [[0, 1, 2]], [[True, 1]], [["0", "1"]], [[0.0, 1.0]], "ab"])
def test_ranges_that_are_none_are_refused(ranges: object) -> None:
    with pytest.raises(ParserDied):
        _checked_ranges({"ranges": ranges})
