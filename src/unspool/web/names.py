"""Names from elsewhere put into a profile: frames without a name get one, and everything else stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unspool.profile.columns import NO_OFFSET, Function, Profile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

Key = tuple[int, int, str, str]
"""A frame that has no name: its address and offset, and its module's path and build id."""


@dataclass(frozen=True, slots=True)
class Added:
    """Names that a file gave: what it was called, for which modules, how many addresses it was asked for; (function, offset) of each."""

    name: str
    modules: tuple[str, ...]
    asked: int
    names: dict[Key, tuple[str, int]]


def bare_frames(profile: Profile, modules: Sequence[int]) -> tuple[Ints, list[int]]:
    """The frames of those modules that have no name, and the place to look each up: its offset, or its address where it has none.

    Of a return address that is one byte before: inside the call. Only what stands at the beginning of a stack is no return address.
    """
    import numpy as np

    frames, stacks = profile.frames, profile.stacks
    named = np.array([function.named for function in profile.functions], dtype=bool)
    bare = ~named[profile.entries.function[frames.entry_start[:-1]]] if len(named) else np.zeros(0, dtype=bool)
    found = np.flatnonzero(bare & np.isin(frames.module, list(modules)))
    exact = np.zeros(len(frames.module), dtype=bool)
    for first in (stacks.start[:-1], stacks.start[:-1] + stacks.kernel_frames):
        exact[stacks.frames[first[first < stacks.start[1:]]]] = True
    places = [
        int(frames.address[frame] if int(frames.offset[frame]) == NO_OFFSET else frames.offset[frame]) - (not exact[frame])
        for frame in found.tolist()
    ]
    return found, places


def with_names(profile: Profile, added: Sequence[Added]) -> Profile:
    """The profile with these names; the first file that has one for a frame gives it."""
    if not added:
        return profile
    frames = profile.frames
    functions = list(profile.functions)
    known = {(function.name, function.module): number for number, function in enumerate(functions) if function.named}
    function, offset = profile.entries.function.copy(), profile.entries.offset.copy()
    bare, _ = bare_frames(profile, range(len(profile.modules)))
    for frame in bare.tolist():
        module = int(frames.module[frame])
        where = profile.modules[module]
        key = (int(frames.address[frame]), int(frames.offset[frame]), where.path, where.build_id)
        found = next((one.names[key] for one in added if key in one.names), None)
        if found is None:
            continue
        number = known.setdefault((found[0], module), len(functions))
        if number == len(functions):
            functions.append(Function(found[0], module))
        entry = int(frames.entry_start[frame])
        function[entry], offset[entry] = number, found[1]
    entries = replace(profile.entries, function=function, offset=offset)
    return replace(profile, functions=tuple(functions), entries=entries)
