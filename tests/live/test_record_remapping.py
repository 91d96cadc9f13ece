"""No rule and no name of a file is used for the file that took its place: libraries and programs that follow each other at one address.

Only whole stacks are judged. A stack may be cut where mappings changed under it; it must never be wrong.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from live.recorded import record, stacks
from target_programs import Programs

pytestmark = pytest.mark.live

LIBRARY = ("-O2", "-fomit-frame-pointer", "-shared", "-fPIC", "-Wl,-z,noseparate-code", "-Wl,-Bsymbolic", "-nostdlib")
SOURCE = "remapped.c"


@pytest.fixture
def libraries(programs: Programs) -> tuple[Path, Path]:
    return (
        programs.build(SOURCE, *LIBRARY, "-DLETTER=a", "-DROOM=48"),
        programs.build(SOURCE, *LIBRARY, "-DLETTER=b", "-DROOM=720"),
    )


def mixed(names: list[str], first: str, second: str) -> bool:
    """Whether a stack holds functions of both, which no stack of these programs ever does."""
    return any(name.endswith(first) for name in names) and any(name.endswith(second) for name in names)


@pytest.mark.parametrize("way", ["dlopen", "mmap"])
def test_libraries_that_take_turns_at_one_address(way: str, programs: Programs, libraries: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.unspool"
    program = programs.build(SOURCE, "-O2", "-fomit-frame-pointer", "-DPROGRAM")
    done = record("-F", 1999, "-o", output, "--", program, way, 2, *libraries)
    assert (0, True) == (done.returncode, done.stdout.endswith("done\n")), done
    whole = [names for stop, names in stacks(output, program.name) if stop == "end-process-entry"]
    assert [] == [names for names in whole if mixed(names, "_a", "_b")]
    for letter in "ab":
        working = [names for names in whole if f"spin_{letter}" in names]
        assert len(working) > 50, letter
        for names in working:
            at = names.index(f"spin_{letter}")
            assert [f"spin_{letter}", f"work_{letter}", f"calling_{letter}"] == names[at : at + 3]


def test_programs_that_take_turns_at_one_address(programs: Programs, tmp_path: Path) -> None:
    """Without address space layout randomisation two programs lie at the same addresses; they fork and exec each other."""
    output = tmp_path / "out.unspool"
    flags = ("-O2", "-fomit-frame-pointer", "-DALONE")
    first = programs.build(SOURCE, *flags, "-DLETTER=a", "-DROOM=48")
    second = programs.build(SOURCE, *flags, "-DLETTER=b", "-DROOM=720")
    setarch = shutil.which("setarch")
    assert setarch
    done = record("-F", 1999, "-o", output, "--", setarch, "-R", first, 600, second, first)
    assert 0 == done.returncode, done
    seen = dict.fromkeys("ab", 0)
    for letter, program in (("a", first), ("b", second)):
        other = "b" if letter == "a" else "a"
        for stop, names in stacks(output, program.name):
            if stop == "end-process-entry" and f"spin_{letter}" in names:
                at = names.index(f"spin_{letter}")
                assert [f"spin_{letter}", f"work_{letter}", "main"] == names[at : at + 3]
                seen[letter] += 1
            if stop == "end-process-entry":
                assert not any(name.endswith(f"_{other}") for name in names), names
    assert min(seen.values()) > 50
