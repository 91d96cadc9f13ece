"""An address space answers for the instant it is asked about, whatever was mapped over it since."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unspool.capture.regions import DEAD_REGIONS, FileIdentity, Region, Space, identity

PAGE = 0x1000


def region(path: str, start: int, end: int, *, born: int = 1, offset: int = 0) -> Region:
    """Pages [start, end) of a file."""
    return Region(start * PAGE, end * PAGE, offset * PAGE, FileIdentity(path, "file", path), born)


def space(*regions: Region) -> Space:
    made = Space(0)
    for one in regions:
        made.map(one)
    return made


def path_at(made: Space, page: int, time_ns: int) -> str | None:
    found = made.find(page * PAGE, time_ns)
    return None if found is None else found.file.path


def test_a_mapping_over_the_middle_of_another_leaves_both_its_ends() -> None:
    made = space(region("old", 10, 20), region("new", 13, 15, born=5))
    assert ["old", "old", "new", "new", "old", "old"] == [path_at(made, page, 9) for page in (10, 12, 13, 14, 15, 19)]
    assert 5 * PAGE == made.find(15 * PAGE, 9).file_offset(15 * PAGE)


def test_before_the_new_mapping_its_addresses_were_the_old_ones() -> None:
    made = space(region("old", 10, 20), region("new", 5, 30, born=5))
    assert ["old", "new"] == [path_at(made, 12, time_ns) for time_ns in (4, 5)]


def test_an_address_where_nothing_older_was_is_of_the_younger_mapping() -> None:
    """The kernel tells of a mapping a little after it can be used."""
    assert "new" == path_at(space(region("new", 5, 6, born=5)), 5, 4)


def test_nothing_is_found_outside() -> None:
    made = space(region("one", 10, 20), region("two", 30, 40))
    assert [None, None, None] == [path_at(made, page, 9) for page in (9, 20, 40)]


def test_the_same_bytes_mapped_again_change_nothing() -> None:
    """The loader changes protections, and neighbours of one file are merged: each is told as a new mapping."""
    made = space(region("one", 10, 20))
    made.frames[1] = 1
    made.map(region("one", 8, 14, born=5, offset=-2))
    assert {1: 1} == made.frames
    assert ["one", "one"] == [path_at(made, page, 2) for page in (8, 19)]
    assert 9 * PAGE == made.find(19 * PAGE, 9).file_offset(19 * PAGE)


def test_what_was_worked_out_is_forgotten_when_an_address_changes_its_meaning() -> None:
    made = space(region("one", 10, 20))
    made.frames[1] = made.stacks[b"1"] = 1
    made.map(region("two", 19, 21, born=7))
    assert ({}, {}, 7) == (made.frames, made.stacks, made.changed_ns)


def test_a_child_has_the_parents_mappings_until_it_makes_its_own() -> None:
    parent = space(region("one", 10, 20))
    child = Space(3)
    child.inherit(parent)
    child.map(region("two", 10, 20, born=4))
    assert ("one", "two") == (path_at(parent, 10, 9), path_at(child, 10, 9))


def test_only_so_many_old_regions_are_kept() -> None:
    made = space(*(region(str(n), 1, 2, born=n) for n in range(DEAD_REGIONS + 10)))
    assert (1, DEAD_REGIONS) == (len(made), len(made._dead))


def test_memory_without_a_file_has_one_name() -> None:
    names = [identity(path, "", (0, 0), 0, deleted=False).path for path in ("", "//anon", "[heap]", "[vdso]", "/a")]
    assert ["[anon]", "[anon]", "[heap]", "[vdso]", "/a"] == names


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.sampled_from("abc")), max_size=25))
def test_it_equals_a_page_table(steps: list[tuple[int, int, str]]) -> None:
    """Whatever is mapped over what: each page, at each time, shows what was mapped there last."""
    made, table, history = Space(0), {}, []
    for time_ns, (start, length, path) in enumerate(steps, 1):
        made.map(region(path, start, start + length, born=time_ns, offset=start * 100))
        for page in range(start, start + length):
            table[page] = (path, start * 100 + page - start)
        history.append(dict(table))
    for time_ns, then in enumerate(history, 1):
        for page, (path, offset) in then.items():
            found = made.find(page * PAGE, time_ns)
            assert (path, offset * PAGE) == (found.file.path, found.file_offset(page * PAGE))
    assert sorted(made._starts) == made._starts == [one.start for one in made.regions()]
    assert all(one.end <= two.start for one, two in zip(made.regions(), made.regions()[1:], strict=False))
