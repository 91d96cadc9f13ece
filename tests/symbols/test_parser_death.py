"""A file that kills its parser costs its own names, and only once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from target_programs import Programs

from unspool.model.symbol import Unnamed
from unspool.symbols import parser
from unspool.symbols.files import OpenFile, open_in_root
from unspool.symbols.reasons import Reason
from unspool.symbols.symbolizer import Symbolizer
from unspool.symbols.worker import Worker

BASH = "/bin/bash"


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """An address whose look-up ends the worker, as a fault in a library would."""
    honest = parser.ParsedFile.names

    def names(self: parser.ParsedFile, addresses: list[int], **options: bool) -> object:
        if 0xDEAD in addresses:
            os._exit(9)
        return honest(self, addresses, **options)

    # Workers are forked, so they have what is patched here.
    monkeypatch.setattr(parser.ParsedFile, "names", names)
    return 0xDEAD


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process number of every worker that was started."""
    started: list[int] = []
    honest = Worker.__init__

    def init(self: Worker, *arguments: object, **options: object) -> None:
        honest(self, *arguments, **options)  # type: ignore[arg-type]
        started.append(self._pid)

    monkeypatch.setattr(Worker, "__init__", init)
    return started


def bash() -> OpenFile:
    return OpenFile(open_in_root(None, BASH), BASH)


def test_other_files_keep_their_names(deadly: int) -> None:
    with Symbolizer() as symbolizer:
        symbolizer.add("good", bash())
        symbolizer.add("bad", bash())
        before = symbolizer.names("good", [0x40000])
        assert [Unnamed(Reason.PARSER_DIED)] * 2 == symbolizer.names("bad", [0x40000, deadly])
        assert before == symbolizer.names("good", [0x40000])


def test_the_file_is_tried_twice_and_then_never_again(deadly: int, forks: list[int]) -> None:
    with Symbolizer() as symbolizer:
        symbolizer.add("good", bash())
        symbolizer.names("good", [0x40000])
        symbolizer.add("bad", bash())
        for _ in range(5):
            assert [Unnamed(Reason.PARSER_DIED)] == symbolizer.names("bad", [deadly])
        assert 2 == len(forks)
        assert not isinstance(symbolizer.names("good", [0x40000])[0], Unnamed)
        assert 3 == len(forks)


def test_lies_of_a_worker_end_it(monkeypatch: pytest.MonkeyPatch, programs: Programs) -> None:
    """Numbers out of range, names of another type or number: nothing of such an answer is used."""
    path = programs.build("inlined.cc", "-O2")
    lies: list[object] = [
        [],
        "text",
        [["f", -1, None, None, False]],
        [[["f", 1 << 64, None, None, False]]],
        [[["f" * 5000, 0, None, None, False]]],
        [[["", 0, None, None, False]]],
        [[["f", 0, None, -5, False]]],
        [[["f", 0, 7, None, False]]],
        [[["f", 0]]],
        [[]],
        ["a reason that is none"],
        [None],
        [[["f", True, None, None, False]]],
    ]
    for lie in lies:
        monkeypatch.setattr(parser.ParsedFile, "names", lambda *_, lie=lie, **__: lie)
        with Symbolizer() as symbolizer:
            symbolizer.add("file", OpenFile(open_in_root(None, str(path)), str(path)))
            assert [Unnamed(Reason.PARSER_DIED)] == symbolizer.names("file", [0x1100]), lie


def test_no_worker_and_no_descriptor_is_left(deadly: int, forks: list[int]) -> None:
    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    for _ in range(5):
        with Symbolizer() as symbolizer:
            symbolizer.add("bad", bash())
            symbolizer.names("bad", [deadly])
    assert forks
    for process in forks:
        with pytest.raises(ChildProcessError):
            os.waitpid(process, os.WNOHANG)
    assert len({path.name for path in Path("/proc/self/fd").iterdir()}) <= len(before)
