"""Names of the stubs through which programs call libraries, against objdump and gdb's convention."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from target_programs import Programs

from unspool.errors import BadInput
from unspool.formats.elf import Elf
from unspool.formats.elf.plt import PltNames

BUILDS = [("-O2",), ("-O2", "-Wl,-z,lazy"), ("-O2", "-Wl,-z,lazy,-z,ibtplt"), ("-O2", "-no-pie"), ("-O2", "-Wl,-z,now")]


def by_objdump(path: Path | str) -> list[tuple[int, str]]:
    """Every stub that objdump labels: (address, name@plt)."""
    command = ["objdump", "-d", "-j", ".plt", "-j", ".plt.sec", "-j", ".plt.got", path]
    output = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120).stdout
    rows = re.findall(r"^([0-9a-f]+) <([^>@]+)(?:@[^>]*)?@plt>:$", output, re.MULTILINE)
    return [(int(address, 16), f"{name}@plt") for address, name in rows if not name.startswith("*ABS*")]


def stubs(path: Path | str) -> PltNames:
    return PltNames(Elf(Path(path).read_bytes()), lambda _: None)


@pytest.mark.parametrize("path", ["/bin/bash", "/usr/bin/perl", "/usr/bin/python3", "/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/gdb"])
def test_system_programs_stubs_are_named_as_by_objdump(path: str) -> None:
    names = stubs(path)
    expected = by_objdump(path)
    assert expected
    for address, name in expected:
        assert (name, address) == names.find(address) == names.find(address + 5)


@pytest.mark.parametrize("flags", BUILDS, ids=" ".join)
def test_every_kind_of_table_is_read(flags: tuple[str, ...], programs: Programs) -> None:
    path = programs.build("inlined.cc", *flags)
    expected = by_objdump(path)
    assert any(name == "puts@plt" for _, name in expected)
    for address, name in expected:
        assert (name, address) == stubs(path).find(address)


def test_with_lld_too(programs: Programs) -> None:
    path = programs.build("inlined.cc", "-O2", "-fuse-ld=lld")
    expected = by_objdump(path)
    assert any(name == "puts@plt" for _, name in expected)
    for address, name in expected:
        assert (name, address) == stubs(path).find(address)


def test_stubs_of_functions_that_are_chosen_at_the_start_have_their_name(programs: Programs) -> None:
    """A static program calls its own memcpy through a stub; the relocation names the function that chooses it."""
    elf = Elf(programs.build("inlined.cc", "-O2", "-static").read_bytes())
    [section] = [section for section in elf.sections if section.name in {".plt", ".iplt"}]
    found = PltNames(elf, lambda address: f"chosen_by_{address:x}").find(section.address)
    assert found is not None
    assert re.fullmatch(r"chosen_by_[0-9a-f]+@plt", found[0])


def test_the_tables_head_and_other_code_are_no_stubs(programs: Programs) -> None:
    path = programs.build("inlined.cc", "-O2", "-Wl,-z,lazy")
    elf = Elf(path.read_bytes())
    head, text = elf.section(".plt"), elf.section(".text")
    assert head is not None
    assert text is not None
    assert stubs(path).find(head.address) is stubs(path).find(text.address) is None


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=32), st.integers(0, 1 << 16))
def test_any_damage_gives_a_name_or_none(damage: list[tuple[int, int]], address: int) -> None:
    data = bytearray(Path("/bin/true").read_bytes())
    for position, value in damage:
        data[position % len(data)] = value
    with contextlib.suppress(BadInput):
        PltNames(Elf(bytes(data)), lambda _: None).find(address)
