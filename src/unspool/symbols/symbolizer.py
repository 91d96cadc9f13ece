"""Addresses in, names out: files are opened here and parsed in a worker without privileges."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from unspool.model.symbol import Named, Symbol, Unnamed
from unspool.symbols.debug_files import debug_files
from unspool.symbols.files import OpenFile
from unspool.symbols.reasons import Reason
from unspool.symbols.worker import Handler, ParserDied, Worker

if TYPE_CHECKING:
    from unspool.symbols.debuginfod import Debuginfod

_BATCH = 4096
_MAX_PATH = 4096
_MAX_OFFSET = 1 << 64
_MAX_LINE = 1 << 32
_REASONS = frozenset(reason.value for reason in Reason)


class NameTable(Protocol):
    """A source of names that is no ELF file: the kernel's symbols, a JIT's map."""

    def name(self, address: int) -> Named:
        """What is at the address (in the table's own terms)."""


@dataclass(slots=True)
class _File:
    """What is known of one file in the parent; `opened` is the worker it is open in."""

    number: int
    source: OpenFile
    debug: OpenFile | None = None
    crc: int = 0
    searched: bool = False
    lines: bool = False
    alt: bool = False
    opened: Worker | None = None
    failure: Unnamed | None = None


class Symbolizer:
    """Names for addresses in files, batch by batch. A context manager: leaving it closes the files and ends the workers.

    >>> with Symbolizer() as symbolizer:
    ...     symbolizer.add("gone", None)
    ...     symbolizer.names("gone", [0x1234])
    [Unnamed(reason='the file was never found')]
    """

    def __init__(self, *, timeout: float = 60.0, lines: bool = True) -> None:
        """`timeout`: seconds a file may take to parse. `lines=False`: no source lines and inlined calls, so that DWARF is never read."""
        self._timeout = timeout
        self._want_lines = lines
        self._sources: dict[Hashable, _File | NameTable | Unnamed] = {}
        self._workers: dict[bool, Worker] = {}
        self._servers: Debuginfod | None = None
        self._numbers = count()

    def __enter__(self) -> Self:
        """Fork the first worker: it loads the parser while the stacks are taken, and before the program has threads."""
        self._worker(lines=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End the workers, close the files; again is harmless."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        for source in self._sources.values():
            _close(source)
        self._sources.clear()

    def add(self, key: Hashable, source: OpenFile | NameTable | Unnamed | None) -> None:
        """Say where the names of `key` come from. The symbolizer will close an OpenFile; None or a reason gives unnamed addresses."""
        _close(self._sources.pop(key, None))
        if source is None:
            source = Reason.UNKNOWN_FILE.because()
        self._sources[key] = _File(next(self._numbers), source) if isinstance(source, OpenFile) else source

    def __contains__(self, key: object) -> bool:
        """Whether `add` was called for the key."""
        return key in self._sources

    def names(self, key: Hashable, addresses: Sequence[int], *, stated: bool = False) -> list[Named]:
        """For each address its calls, innermost inlined one first, or why there are none.

        Addresses of a file are offsets in it (FileOffset), with `stated` Svmas; those of a table are what the table counts in (the kernel's
        and JIT code's: Avma). For a return address ask with `Frame.lookup_pc`. Never raises for what a file holds.
        """
        source = self._sources.get(key)
        if source is None:
            return [Reason.UNKNOWN_FILE.because()] * len(addresses)
        if isinstance(source, Unnamed):
            return [source] * len(addresses)
        if isinstance(source, _File):
            names: list[Named] = []
            for start in range(0, len(addresses), _BATCH):
                names += self._file_names(source, [int(address) for address in addresses[start : start + _BATCH]], stated=stated)
            return names
        return [source.name(address) for address in addresses]

    def _file_names(self, file: _File, addresses: list[int], *, stated: bool) -> list[Named]:
        for _ in range(2):
            if file.failure is not None:
                break
            fresh = not any(worker.requests for worker in self._workers.values())
            try:
                return self._ask_names(file, addresses, stated=stated)
            except ParserDied:
                self._workers = {kind: worker for kind, worker in self._workers.items() if worker.alive}
                # An old worker may have died of what it did before: a new one gets the file once more.
                if fresh:
                    break
        # It is not tried again: a file that costs its time limit once would cost it for every batch.
        file.failure = file.failure or Reason.PARSER_DIED.because()
        return [file.failure] * len(addresses)

    def _ask_names(self, file: _File, addresses: list[int], *, stated: bool) -> list[Named]:
        worker = self._opened(file)
        if worker is None:
            return [file.failure or Reason.BAD_FILE.because()] * len(addresses)
        by_tool = file.lines and file.alt and _tool_available()
        request = ["names", file.number, addresses, stated, file.lines and not by_tool]
        answer = worker.ask(request)
        if answer is None:
            file.opened = None
            worker = self._opened(file)
            answer = worker.ask(request) if worker is not None else None
        if isinstance(answer, dict):
            file.failure = _failure(answer)
            return [file.failure] * len(addresses)
        try:
            names = checked_names(answer, len(addresses))
            if worker is not None and by_tool:
                from unspool.symbols import external

                svmas = addresses if stated else _checked_addresses(worker.ask(["svmas", file.number, addresses]), len(addresses))
                names = external.with_lines(file.debug or file.source, svmas, names, timeout=self._timeout)
        except ParserDied:
            if worker is not None:
                worker.close()
            raise
        return names

    def _opened(self, file: _File) -> Worker | None:
        """The worker that has the file open, with its debug file; None when that cannot be."""
        if not file.searched and not self._search(file):
            return None
        worker = self._worker(lines=file.lines)
        if file.opened is not worker:
            if not self._open(worker, file):
                return None
            if file.debug is not None:
                worker.ask(["attach", file.number, file.crc], [file.debug.descriptor])
            file.opened = worker
        return worker

    def _search(self, file: _File) -> bool:
        """Look at the file, and for its separate debug file, in the worker that has no `symbolic`; most files need no other."""
        worker = self._worker(lines=False)
        facts = self._open(worker, file)
        if not facts:
            return False
        file.lines = facts.get("dwarf") is True
        file.alt = facts.get("alt") is True
        build_id, link, crc = facts.get("build_id"), facts.get("link"), facts.get("crc")
        if not file.lines and isinstance(build_id, str) and isinstance(link, str) and isinstance(crc, int):
            file.crc = crc
            self._attach_best(worker, file, build_id, link)
        file.lines = file.lines and self._want_lines
        file.searched = True
        file.opened = worker
        return True

    def _attach_best(self, worker: Worker, file: _File, build_id: str, link: str) -> None:
        for candidate in self._candidates(file.source, build_id, link):
            answer = worker.ask(["attach", file.number, file.crc], [candidate.descriptor])
            if isinstance(answer, dict) and "dwarf" in answer:
                file.debug = candidate
                file.lines, file.alt = answer["dwarf"] is True, answer.get("alt") is True
                return
            candidate.close()

    def _candidates(self, source: OpenFile, build_id: str, link: str) -> Iterator[OpenFile]:
        yield from debug_files(source, build_id, link)
        if self._want_lines and os.environ.get("DEBUGINFOD_URLS"):
            from unspool.symbols.debuginfod import Debuginfod

            self._servers = self._servers or Debuginfod.of_environment(os.environ)
            yield from self._servers.debug_files(build_id) if self._servers else ()

    def _open(self, worker: Worker, file: _File) -> dict[str, object]:
        answer = worker.ask(["open", file.number, file.source.build_id], [file.source.descriptor])
        if not isinstance(answer, dict) or "error" in answer:
            file.failure = _failure(answer)
            return {}
        return answer

    def _worker(self, *, lines: bool) -> Worker:
        worker = self._workers.get(lines)
        if worker is None or not worker.alive:
            worker = self._workers[lines] = Worker(_prepare_with_lines if lines else _prepare, timeout=self._timeout)
        return worker


def _prepare() -> Handler:
    # Imported in the worker: the parser is most of the code, and the parent has other things to do meanwhile.
    from unspool.symbols import parser

    return parser.prepare(lines=False)


def _prepare_with_lines() -> Handler:
    from unspool.symbols import parser

    return parser.prepare(lines=True)


def _tool_available() -> bool:
    from unspool.symbols import external

    return external.available()


def _close(source: object) -> None:
    if isinstance(source, _File):
        source.source.close()
        if source.debug is not None:
            source.debug.close()


def _failure(answer: object) -> Unnamed:
    sentence = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(sentence, str):
        return Reason.BAD_FILE.because()
    if sentence == Reason.OTHER_BUILD.value:
        return Reason.OTHER_BUILD.because()
    return Reason.BAD_FILE.because(sentence[:_MAX_PATH])


def checked_names(answer: object, count: int) -> list[Named]:
    """The worker's answer as values; ParserDied when it is anything else than it should be: then the worker cannot be trusted."""
    if not isinstance(answer, list) or len(answer) != count:
        raise ParserDied("a wrong number of names")
    return [_checked(item) for item in answer]


def _checked_addresses(answer: object, count: int) -> list[int]:
    if isinstance(answer, list) and len(answer) == count and all(type(item) is int and 0 <= item < _MAX_OFFSET for item in answer):
        return answer
    raise ParserDied("addresses that are none")


def _checked(item: object) -> Named:
    if isinstance(item, str) and item in _REASONS:
        return Unnamed(item)
    if not isinstance(item, list) or not 0 < len(item) <= _BATCH:
        raise ParserDied("a name that is none")
    return tuple(_symbol(call) for call in item)


def _symbol(call: object) -> Symbol:
    if isinstance(call, list) and len(call) == 5:
        function, offset, file, line, inlined = call
        if (
            isinstance(function, str)
            and 0 < len(function) <= _MAX_PATH
            and type(offset) is int
            and 0 <= offset < _MAX_OFFSET
            and (file is None or (isinstance(file, str) and len(file) <= _MAX_PATH))
            and (line is None or (type(line) is int and 0 <= line < _MAX_LINE))
        ):
            return Symbol(function, offset, file, line, inlined is True)
    raise ParserDied("a call that is none")
