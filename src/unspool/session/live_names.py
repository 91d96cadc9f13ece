"""Names while a recording runs: a thread asks the sandboxed parser, so that the recorder never waits for a large file."""

from __future__ import annotations

import queue
import threading
from collections.abc import Hashable

from unspool.capture.frames import Place
from unspool.capture.perf_maps import PerfMaps
from unspool.model.symbol import Named, Unnamed
from unspool.session.recording import raise_priority
from unspool.session.recording_names import NameSink, by_source, kernel, names_of, source
from unspool.symbols.symbolizer import NameTable, Symbolizer

Group = tuple[Hashable, list[Place]]


class LiveNames:
    """Frames in, names out, some time later. All but the looking up happens in the recorder's own thread."""

    def __init__(self, perf_maps: PerfMaps, symbolizer: Symbolizer) -> None:
        """Start the thread; until `stop` the symbolizer is this thread's."""
        self._perf_maps = perf_maps
        self._symbolizer = symbolizer
        self._wanted: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[tuple[Place, Named]] = queue.SimpleQueue()
        self._later: list[Place] = []
        self._waiting: dict[int, Place] = {}
        self._patient: set[int] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unspool-names", daemon=True)
        self._thread.start()

    def take(self, places: list[Place], *, patient: bool = False) -> None:
        """Look these up. Their files are opened here and now: later their descriptors may be others'.

        `patient`: a frame that has no name yet may get one later, and `stop` gives it back.
        """
        self._patient.update(place.frame for place in places if patient or place.kind == "jit")
        for key, group in by_source(places).items():
            # A program adds to its map as long as it runs.
            if key not in self._symbolizer or group[0].kind == "jit":
                table = _Kernel() if group[0].kind == "kernel" else source(group[0], self._perf_maps)
                self._symbolizer.add(key, table)
            self._waiting.update((place.frame, place) for place in group)
            self._wanted.put((key, group))

    def give(self, sink: NameSink) -> None:
        """Note what was found since the last call."""
        while not self._found.empty():
            place, named = self._found.get()
            # Two guests may have asked for one frame.
            self._waiting.pop(place.frame, None)
            # A name that its runtime has not written yet may come; the first answer would stay.
            if place.frame in self._patient and isinstance(named, Unnamed):
                self._later.append(place)
            else:
                sink.name(place.frame, named)

    def stop(self, sink: NameSink) -> list[Place]:
        """End the thread after the file that it is in; the frames that have no name yet."""
        self.close()
        self._thread.join()
        self.give(sink)
        return [*self._waiting.values(), *self._later]

    def close(self) -> None:
        """Let the thread end, and do not wait for it."""
        self._stopping.set()
        self._wanted.put(None)

    def _run(self) -> None:
        # Nor do the parsers, which are forked here, get the recorder's priority.
        raise_priority(back=True)
        while (group := self._wanted.get()) is not None and not self._stopping.is_set():
            for found in zip(group[1], names_of(*group, self._symbolizer), strict=True):
                self._found.put(found)


class _Kernel:
    """The kernel's names, read at the first question: that takes longer than a recorder may be away from its ring."""

    def __init__(self) -> None:
        self._table: NameTable | Unnamed | None = None

    def name(self, address: int) -> Named:
        if self._table is None:
            self._table = kernel()
        return self._table if isinstance(self._table, Unnamed) else self._table.name(address)
