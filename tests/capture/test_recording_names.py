"""Frames of a recording get the names of their files, of the kernel and of perf maps; what has none keeps its reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from unspool.capture.files import KeptFile, build_id_of
from unspool.capture.frames import Place
from unspool.capture.perf_maps import PerfMaps
from unspool.formats.elf import Elf
from unspool.model.symbol import Named, Symbol, Unnamed
from unspool.session import recording_names
from unspool.session.recording_names import JitNames, KernelNames, name_frames
from unspool.symbols.symbolizer import Symbolizer

KERNEL = b"ffffffff81000000 T first\nffffffff81000100 t second\t[module]\n"


class Names(dict[int, Named]):
    """Keeps what it is given."""

    def name(self, frame: int, named: Named) -> None:
        """Note it."""
        self[frame] = named


def named(*places: Place, perf_maps: PerfMaps | None = None) -> Names:
    names = Names()
    with Symbolizer(lines=False) as symbolizer:
        for done, files in name_frames(places, perf_maps or PerfMaps(), names, symbolizer):
            assert done <= files
    return names


def test_a_file_is_asked_by_offset_and_stays_open() -> None:
    path = shutil.which("bash") or "/bin/bash"
    elf = Elf(Path(path).read_bytes())
    entry = elf.file_offset(elf.entry)
    assert entry is not None
    descriptor = os.open(path, os.O_RDONLY)
    file = KeptFile(path, build_id_of(descriptor), descriptor)
    [answer] = named(Place(7, "file", path, file, entry, 0, 1)).values()
    assert isinstance(answer, tuple | Unnamed)
    assert b"\x7fELF" == os.pread(descriptor, 4, 0)
    os.close(descriptor)


def test_a_file_that_is_gone_keeps_the_reason() -> None:
    file = KeptFile("/gone", "ab", None, "its process was gone")
    [answer] = named(Place(7, "file", "/gone", file, 1, 0, 1)).values()
    assert isinstance(answer, Unnamed)
    assert "its process was gone" in answer.reason


def test_kernel_functions_are_named_by_kallsyms() -> None:
    names = KernelNames(KERNEL)
    assert (Symbol("second [module]", 0x20),) == names.name(0xFFFFFFFF81000120)
    assert isinstance(names.name(0x1000), Unnamed)
    assert isinstance(KernelNames(b"0000000000000000 T first\n").name(0), Unnamed)


def test_code_made_at_run_time_is_named_by_its_map() -> None:
    names = JitNames(b"1000 20 py::main\n")
    assert (Symbol("py::main", 8),) == names.name(0x1008)
    assert isinstance(names.name(0x1020), Unnamed)


def test_each_kind_has_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_names, "kernel", lambda: KernelNames(KERNEL))
    names = named(
        Place(1, "kernel", "[kernel]", None, 0, 0xFFFFFFFF81000004, 0),
        Place(2, "anon", "[anon]", None, 0, 0x1000, 5),
        Place(3, "jit", "/tmp/perf-5.map", None, 0, 0x1000, 5),
    )
    assert (Symbol("first", 4),) == names[1]
    assert [Unnamed, Unnamed] == [type(names[2]), type(names[3])]


def test_the_vdso_is_our_own() -> None:
    [answer] = named(Place(1, "vdso", "[vdso]", None, 0, 0, 5)).values()
    assert isinstance(answer, tuple | Unnamed)
