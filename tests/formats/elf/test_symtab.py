"""Symbol tables, against nm and gdb on the machine's own programs, and row by row."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
from pathlib import Path

import pytest
from elf_bytes import ElfBytes, Part
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.elf import Elf
from unspool.formats.elf.headers import SectionType
from unspool.formats.elf.symtab import SymbolTable, preferred, symbol_tables

LIBC = "/lib/x86_64-linux-gnu/libc.so.6"
SYSTEM = ["/usr/bin/perl", "/bin/bash", LIBC]


def nm(path: str) -> list[tuple[int, int, str]]:
    """Defined functions of the dynamic table: (address, size, name without version)."""
    output = subprocess.run(["nm", "-D", "-S", path], check=True, capture_output=True, text=True, timeout=60).stdout
    rows = re.findall(r"^([0-9a-f]+) ([0-9a-f]+) [TtWi] ([^@\n]+)", output, re.MULTILINE)
    return [(int(address, 16), int(size, 16), name) for address, size, name in rows]


def dynamic(path: str, *, image: bool = False) -> SymbolTable:
    data = bytearray(Path(path).read_bytes())
    if image:
        data[0x28:0x30] = bytes(8)
    return list(symbol_tables(Elf(bytes(data))))[-1]


@pytest.mark.parametrize("path", SYSTEM)
def test_every_function_of_nm_is_found_at_its_address(path: str) -> None:
    table = dynamic(path)
    rows = nm(path)
    assert len(rows) > 500
    for address, size, name in rows:
        assert (name, size) in [(symbol.name, symbol.size) for symbol in table.at(address)]


@pytest.mark.parametrize("path", SYSTEM)
def test_without_section_headers_the_table_is_found_through_the_dynamic_segment(path: str) -> None:
    by_section, by_segment = dynamic(path), dynamic(path, image=True)
    for address, _, _ in nm(path)[::50]:
        assert list(by_section.at(address)) == list(by_segment.at(address))


@pytest.fixture(scope="module")
def by_gdb() -> list[tuple[int, str]]:
    """What gdb names addresses of libc from its own table alone (a copy without build id has no debug file)."""
    chooser = random.Random(2)
    addresses = [address + chooser.randrange(size) for address, size, _ in chooser.sample(nm(LIBC), 200) if size]
    commands = [argument for address in addresses for argument in ("-ex", f"info symbol {address:#x}")]
    quiet = ["-iex", "set debuginfod enabled off", "-iex", "set debug-file-directory /nonexistent"]
    output = subprocess.run(
        ["gdb", "-nx", "-q", "-batch", *quiet, LIBC, *commands],
        check=True, capture_output=True, text=True, timeout=300,
    ).stdout  # fmt: skip
    names = [line.split(" ")[0] for line in output.splitlines() if " in section " in line or line.startswith("No symbol matches")]
    return list(zip(addresses, names, strict=True))


def test_of_several_names_the_one_is_shown_that_gdb_shows(by_gdb: list[tuple[int, str]]) -> None:
    table = dynamic(LIBC)
    mine = [(address, preferred(table.covering(address)).name) for address, _ in by_gdb]
    assert [(address, name) for address, name in by_gdb] == mine


def rows(*symbols: tuple[str, int, int, int], bits: int = 64, order: str = "<") -> SymbolTable:
    """A table of (name, address, size, info)."""
    elf = ElfBytes(bits, order)
    names, body = b"\0", elf.symbol(0, 0, 0, 0, 0)
    for name, address, size, info in symbols:
        body += elf.symbol(len(names), address, size, info)
        names += name.encode() + b"\0"
    elf.parts = [Part(".symtab", body, SectionType.SYMTAB, link=2), Part(".strtab", names, SectionType.STRTAB)]
    [table] = symbol_tables(Elf(elf.bytes()))
    return table


FUNCTION, LABEL, OBJECT = 0x12, 0x10, 0x11


@pytest.mark.parametrize(("bits", "order"), list(itertools.product([32, 64], ["<", ">"])))
def test_rows_of_every_layout_are_read(bits: int, order: str) -> None:
    table = rows(("f", 0x100, 16, FUNCTION), ("g", 0x200, 8, 0x0A), bits=bits, order=order)
    assert ["f"] == [symbol.name for symbol in table.covering(0x10F)]
    [symbol] = table.covering(0x200)
    assert (0x200, 8, 10, 0) == (symbol.address, symbol.size, symbol.type, symbol.binding)


def test_a_function_ends_where_its_size_says() -> None:
    table = rows(("f", 0x100, 16, FUNCTION))
    assert [] == table.covering(0x110)
    assert [] == table.covering(0xFF)


def test_a_label_without_size_names_what_no_function_covers() -> None:
    table = rows(("f", 0x100, 64, FUNCTION), ("inside", 0x110, 0, LABEL), ("asm", 0x200, 0, LABEL))
    assert ["f"] == [symbol.name for symbol in table.covering(0x118)]
    assert ["asm"] == [symbol.name for symbol in table.covering(0x20F)]


def test_of_nested_functions_the_inner_one_counts() -> None:
    table = rows(("outer", 0x100, 0x100, FUNCTION), ("inner", 0x140, 0x10, FUNCTION))
    assert ["inner"] == [symbol.name for symbol in table.covering(0x148)]
    assert ["outer"] == [symbol.name for symbol in table.covering(0x150)]


def test_data_and_mapping_symbols_name_no_code() -> None:
    table = rows(("data", 0x100, 64, OBJECT), ("$x", 0x100, 0, LABEL), ("$d.1", 0x100, 0, LABEL))
    assert [] == table.covering(0x108)


def test_a_version_is_no_part_of_a_name() -> None:
    assert ["memcpy"] == [symbol.name for symbol in rows(("memcpy@@GLIBC_2.14", 0x100, 8, FUNCTION)).at(0x100)]


def test_many_questions_get_the_same_answers_as_few() -> None:
    """The table builds an index after some questions."""
    symbols = [(f"f{number}", 0x1000 + 16 * number, 16, FUNCTION) for number in range(500)]
    table = rows(*symbols)
    assert [name for name, *_ in symbols] == [preferred(table.covering(address + 3)).name for _, address, *_ in symbols]


def test_a_million_names_of_one_address_cost_no_more_than_a_few() -> None:
    table = rows(*[("f", 0x100, 16, FUNCTION)] * 20_000)
    assert len(table.covering(0x108)) < 1000


@given(st.binary(max_size=400), st.binary(max_size=40), st.sampled_from([32, 64]), st.integers(0, 1 << 64))
def test_any_rows_give_names_or_none(body: bytes, names: bytes, bits: int, address: int) -> None:
    elf = ElfBytes(bits)
    elf.parts = [Part(".symtab", body, SectionType.SYMTAB, link=2), Part(".strtab", names, SectionType.STRTAB)]
    try:
        for table in symbol_tables(Elf(elf.bytes())):
            for symbol in table.covering(address):
                assert symbol.address <= address
    except BadInput:
        return
