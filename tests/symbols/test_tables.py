"""Names that come from no ELF file: the kernel's, and those of code that a program compiled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from unspool.model.symbol import Symbol, Unnamed
from unspool.symbols.jit import JitNames, jit_names
from unspool.symbols.kernel import KernelNames
from unspool.symbols.reasons import Reason
from unspool.symbols.symbolizer import Symbolizer


def test_kernel_functions_are_named_with_their_module(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text("ffffffff81000000 T _text\nffffffffc0000000 t probe\t[snd]\n")
    with Symbolizer() as symbolizer:
        symbolizer.add("kernel", KernelNames(tmp_path / "kallsyms"))
        found = symbolizer.names("kernel", [0xFFFFFFFF81000004, 0xFFFFFFFFC0000002, 0x1000])
    assert [(Symbol("_text", 4),), (Symbol("probe [snd]", 2),), Unnamed(Reason.NO_KERNEL_SYMBOL)] == found


def test_hidden_and_unreadable_kernel_symbols_have_their_reason(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text("0000000000000000 T _text\n")
    assert Unnamed(Reason.KERNEL_HIDDEN) == KernelNames(tmp_path / "kallsyms").name(0xFFFFFFFF81000000)
    nothing = KernelNames(tmp_path / "nothing").name(0xFFFFFFFF81000000)
    assert isinstance(nothing, Unnamed)
    assert nothing.reason.startswith(Reason.KERNEL_HIDDEN)


@pytest.fixture
def map_path() -> Iterator[Path]:
    """Where this very process would write its map."""
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)


def refusal(pid: int) -> str:
    found = jit_names(pid)
    assert isinstance(found, Unnamed)
    return found.reason


def test_the_programs_own_map_names_its_code(map_path: Path) -> None:
    map_path.write_text("7f0000000000 40 py::main:/a.py\n7f0000000100 10 _ZN3foo3barEi\n")
    found = jit_names(os.getpid())
    assert isinstance(found, JitNames)
    assert (Symbol("py::main:/a.py", 8),) == found.name(0x7F0000000008)
    assert (Symbol("foo::bar(int)"),) == found.name(0x7F0000000100)
    assert Unnamed(Reason.NO_JIT_NAME) == found.name(0x1000)


def test_a_program_without_a_map_has_that_reason(map_path: Path) -> None:
    assert not map_path.exists()
    assert "no usable perf map for this code: the program writes none" == refusal(os.getpid())


def test_a_map_that_anybody_can_have_written_is_not_used(map_path: Path) -> None:
    """Of another user, a link to a file, with a second name, a folder, larger than any map."""
    map_path.symlink_to("/etc/passwd")
    assert "not a regular file" in refusal(os.getpid())
    map_path.unlink()
    map_path.write_text("7f0000000000 40 f\n")
    second = map_path.with_suffix(".second")
    second.hardlink_to(map_path)
    assert "2 names" in refusal(os.getpid())
    second.unlink()
    os.truncate(map_path, 10 << 30)
    assert "bytes" in refusal(os.getpid())
    os.truncate(map_path, 0)
    if os.geteuid() == 0:
        os.chown(map_path, 4321, 4321)
        assert "belongs to user 4321" in refusal(os.getpid())
    map_path.unlink()
    map_path.mkdir()
    assert "not a regular file" in refusal(os.getpid())
    map_path.rmdir()


def test_a_process_that_is_gone_has_no_map() -> None:
    assert Reason.NO_JIT_MAP in refusal(1 << 22)
