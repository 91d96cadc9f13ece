"""A call tree laid out for drawing: the largest boxes, level by level, callers before what they call, larger ones to the left."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from unspool.export.options import FunctionKind, kind_of
from unspool.profile.columns import NO_USER_STACK, NONE, Function, Profile
from unspool.profile.tree import Tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes as columns; box 0 is the root, a parent stands before its children, and boxes of one level stand together from left to right.

    `left` and `total` are in units of weight, `depth` in levels; `left_out` boxes were too small to be kept.
    """

    parent: Ints
    function: Ints
    own: Ints
    total: Ints
    left: Ints
    depth: Ints
    left_out: int

    def __len__(self) -> int:
        """How many boxes."""
        return len(self.parent)


def lay_out(tree: Tree, *, at_most: int) -> Layout:
    """The `at_most` largest boxes. A caller is as large as what it calls, so no box is left without its caller."""
    import numpy as np

    kept = np.ones(len(tree), dtype=bool)
    if len(tree) > at_most:
        # The smallest totals go, all boxes of one size together.
        limit = np.partition(tree.total, len(tree) - at_most)[len(tree) - at_most]
        kept = tree.total > limit
        kept[0] = True
    old = np.flatnonzero(kept)
    depth = tree.depths()[old]
    old = old[np.argsort(depth, kind="stable")]
    bounds = np.concatenate(([0], np.cumsum(np.bincount(depth))))
    place = np.full(len(tree) + 1, NONE, dtype=np.int64)  # the last entry is the parent of the root
    left = np.zeros(len(tree) + 1, dtype=np.int64)
    for start, end in pairwise(bounds.tolist()):
        nodes = old[start:end]
        nodes = nodes[np.lexsort((tree.function[nodes], -tree.total[nodes], place[tree.parent[nodes]]))]
        old[start:end] = nodes
        place[nodes] = np.arange(start, end)
        left[nodes] = _lefts(tree.parent[nodes], tree.total[nodes], left)
    return Layout(
        parent=place[tree.parent[old]],
        function=tree.function[old],
        own=tree.own[old],
        total=tree.total[old],
        left=left[old],
        depth=np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)),
        left_out=len(tree) - len(old),
    )


def _lefts(parents: Ints, totals: Ints, left: Ints) -> Ints:
    """Where each box of a level begins: at its caller's left edge, or where the box before it ends."""
    import numpy as np

    before = np.cumsum(totals) - totals
    first = np.ones(len(parents), dtype=bool)
    first[1:] = parents[1:] != parents[:-1]
    family = np.cumsum(first) - 1
    edges: Ints = left[parents] + before - before[first][family]
    return edges


def kinds(profile: Profile, tree: Tree) -> list[FunctionKind]:
    """The kind of each of the tree's functions."""
    # Of each module once: a recording of a whole machine has more functions than modules by far.
    of: list[FunctionKind] = [kind_of(profile, Function("", number)) for number in range(len(profile.modules))]
    found: list[FunctionKind] = ["unknown" if function.module == NONE else of[function.module] for function in tree.functions]
    for number in (tree.function[0], *tree.groups):
        found[number] = "group"
    for number in tree.marks:
        # A thread without a user stack has nothing that could be missing.
        found[number] = "group" if tree.functions[number].name.startswith(NO_USER_STACK[:-1]) else "mark"
    return found
