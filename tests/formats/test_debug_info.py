"""Which of a function's names DWARF uses."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.debug_info import FunctionNames
from unspool.formats.elf import Elf

SOURCE = """
struct point { int x, y; struct { long deep; } inner; };
static int used(struct point *p) { return p->x; }
int aaa(struct point *) __attribute__((alias("mmm")));
int mmm(struct point *p) { return used(p) + 1; }
int zzz(struct point *) __attribute__((alias("mmm")));
int renamed(int) __asm__("linkage");
int renamed(int x) { return x; }
int other(int) __attribute__((alias("linkage")));
int main(void) { struct point p = {1, 2, {3}}; return mmm(&p) + renamed(2); }
"""
STYLES = [("-gdwarf-5",), ("-gdwarf-4",), ("-gdwarf-3",), ("-gdwarf-5", "-O2"), ("-gdwarf-5", "-fdebug-types-section"), ("-g", "-gdwarf64")]


@pytest.fixture(scope="module", params=STYLES, ids=" ".join)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("debug_info")
    (folder / "a.c").write_text(SOURCE)
    subprocess.run(["gcc", *request.param, "-o", folder / "a", folder / "a.c"], check=True, timeout=120)
    return folder / "a"


def addresses(program: Path) -> dict[str, int]:
    output = subprocess.run(["nm", program], check=True, capture_output=True, text=True, timeout=60).stdout
    return {name: int(address, 16) for address, name in re.findall(r"^([0-9a-f]+) [Tt] (\w+)$", output, re.MULTILINE)}


def test_the_functions_own_name_is_told_from_its_aliases(program: Path) -> None:
    names, places = FunctionNames(Elf(program.read_bytes())), addresses(program)
    assert places["aaa"] == places["zzz"]
    assert "mmm" == names.name_of(places["zzz"], {"aaa", "mmm", "zzz"})
    assert "linkage" == names.name_of(places["linkage"], {"linkage", "other"})
    assert "main" == names.name_of(places["main"], {"main"})


def test_a_name_that_no_symbol_has_is_no_answer(program: Path) -> None:
    names, places = FunctionNames(Elf(program.read_bytes())), addresses(program)
    assert names.name_of(places["main"], {"another"}) is None
    assert names.name_of(places["main"] + 1, {"main"}) is None
    assert names.name_of(1 << 63, {"main"}) is None


def test_without_debugging_information_there_is_no_answer() -> None:
    assert FunctionNames(Elf(Path("/bin/ls").read_bytes())).name_of(0x4000, {"main"}) is None


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "a.c").write_text(SOURCE)
    subprocess.run(["gcc", "-g", "-c", "-o", folder / "a.o", folder / "a.c"], check=True, timeout=120)
    subprocess.run(["gcc", "-g", "-nostdlib", "-shared", "-o", folder / "a", folder / "a.o"], check=True, timeout=120)
    return (folder / "a").read_bytes()


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=32), st.integers(0, 0x2000))
@settings(max_examples=200)
def test_any_damage_gives_an_answer_or_none(plain: bytes, damage: list[tuple[int, int]], start: int) -> None:
    elf = Elf(plain)
    places = [section for section in elf.sections if section.name.startswith(".debug_")]
    data = bytearray(plain)
    for position, value in damage:
        section = places[position % len(places)]
        data[section.offset + position % section.size] = value
    with contextlib.suppress(BadInput):
        names = FunctionNames(Elf(bytes(data)))
        for address in (start, 0x1000, 0x1010, 0x1020):
            names.name_of(address, {"mmm", "main"})
