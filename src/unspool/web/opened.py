"""A recording in memory: what was read of its file once, and what was computed for a filter last."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.export.options import kind_of
from unspool.profile.columns import NONE, Profile
from unspool.profile.filters import EVERYTHING, Filter
from unspool.profile.paths import Paths, paths
from unspool.store.load import load
from unspool.store.reader import open_recording
from unspool.web.selection import select

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

KEPT = 6
"""How many filters' results are kept: the views of a page ask for the same one at the same time."""


class Opened:
    """A recording's samples in columns; its file is closed again."""

    def __init__(self, name: str, profile: Profile) -> None:
        """Take a profile with single samples."""
        self.name = name
        self.profile = profile
        # Not a method: the cache would hold what holds the cache, and each picture of a live page wait for the garbage collector.
        self.select = lru_cache(KEPT)(partial(_selected, profile))

    @classmethod
    def of(cls, path: Path, name: str = "") -> Opened:
        """Read a file, to be shown under that name (default: the file's); RecordingError when it is no recording."""
        with open_recording(path) as recording:
            return cls(name or path.name, load(recording, timed=True))

    @cached_property
    def paths(self) -> Paths:
        """Every stack as calls; filters keep the stacks, so it holds for each of them."""
        return paths(self.profile)

    @cached_property
    def inverted(self) -> Paths:
        """Every stack as calls, outermost first: a tree of them begins with what ran."""
        import numpy as np

        of = self.paths
        total = len(of.entries)
        owner = np.repeat(np.arange(len(of.start) - 1), of.lengths)
        turned = of.start[:-1][owner] + of.start[1:][owner] - 1 - np.arange(total)
        return replace(of, entries=of.entries[turned])

    @cached_property
    def hot_entry(self) -> Ints:
        """For each function the entry (file and line) that most samples passed through, or NONE."""
        import numpy as np

        from unspool.profile.arrays import summed

        entries, of = self.profile.entries, self.paths
        by_stack = summed(self.profile.counted.stack, self.profile.counted.weight, len(self.profile.stacks))
        weight = summed(of.entries, np.repeat(by_stack, of.lengths), len(entries.function))
        found = np.full(len(self.profile.functions), NONE, dtype=np.int64)
        # The last one written stays: the heaviest entry of each function comes last.
        order = np.lexsort((np.arange(len(weight)), weight))
        order = order[entries.file[order] != NONE]
        found[entries.function[order]] = order
        return found

    def place(self, function: int) -> str:
        """file:line of a function, where most samples passed through it; empty when it is not known."""
        entry = int(self.hot_entry[function])
        if entry == NONE:
            return ""
        file, line = self.profile.files[int(self.profile.entries.file[entry])], int(self.profile.entries.line[entry])
        return f"{file}:{line}" if line else file

    def names(self, functions: list[int]) -> dict[str, object]:
        """Columns on functions of this profile: name, module's path, kind, and file:line."""
        profile = self.profile
        chosen = [profile.functions[index] for index in functions]
        return {
            "name": [function.name for function in chosen],
            "module": ["" if function.module == NONE else profile.modules[function.module].path for function in chosen],
            "kind": [kind_of(profile, function) for function in chosen],
            "place": [self.place(index) for index in functions],
        }


def _selected(profile: Profile, only: Filter) -> Profile:
    return profile if only == EVERYTHING else select(profile, only)
