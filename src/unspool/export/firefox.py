"""The processed format of the Firefox Profiler, version 66, gzipped: threads in time, categories by kind of module, source lines.

Frames of the category "Not whole" are the marks: the outermost frame of a stack that is not whole. A guest's processes are called
`guest:NAME process`. Lost: CPU numbers, trust.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import unspool
from unspool.export.frames import location_addresses
from unspool.export.options import FunctionKind, Options, kind_of, marks_of, pid_of
from unspool.export.pieces import Pieces, in_common, rows_of_each
from unspool.export.strings import Numbered
from unspool.profile.arrays import distinct
from unspool.profile.columns import NONE, Function, Profile, Timed
from unspool.profile.tree import group_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 66
LIBRARY = 1
"""`resourceTypes.library` of the Firefox Profiler."""

# The first must be "Other": the front end looks for it.
CATEGORIES: dict[FunctionKind, tuple[str, str]] = {
    "unknown": ("Other", "grey"),
    "program": ("Program", "yellow"),
    "library": ("Library", "lightblue"),
    "kernel": ("Kernel", "green"),
    "vdso": ("vDSO", "brown"),
    "generated": ("Generated code", "magenta"),
    "mark": ("Not whole", "red"),
}
CATEGORY = {kind: number for number, kind in enumerate(CATEGORIES)}


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The compressed JSON."""
    # Level 9 takes four times as long as level 6 for two percent.
    yield gzip.compress(json.dumps(document(profile, options), separators=(",", ":")).encode(), 6, mtime=0)


def document(profile: Profile, options: Options) -> dict[str, Any]:
    """The profile as the Firefox Profiler's object."""
    timed = profile.timed
    assert timed is not None, "this format needs the time of single samples"
    tables = _Tables(profile, options)
    used = distinct(timed.stack)
    stack_of = dict(zip(used.tolist(), tables.stacks_of(used), strict=True))
    return {
        "meta": _meta(profile, options),
        "libs": [_lib(module.path, module.name, module.build_id, profile.about.arch) for module in profile.modules],
        "pages": [],
        "profilerOverhead": [],
        "counters": [],
        "shared": tables.shared(),
        "threads": list(_threads(profile, timed, stack_of)),
    }


def _meta(profile: Profile, options: Options) -> dict[str, Any]:
    about = profile.about
    return {
        "version": 30,
        "preprocessedProfileVersion": VERSION,
        "product": options.title or about.command or about.hostname or "unspool",
        "startTime": about.started_ns / 1e6,
        "interval": (about.period_ns or 1_000_000) / 1e6,
        "processType": 0,
        "stackwalk": 1,
        "debug": False,
        "symbolicated": True,
        "sourceCodeIsNotOnSearchfox": True,
        "usesOnlyOneStackType": True,
        "keepProfileThreadOrder": True,
        "importedFrom": f"unspool {unspool.__version__}",
        "oscpu": f"Linux {about.kernel} {about.arch}",
        "logicalCPUs": about.cpus,
        "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
        "categories": [{"name": name, "color": colour, "subcategories": ["Other"]} for name, colour in CATEGORIES.values()],
        "markerSchema": [],
    }


def _lib(path: str, name: str, build_id: str, arch: str) -> dict[str, Any]:
    # A breakpad id is the first 16 bytes of the build id as a little-endian GUID, and an age of 0.
    raw = build_id[:32].ljust(32, "0").upper()
    guid = "".join(raw[start : start + 2] for start in (6, 4, 2, 0, 10, 8, 14, 12)) + raw[16:] if build_id else ""
    parts = {"arch": arch, "breakpadId": guid + "0" if guid else "", "codeId": build_id or None}
    return {"name": name, "path": path, "debugName": name, "debugPath": path, **parts}


def _threads(profile: Profile, timed: Timed, stack_of: dict[int, int | None]) -> Iterator[dict[str, Any]]:
    first_of_process: set[int] = set()
    with_main = {pid_of(task) for task in profile.tasks if task.pid == task.tid}
    about = profile.about
    for number, rows in rows_of_each(timed.task):
        task = profile.tasks[number]
        times = ((timed.time_ns[rows] - about.monotonic_ns) / 1e6).round(6).tolist()
        process = pid_of(task)
        main = task.pid == task.tid or (process not in first_of_process and process not in with_main)
        first_of_process.add(process)
        yield {
            "processType": "default",
            "processName": group_name(profile, task, "comm"),
            "processStartupTime": 0,
            "processShutdownTime": None,
            "registerTime": 0,
            "unregisterTime": None,
            "pausedRanges": [],
            "name": task.thread,
            "isMainThread": main,
            "pid": str(pid_of(task)),
            "tid": task.tid,
            "samples": {
                "length": len(times),
                "stack": [stack_of[stack] for stack in timed.stack[rows].tolist()],
                "time": times,
                "weight": timed.weight[rows].tolist(),
                "weightType": "samples",
            },
            "markers": {"length": 0, "data": [], "name": [], "startTime": [], "endTime": [], "phase": [], "category": []},
        }


class _Nodes:
    """The nodes of all stacks, callers before what they call, each with the distance to its caller; 0 for an outermost one."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.prefix_offsets: list[int] = []
        self._numbers: dict[int, int] = {}
        self._calls: list[int] = []
        self._path: list[int] = []

    def innermost(self, calls: list[int]) -> int | None:
        """The number of a stack's innermost node, outermost call first; None for no calls."""
        # Most stacks share their outer calls with the stack before them.
        common = in_common(self._calls, calls)
        path = self._path[:common]
        node = path[-1] if path else NONE
        numbers, size = self._numbers, len(self.frames)
        for call in calls[common:]:
            caller, node = node, numbers.setdefault(call << 32 | node + 1, size)
            if node == size:
                self.frames.append(call)
                self.prefix_offsets.append(0 if caller == NONE else node - caller)
                size += 1
            path.append(node)
        self._calls, self._path = calls, path
        return path[-1] if path else None


class _Tables:
    """The shared tables while they fill."""

    def __init__(self, profile: Profile, options: Options) -> None:
        self.profile = profile
        self.options = options
        self.strings: Numbered[str] = Numbered()
        self.functions: Numbered[tuple[str, int, int, FunctionKind]] = Numbered()
        self.frames: Numbered[tuple[int, int, int, int]] = Numbered()
        self.nodes = _Nodes()
        frames, entries = profile.frames, profile.entries
        self._kinds = [kind_of(profile, function) for function in profile.functions]
        self._entry_start = frames.entry_start.tolist()
        self._entries = list(zip(entries.function.tolist(), entries.file.tolist(), entries.line.tolist(), strict=True))
        self._addresses, self._modules = location_addresses(profile).tolist(), frames.module.tolist()
        self._calls: dict[int, list[int]] = {}

    def stacks_of(self, stacks: NDArray[np.int64]) -> Iterator[int | None]:
        """For each stack the number of its innermost node; None for a stack without frames."""
        profile, marks = self.profile, marks_of(self.profile, self.options)
        frames = Pieces(profile.stacks.start, profile.stacks.frames, range(len(profile.frames.module)))
        for stack, row in zip(stacks.tolist(), frames.of(stacks), strict=True):
            calls: list[int] = []
            if marks[stack]:
                calls.append(self.frames.number((self.functions.number((marks[stack], NONE, NONE, "mark")), 0, 0, -1)))
            for frame in reversed(row):
                calls += self._calls.get(frame) or self._frame(frame)
            yield self.nodes.innermost(calls)

    def _frame(self, frame: int) -> list[int]:
        """The numbers of a frame's calls, outermost first."""
        start, end = self._entry_start[frame], self._entry_start[frame + 1]
        address = self._addresses[frame] if self._modules[frame] != NONE else -1
        self._calls[frame] = [self._call(entry, end - 1 - entry, address) for entry in range(end - 1, start - 1, -1)]
        return self._calls[frame]

    def _call(self, entry: int, depth: int, address: int) -> int:
        number, file, line = self._entries[entry]
        function: Function = self.profile.functions[number]
        known = self.functions.number((function.name, function.module, file, self._kinds[number]))
        return self.frames.number((known, line, depth, address))

    def shared(self) -> dict[str, Any]:
        """The tables as columns."""
        functions, frames = self.functions.things, self.frames.things
        sources = sorted({file for _, _, file, _ in functions if file != NONE})
        source_of = {file: number for number, file in enumerate(sources)}
        libraries = sorted({module for _, module, _, _ in functions if module != NONE})
        resource_of = {module: number for number, module in enumerate(libraries)}
        string = self.strings.number
        shared = {
            "stackTable": {
                "length": len(self.nodes.frames),
                "frame": self.nodes.frames,
                "prefixOffset": self.nodes.prefix_offsets,
            },
            "frameTable": {
                "length": len(frames),
                "address": [address for _, _, _, address in frames],
                "inlineDepth": [depth for _, _, depth, _ in frames],
                "category": [CATEGORY[functions[function][3]] for function, _, _, _ in frames],
                "subcategory": [0] * len(frames),
                "func": [function for function, _, _, _ in frames],
                "nativeSymbol": [None] * len(frames),
                "innerWindowID": [0] * len(frames),
                "line": [line or None for _, line, _, _ in frames],
                "column": [None] * len(frames),
                "originalLocation": [None] * len(frames),
            },
            "funcTable": {
                "length": len(functions),
                "name": [string(name) for name, _, _, _ in functions],
                "isJS": [False] * len(functions),
                "relevantForJS": [False] * len(functions),
                "resource": [resource_of.get(module, -1) for _, module, _, _ in functions],
                "source": [source_of.get(file) for _, _, file, _ in functions],
                "lineNumber": [None] * len(functions),
                "columnNumber": [None] * len(functions),
                "originalLocation": [None] * len(functions),
            },
            "resourceTable": {
                "length": len(libraries),
                "lib": libraries,
                "name": [string(self.profile.modules[module].name) for module in libraries],
                "host": [None] * len(libraries),
                "type": [LIBRARY] * len(libraries),
            },
            "nativeSymbols": {"length": 0, "libIndex": [], "address": [], "name": [], "functionSize": []},
            "sourceLocationTable": {"length": 0, "source": [], "line": [], "column": []},
            "sources": _sources([string(self.profile.files[file]) for file in sources]),
        }
        return {"stringArray": self.strings.things, **shared}


def _sources(names: list[int]) -> dict[str, Any]:
    count = len(names)
    starts = {"startLine": [1] * count, "startColumn": [1] * count, "sourceMapURL": [None] * count, "content": [None] * count}
    return {"length": count, "id": [None] * count, "filename": names, **starts}
