"""Of a large file only the units that describe a stack's addresses are read; what is said of them is the same."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from unspool.formats.debug_info import FunctionNames
from unspool.formats.elf import Elf
from unspool.formats.elf.part import debug_part
from unspool.model.symbol import Named
from unspool.symbols import parser
from unspool.symbols.files import OpenFile, open_in_root
from unspool.symbols.symbolizer import Symbolizer

WORK = """
static inline __attribute__((always_inline)) int twice(int x) { return x * 2 + (x >> 3); }
static inline __attribute__((always_inline)) int more(int x) { return twice(x) + twice(x + 1); }
__attribute__((noinline)) int work(int x) { return more(x) - 1; }
"""
REST = "\n".join(f"struct s{n} {{ int a{n}, b{n}; }} v{n};\nint rest{n}(int x) {{ v{n}.a{n} = x; return x + {n}; }}" for n in range(60))
MAIN = "int work(int); int rest1(int);\nint main(int argc, char **argv) { return work(argc) + rest1(argc); }\n"
STYLES = [("-gdwarf-5",), ("-gdwarf-4",), ("-gdwarf-5", "-gz"), ("-gdwarf-5", "-no-pie"), ("-gdwarf-5", "-ffunction-sections")]


def built(folder: Path, *flags: str) -> Path:
    for name, text in (("work.c", WORK), ("rest.c", REST), ("main.c", MAIN)):
        (folder / name).write_text(text)
    command = ["gcc", "-O2", *flags, "-o", "program", "work.c", "rest.c", "main.c"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return folder / "program"


def addresses(path: Path) -> list[int]:
    """All of `work` and `main`."""
    output = subprocess.run(["nm", "-S", path], check=True, capture_output=True, text=True, timeout=60).stdout
    rows = re.findall(r"^([0-9a-f]+) ([0-9a-f]+) T (work|main)$", output, re.MULTILINE)
    return [int(start, 16) + inner for start, size, _ in rows for inner in range(int(size, 16))]


def names(path: Path, wanted: list[int]) -> list[Named]:
    with Symbolizer() as symbolizer:
        symbolizer.add("program", OpenFile(open_in_root(None, str(path)), str(path)))
        return symbolizer.names("program", wanted, stated=True)


@pytest.mark.parametrize("style", STYLES, ids=" ".join)
def test_a_part_says_what_the_whole_says(style: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = built(tmp_path, *style)
    wanted = addresses(path)
    elf = Elf(path.read_bytes())
    units = FunctionNames(elf).units_of(wanted)
    assert units is not None
    assert len(units) < len(elf.section_data(".debug_info") or b"")
    whole = names(path, wanted)
    assert any(len(named) == 3 for named in whole if isinstance(named, tuple))
    monkeypatch.setattr(parser, "_LARGE", 0)
    monkeypatch.setattr(parser, "_FEW", 1 << 20)
    assert whole == names(path, wanted)


def test_the_whole_follows_when_more_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = built(tmp_path, "-g")
    wanted = addresses(path)
    whole = names(path, wanted)
    monkeypatch.setattr(parser, "_LARGE", 0)
    with Symbolizer() as symbolizer:
        symbolizer.add("program", OpenFile(open_in_root(None, str(path)), str(path)))
        assert whole == [named for address in wanted for named in symbolizer.names("program", [address], stated=True)]


def test_units_that_refer_to_others_have_no_part(tmp_path: Path) -> None:
    """Link-time optimisation leaves the types in other units."""
    path = built(tmp_path, "-g", "-flto")
    info = Elf(path.read_bytes())
    assert FunctionNames(info).units_of(addresses(path)) is None


def test_without_its_index_or_beyond_it_there_is_no_part(tmp_path: Path) -> None:
    path = built(tmp_path, "-g")
    assert FunctionNames(Elf(path.read_bytes())).units_of([0x10]) is None
    subprocess.run(["objcopy", "--remove-section=.debug_aranges", path], check=True, timeout=60)
    assert FunctionNames(Elf(path.read_bytes())).units_of(addresses(path)) is None


@pytest.mark.parametrize("style", STYLES[:3], ids=" ".join)
def test_a_part_is_a_file_that_readelf_reads(style: tuple[str, ...], tmp_path: Path) -> None:
    path = built(tmp_path, *style)
    elf = Elf(path.read_bytes())
    units = FunctionNames(elf).units_of(addresses(path))
    assert units is not None
    (tmp_path / "part").write_bytes(debug_part(elf, units))
    command = ["readelf", "--debug-dump=info", tmp_path / "part"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert "" == output.stderr
    assert " twice" in output.stdout
    assert "rest30" not in output.stdout
