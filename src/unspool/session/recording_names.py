"""Names for the frames of a recording: a file's addresses looked up at once, the kernel's in kallsyms, run-time code's in its perf map."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import Protocol

from unspool.capture.frames import Place
from unspool.capture.perf_maps import PerfMaps
from unspool.formats.kallsyms import Kallsyms
from unspool.formats.perf_map import PerfMap
from unspool.model.symbol import Named, Symbol, Unnamed
from unspool.symbols.demangle import demangled
from unspool.symbols.files import OpenFile
from unspool.symbols.mapped_files import own_vdso
from unspool.symbols.reasons import Reason
from unspool.symbols.symbolizer import NameTable, Symbolizer


class NameSink(Protocol):
    """Where names go: `store.writer.Writer`."""

    def name(self, frame: int, named: Named) -> None:
        """Note a frame's names, or why it has none."""


class KernelNames:
    """The kernel's functions as a table of the symbolizer."""

    def __init__(self, text: bytes) -> None:
        """Read the text of /proc/kallsyms."""
        self._symbols = Kallsyms(text)

    def name(self, address: int) -> Named:
        """The function at a kernel address."""
        if self._symbols.hidden:
            return Reason.KERNEL_HIDDEN.because()
        found = self._symbols.find(address)
        if found is None:
            return Reason.NO_KERNEL_SYMBOL.because()
        function = f"{found.name} [{found.module}]" if found.module else found.name
        return (Symbol(function, address - found.address),)


class JitNames:
    """A program's perf map as a table of the symbolizer."""

    def __init__(self, text: bytes) -> None:
        """Read the map."""
        self._map = PerfMap(text)

    def name(self, address: int) -> Named:
        """The piece of compiled code at an address of the program."""
        found = self._map.find(address)
        return Reason.NO_JIT_NAME.because() if found is None else (Symbol(demangled(found.name), address - found.start),)


def name_frames(places: Iterable[Place], perf_maps: PerfMaps, sink: NameSink, symbolizer: Symbolizer) -> Iterator[tuple[int, int]]:
    """Give a name, or the reason why there is none, to each frame; after each file how many files are done, and how many there are."""
    groups = by_source(places)
    for done, (key, group) in enumerate(groups.items(), 1):
        if key not in symbolizer:
            symbolizer.add(key, source(group[0], perf_maps))
        for place, named in zip(group, names_of(key, group, symbolizer), strict=True):
            sink.name(place.frame, named)
        yield done, len(groups)


def by_source(places: Iterable[Place]) -> dict[Hashable, list[Place]]:
    """The frames by what knows their names: the key of a symbolizer."""
    groups: dict[Hashable, list[Place]] = defaultdict(list)
    for place in places:
        groups[_key(place)].append(place)
    return groups


def names_of(key: Hashable, group: list[Place], symbolizer: Symbolizer) -> list[Named]:
    """What the symbolizer says of frames of one source."""
    in_file = group[0].kind in {"file", "vdso"}
    return symbolizer.names(key, [place.offset if in_file else place.address for place in group])


def _key(place: Place) -> Hashable:
    if place.kind == "file":
        return place.file or ("gone", place.path)
    if place.kind == "jit":
        return ("jit", place.pid)
    return place.kind


def source(place: Place, perf_maps: PerfMaps) -> OpenFile | NameTable | Unnamed | None:
    """Where the names of a frame, and of all others with its key, come from."""
    if place.kind == "vdso":
        return own_vdso()
    if place.kind == "anon":
        return Reason.ANONYMOUS.because()
    if place.kind == "kernel":
        return kernel()
    if place.kind == "jit":
        text = perf_maps.read(place.pid)
        return Reason.NO_JIT_MAP.because() if text is None else JitNames(text)
    file = place.file
    if file is None or file.fd is None:
        return Reason.FILE_UNREACHABLE.because(file.reason if file is not None else "")
    # The symbolizer closes what it is given; the recorder keeps its own for files that it meets again.
    return OpenFile(os.dup(file.fd), file.path, file.build_id)


def kernel() -> NameTable | Unnamed:
    """This machine's kernel as a table of names, or why there is none."""
    try:
        with open("/proc/kallsyms", "rb") as file:  # noqa: PTH123 (bytes)
            return KernelNames(file.read())
    except OSError:
        return Reason.KERNEL_HIDDEN.because()
