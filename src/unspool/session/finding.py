"""Where in a process a function is: its ranges in every mapped file, and whether the file would show inlined copies of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unspool.model.module import AddressSpace, Mapping
from unspool.model.symbol import Unnamed
from unspool.session.function_search import MAX_RANGES, handler
from unspool.session.naming import ModuleKey, Place, key_of, living_thread
from unspool.symbols.debug_files import debug_files
from unspool.symbols.files import OpenFile
from unspool.symbols.mapped_files import open_mapping
from unspool.symbols.worker import ParserDied, Worker
from unspool.targets.process import ProcessMemory

_MAX_OFFSET = 1 << 63


@dataclass(frozen=True, slots=True)
class Definition:
    """A module that holds the function: `ranges` are [start, end) in bytes of its file, empty when it is only there in inlined copies.

    `shows_inlined`: the module has debug information, so that a frame in it tells which calls were inlined.
    """

    module: str
    key: ModuleKey
    ranges: tuple[tuple[int, int], ...]
    shows_inlined: bool

    def holds(self, place: Place) -> bool:
        """Whether a place is within the function, whatever name a symbolizer gave it."""
        return place.key == self.key and place.offset is not None and any(start <= place.offset < end for start, end in self.ranges)


@dataclass(frozen=True, slots=True)
class Unsearched:
    """A module that could not be searched, and why."""

    module: str
    reason: str


class Finder:
    """Searches modules for one function; a module that was searched before is not searched again."""

    def __init__(self, function: str, module: str | None = None) -> None:
        """`module`: only the one of that path, or whose path ends in that name."""
        self.function = function
        self.module = module
        self._defined: dict[ModuleKey, Definition | Unsearched | None] = {}
        self._inlined: dict[ModuleKey, Definition | Unsearched | None] = {}

    def find(self, pid: int, space: AddressSpace) -> list[Definition | Unsearched]:
        """What was found in the executable files that the process maps.

        Whether a function is only there in inlined copies is asked when no module defines it: that takes a second for a large module, and
        wherever a copy is, the frame that holds it has the function among its names.
        """
        mappings = [mapping for mapping in space if mapping.executable and mapping.kind != "anon" and self.asks_for(mapping.path)]
        found = self._search(pid, mappings, self._defined, "ranges")
        if any(isinstance(one, Definition) for one in found):
            return found
        return found + [one for one in self._search(pid, mappings, self._inlined, "inlined") if isinstance(one, Definition)]

    def asks_for(self, path: str) -> bool:
        """Whether a module of that path is one to be searched."""
        return self.module is None or path == self.module or path.rpartition("/")[2] == self.module

    def _search(
        self, pid: int, mappings: Sequence[Mapping], known: dict[ModuleKey, Definition | Unsearched | None], request: str
    ) -> list[Definition | Unsearched]:
        by_key = {key_of(mapping): mapping for mapping in mappings}
        new = {key: mapping for key, mapping in by_key.items() if key not in known}
        if new:
            search = _Search(self.function, pid)
            try:
                known |= {key: search.ask(mapping, request) for key, mapping in new.items()}
            finally:
                search.close()
        return [one for one in (known[key] for key in by_key) if one is not None]


class _Search:
    """A worker that searches the modules of one process, and another one when that one died of a file."""

    def __init__(self, function: str, pid: int) -> None:
        self.function = function
        self.pid = pid
        self._memory = ProcessMemory(living_thread(pid))
        self._worker = Worker(handler(function))

    def close(self) -> None:
        self._worker.close()

    def ask(self, mapping: Mapping, request: str) -> Definition | Unsearched | None:
        """What the file says: ["ranges"] or ["inlined"]."""
        source = open_mapping(self.pid, mapping, self._memory)
        if isinstance(source, Unnamed):
            return Unsearched(mapping.path, source.reason)
        if not self._worker.alive:
            self._worker = Worker(handler(self.function))
        try:
            facts = _opened(self._worker, source)
            if "error" in facts:
                return Unsearched(mapping.path, str(facts["error"]))
            answer = self._worker.ask([request])
            ranges = _checked_ranges(answer) if request == "ranges" else ()
        except ParserDied as error:
            return Unsearched(mapping.path, f"the parser died on this file: {error}")
        finally:
            source.close()
        if not ranges and not (isinstance(answer, dict) and answer.get("inlined") is True):
            return None
        return Definition(mapping.path, key_of(mapping), ranges, shows_inlined=facts["dwarf"] is True)


def _opened(worker: Worker, source: OpenFile) -> dict[str, Any]:
    """What the file that the worker has open now says of itself."""
    facts = worker.ask(["open", source.build_id], [source.descriptor])
    if not isinstance(facts, dict) or not ({"dwarf", "error"} & facts.keys()):
        raise ParserDied("facts that are none")
    return facts if "error" in facts or facts["dwarf"] is True else _with_debug_file(worker, source, facts)


def _with_debug_file(worker: Worker, source: OpenFile, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts with those of a separate debug file, if one fits."""
    for candidate in debug_files(source, str(facts.get("build_id", "")), str(facts.get("link", ""))):
        try:
            answer = worker.ask(["attach", facts.get("crc")], [candidate.descriptor])
        finally:
            candidate.close()
        if isinstance(answer, dict) and "dwarf" in answer:
            return facts | answer
    return facts


def _checked_ranges(answer: object) -> tuple[tuple[int, int], ...]:
    """The worker's answer as values: what a hostile file made it say must not be believed unread."""
    if isinstance(answer, dict) and isinstance(answer.get("ranges"), list) and len(answer["ranges"]) <= MAX_RANGES:
        pairs = [tuple(pair) for pair in answer["ranges"] if isinstance(pair, list) and [type(number) for number in pair] == [int, int]]
        if len(pairs) == len(answer["ranges"]) and all(0 <= start <= end < _MAX_OFFSET for start, end in pairs):
            return tuple((start, end) for start, end in pairs)
    raise ParserDied("ranges that are none")
