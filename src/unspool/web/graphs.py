"""Call trees as flat columns for the page to draw: of all samples, of one function's callers and callees, of two recordings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unspool.errors import BadRequest
from unspool.export.layout import kinds, lay_out
from unspool.profile.arrays import spans
from unspool.profile.columns import NONE, Counted, Function, Profile, Stacks
from unspool.profile.paths import Paths
from unspool.profile.tree import Grouping, Tree, grow
from unspool.web.opened import Opened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

Json = dict[str, object]
BOXES = 200_000
"""The largest boxes are sent; what is left out is narrower than a pixel of the whole picture."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a tree is wanted: what stands below the root, whether marks do, and whether it begins with what ran (`inverted`)."""

    by: Grouping = "comm"
    marks: bool = True
    inverted: bool = False


def flame(opened: Opened, profile: Profile, shape: Shape) -> Json:
    """The call tree of a profile."""
    of = opened.inverted if shape.inverted else opened.paths
    return columns(opened, profile, grow(profile, by=shape.by, marks=shape.marks, of=of))


def sandwich(opened: Opened, profile: Profile, name: str, module: str) -> Json:
    """What calls a function, and what it calls. In a recursion the outermost call counts, so that each sample counts once."""
    import numpy as np

    wanted = [index for index, function in enumerate(profile.functions) if function.name == name and _path(profile, function) == module]
    if not wanted:
        raise BadRequest(f"no function {name!r} in {module!r}")
    of = opened.paths
    hits = np.isin(profile.entries.function[of.entries], wanted)
    owner = np.repeat(np.arange(len(of.start) - 1), of.lengths)
    # Stacks are innermost first: the last hit of a stack is its outermost one.
    last = np.full(len(of.start) - 1, NONE, dtype=np.int64)
    last[owner[hits]] = np.flatnonzero(hits)
    found = last != NONE
    chosen = profile.keep(found)
    callees = _part(of, np.where(found, of.start[:-1], 0), np.where(found, last + 1, 0))
    upside = opened.inverted
    # In the inverted stack the same call stands as far from the end as from the start here.
    mirror = of.start[:-1] + of.start[1:] - 1 - last
    callers = _part(upside, np.where(found, of.start[:-1], 0), np.where(found, mirror + 1, 0))
    return {
        "callers": columns(opened, chosen, grow(chosen, by="none", marks=False, of=callers)),
        "callees": columns(opened, chosen, grow(chosen, by="none", marks=False, of=callees)),
        "weight": profile.weight,
    }


def columns(opened: Opened, profile: Profile, tree: Tree) -> Json:
    """Boxes level by level: `parent` is the distance back to the caller's box, `function` an index into the names."""
    import numpy as np

    boxes = lay_out(tree, at_most=BOXES)
    used, function = np.unique(boxes.function, return_inverse=True)
    return {
        **_names(opened, profile, tree, used.tolist()),
        "parent": _distances(boxes.parent),
        "function": function.tolist(),
        "own": boxes.own.tolist(),
        "total": boxes.total.tolist(),
        "left_out": boxes.left_out,
    }


def joint(before: tuple[Opened, Profile], after: tuple[Opened, Profile], shape: Shape) -> Json:
    """The call tree of two profiles together: each box's shares before and after; its width is their mean, in millionths."""
    import numpy as np

    both, of, origins = _joined(before, after)
    sides = [replace(both, counted=replace(both.counted, weight=weight)) for weight in _sides(both, before[1])]
    # The rows, and so the nodes, of both trees are the same: only the weights differ.
    trees = [grow(side, by=shape.by, marks=shape.marks, of=of) for side in sides]
    shares = [tree.total / max(int(tree.total[0]), 1) for tree in trees]
    mean = np.round((shares[0] + shares[1]) * 5e5).astype(np.int64)
    tree = replace(trees[0], total=mean, own=np.arange(len(mean), dtype=np.int64))
    boxes = lay_out(tree, at_most=BOXES)
    used, function = np.unique(boxes.function, return_inverse=True)
    kind_names = kinds(both, tree)
    return {
        "name": [tree.functions[index].name for index in used.tolist()],
        "module": [_path(both, tree.functions[index]) for index in used.tolist()],
        "kind": [kind_names[index] for index in used.tolist()],
        "place": [_place(origins[index], before[0], after[0]) if index < len(origins) else "" for index in used.tolist()],
        "parent": _distances(boxes.parent),
        "function": function.tolist(),
        "own": [0] * len(boxes),
        "total": boxes.total.tolist(),
        # `own` carried each node's number through the layout.
        "before": np.round(shares[0][boxes.own], 6).tolist(),
        "after": np.round(shares[1][boxes.own], 6).tolist(),
        "left_out": boxes.left_out,
    }


def _names(opened: Opened, profile: Profile, tree: Tree, used: list[int]) -> Json:
    kind_names = kinds(profile, tree)
    own = len(profile.functions)
    return {
        "name": [tree.functions[index].name for index in used],
        "module": [_path(profile, tree.functions[index]) for index in used],
        "kind": [kind_names[index] for index in used],
        "place": [opened.place(index) if index < own else "" for index in used],
    }


def _distances(parent: Ints) -> list[int]:
    import numpy as np

    return np.where(parent < 0, 0, np.arange(len(parent)) - parent).tolist()  # type: ignore[no-any-return]


def _path(profile: Profile, function: Function) -> str:
    return "" if function.module == NONE else profile.modules[function.module].path


def _part(of: Paths, starts: Ints, ends: Ints) -> Paths:
    """The calls from a place to another of each stack."""
    import numpy as np

    lengths = ends - starts
    return Paths(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), of.entries[spans(starts, lengths)])


def _sides(both: Profile, before: Profile) -> tuple[Ints, Ints]:
    import numpy as np

    is_before = np.arange(len(both.counted)) < len(before.counted)
    weight = both.counted.weight
    return np.where(is_before, weight, 0), np.where(is_before, 0, weight)


def _place(origin: list[int], before: Opened, after: Opened) -> str:
    """file:line of a function of both, as it is after, else as it was before."""
    first, second = origin
    return (after.place(second) if second != NONE else "") or (before.place(first) if first != NONE else "")


def _joined(before: tuple[Opened, Profile], after: tuple[Opened, Profile]) -> tuple[Profile, Paths, list[list[int]]]:
    """One profile of both, whose functions are the same where name and module's file name are: a new build compares with the old one.

    The last part says for each of its functions which one it is before and after, or NONE.
    """
    import numpy as np

    (first, one), (second, two) = before, after
    functions: list[Function] = []
    known: dict[tuple[str, str], int] = {}
    origins: list[list[int]] = []

    def place(side: int, number: int, function: Function) -> int:
        profile, shift = (two, len(one.modules)) if side else (one, 0)
        key = (function.name, profile.module_name(function.module))
        if key not in known:
            known[key] = len(functions)
            functions.append(replace(function, module=NONE if function.module == NONE else function.module + shift))
            origins.append([NONE, NONE])
        origins[known[key]][side] = number
        return known[key]

    maps = [
        np.array([place(side, number, function) for number, function in enumerate(profile.functions)] or [0], dtype=np.int64)
        for side, profile in enumerate((one, two))
    ]
    entries = replace(one.entries, function=np.concatenate([maps[0][one.entries.function], maps[1][two.entries.function]]))
    ways = Paths(
        np.concatenate([first.paths.start, second.paths.start[1:] + first.paths.start[-1]]),
        np.concatenate([first.paths.entries, second.paths.entries + len(one.entries.function)]),
    )
    merged = replace(
        one,
        modules=(*one.modules, *two.modules),
        functions=tuple(functions),
        guests=(*one.guests, *two.guests),
        tasks=(*one.tasks, *(task if task.guest == NONE else replace(task, guest=task.guest + len(one.guests)) for task in two.tasks)),
        entries=entries,
        stacks=_both_stacks(one, two),
        counted=_both_counted(one, two),
        timed=None,
    )
    return merged, ways, origins


def _both_stacks(one: Profile, two: Profile) -> Stacks:
    """The columns of both that a tree and its marks need."""
    import numpy as np

    pairs = {name: (getattr(one.stacks, name), getattr(two.stacks, name)) for name in Stacks.__slots__}
    joined = {name: np.concatenate(pair) for name, pair in pairs.items()}
    causes = two.stacks.stop_module
    joined["stop_module"] = np.concatenate([one.stacks.stop_module, np.where(causes == NONE, NONE, causes + len(one.modules))])
    joined["start"] = np.concatenate([one.stacks.start, two.stacks.start[1:] + one.stacks.start[-1]])
    return Stacks(**joined)


def _both_counted(one: Profile, two: Profile) -> Counted:
    import numpy as np

    shifts = {"task": len(one.tasks), "event": 0, "stack": len(one.stacks), "vcpu": 0, "count": 0, "weight": 0}
    return Counted(
        **{name: np.concatenate([getattr(one.counted, name), getattr(two.counted, name) + shift]) for name, shift in shifts.items()}
    )
