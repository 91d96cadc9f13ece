"""The call tree of a profile, as columns, grown level by level: no recursion, whatever the depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

from unspool.model.guest import HOST
from unspool.profile.arrays import grouped, numbered, summed
from unspool.profile.columns import NONE, Function, Profile, Task
from unspool.profile.paths import Paths, paths

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

Grouping = Literal["comm", "none", "process", "thread", "guest", "vcpu"]
"""What stands below the root: the command name, nothing, the process (name and pid), process and thread, the machine alone, or its
virtual CPUs.

Tasks of a guest stand below their guest (`guest:NAME`), but for `none`.
"""
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)
GUEST = "guest:"
"""What stands before a guest's name where it is a group."""


@dataclass(frozen=True)
class Tree:
    """Node 0 is the root; a parent stands before its children. `function` is an index into `functions`.

    `functions` are the profile's, followed by the words that stand in the tree beside them (groups and marks).
    `own` and `total` are weights. The nodes from one number in `steps` to the next have all their parents before them.
    """

    functions: tuple[Function, ...]
    marks: frozenset[int]
    groups: frozenset[int]
    parent: Ints
    function: Ints
    own: Ints
    total: Ints
    steps: tuple[int, ...]

    def __len__(self) -> int:
        """How many nodes."""
        return len(self.parent)

    @cached_property
    def _children(self) -> tuple[Ints, Ints]:
        """Where each node's children start in the second column, which holds them, largest total first."""
        import numpy as np

        order = np.lexsort((self.function[1:], -self.total[1:], self.parent[1:])) + 1
        starts = np.searchsorted(self.parent[order], np.arange(len(self) + 1))
        return starts, order

    def depths(self) -> Ints:
        """How many calls (groups and marks included) stand between each node and the root; 0 for the root."""
        import numpy as np

        depth = np.zeros(len(self), dtype=np.int64)
        for start, end in pairwise([*self.steps, len(self)]):
            depth[start:end] = depth[self.parent[start:end]] + 1
        return depth

    def children(self, node: int) -> list[int]:
        """The nodes called from a node, largest total first."""
        starts, order = self._children
        return [int(child) for child in order[starts[node] : starts[node + 1]]]

    def walk(self, *, least: int = 1) -> Iterator[tuple[int, int]]:
        """Every node but the root whose total is at least `least`, with its depth: callers before what they call, largest first."""
        waiting = [(child, 0) for child in reversed(self.children(0))]
        while waiting:
            node, depth = waiting.pop()
            if self.total[node] < least:
                continue
            yield node, depth
            waiting.extend((child, depth + 1) for child in reversed(self.children(node)))


@dataclass(slots=True)
class _Growth:
    """The tree while it grows: for each row the node it has reached, and the levels that are finished."""

    size: int
    row_node: Ints
    parents: list[Ints]
    functions: list[Ints]
    nodes: int = 1
    steps: list[int] = field(default_factory=list)

    def step(self, rows: Ints, functions: Ints) -> None:
        """Take the marked rows one call further from the root."""
        keys, places = grouped(self.row_node[rows] * self.size + functions)
        self.parents.append(keys // self.size)
        self.functions.append(keys % self.size)
        self.row_node[rows] = places + self.nodes
        self.steps.append(self.nodes)
        self.nodes += len(keys)


def grow(profile: Profile, *, by: Grouping = "comm", marks: bool = True, of: Paths | None = None) -> Tree:
    """The call tree: below the root the groups, then (if `marks`) why a stack is not whole, then the calls, outermost first."""
    import numpy as np

    of = of or paths(profile)
    rows, stack, weight, ways = _rows(profile, by)
    levels, names = _levels(ways)
    functions = [Function("all"), *map(Function, names)]
    groups = frozenset(range(len(profile.functions) + 1, len(profile.functions) + len(functions)))
    base = len(profile.functions)
    mark_of, words = _marks(profile, base + len(functions)) if marks else (None, [])
    growth = _Growth(base + len(functions) + len(words), np.zeros(len(stack), dtype=np.int64), [], [])
    everyone = np.arange(len(stack), dtype=np.int64)
    for level in levels:
        grouped_rows = everyone[level[rows] != NONE]
        growth.step(grouped_rows, level[rows[grouped_rows]] + base + 1)
    if mark_of is not None:
        marked = everyone[mark_of[stack] != NONE]
        if len(marked):
            growth.step(marked, mark_of[stack[marked]])
    _grow_calls(growth, profile.entries.function[of.entries], of, stack)
    parent = np.concatenate([np.full(1, NONE, dtype=np.int64), *growth.parents])
    function = np.concatenate([np.full(1, base, dtype=np.int64), *growth.functions])
    own = summed(growth.row_node, weight, growth.nodes)
    mark_numbers = frozenset(range(base + len(functions), growth.size))
    return Tree(
        functions=(*profile.functions, *functions, *words),
        marks=mark_numbers,
        groups=groups,
        parent=parent,
        function=function,
        own=own,
        total=_totals(own, parent, growth),
        steps=tuple(growth.steps),
    )


def _grow_calls(growth: _Growth, functions: Ints, of: Paths, stack: Ints) -> None:
    import numpy as np

    lengths = of.lengths[stack]
    last = of.start[1:][stack] - 1
    # Longest first, so that the rows that still go on are always the first ones.
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    for depth in range(int(ordered[0]) if len(ordered) else 0):
        active = order[: np.searchsorted(-ordered, -depth)]
        growth.step(active, functions[last[active] - depth])


def _totals(own: Ints, parent: Ints, growth: _Growth) -> Ints:
    import numpy as np

    total = own.copy()
    end = growth.nodes
    for level in reversed(growth.parents):
        start = end - len(level)
        np.add.at(total, parent[start:end], total[start:end])
        end = start
    return total


def _rows(profile: Profile, by: Grouping) -> tuple[Ints, Ints, Ints, list[tuple[str, ...]]]:
    """The distinct (group, stack) pairs with their weights, and what each group is called, outermost first."""
    groups, ways = groups_of(profile, by, profile.counted.task, profile.counted.vcpu)
    size = max(len(profile.stacks), 1)
    keys, places = grouped(groups * size + profile.counted.stack)
    weight = summed(places, profile.counted.weight, len(keys))
    return keys // size, keys % size, weight, ways


def groups_of(profile: Profile, by: Grouping, task: Ints, vcpu: Ints) -> tuple[Ints, list[tuple[str, ...]]]:
    """The group of each row of threads and virtual CPUs, as a place among the groups; and what each group is called, outermost first."""
    if by != "vcpu":
        group_of, ways = numbered(_group(profile, one, by) for one in profile.tasks)
        return group_of[task], ways
    width = int(vcpu.max(initial=NONE)) + 2
    pairs, places = grouped(task * width + vcpu + 1)
    group_of, ways = numbered(_group(profile, profile.tasks[pair // width], by, pair % width - 1) for pair in pairs.tolist())
    return group_of[places], ways


def _levels(ways: list[tuple[str, ...]]) -> tuple[list[Ints], list[str]]:
    """For each level of groups the place of every group's name among the names, NONE where a group has fewer; and the names."""
    import numpy as np

    names: dict[tuple[int, str], int] = {}
    deepest = max(map(len, ways), default=0)
    levels = [
        np.array([names.setdefault((depth, way[depth]), len(names)) if depth < len(way) else NONE for way in ways], dtype=np.int64)
        for depth in range(deepest)
    ]
    return levels, [name for _, name in names]


def _group(profile: Profile, task: Task, by: Grouping, vcpu: int = NONE) -> tuple[str, ...]:
    """What stands for a thread in the tree, outermost first: its guest when it has one, then its group."""
    guest = profile.guest_of(task)
    machine = () if guest is None else (GUEST + guest.label,)
    match by:
        case "none":
            return ()
        case "guest":
            return machine or (HOST,)
        case "vcpu":
            return (*(machine or (HOST,)), *([] if vcpu == NONE else [f"vCPU {vcpu}"]))
        case "comm":
            return (*machine, task.process)
        case "process":
            return (*machine, f"{task.process} ({task.pid})")
        case "thread":
            return (*machine, f"{task.process} ({task.pid}) {task.thread} ({task.tid})")


def group_name(profile: Profile, task: Task, by: Grouping) -> str:
    """What stands for a thread in the tree, in one line."""
    return " ".join(_group(profile, task, by))


def _marks(profile: Profile, first: int) -> tuple[Ints, list[Function]]:
    """For each stack the function number of its mark or NONE, and the marks."""
    import numpy as np

    words: dict[str, int] = {}
    stacks = profile.stacks
    size = len(profile.modules) + 1
    _, places = grouped(((stacks.stop * 256 + stacks.reason) * 4 + stacks.verdict) * size + stacks.stop_module + 1)
    example = np.zeros(int(places.max()) + 1 if len(places) else 0, dtype=np.int64)
    example[places] = np.arange(len(places), dtype=np.int64)
    number_of = [_number(words, profile.mark(int(stack)), first) for stack in example]
    return np.array(number_of or [NONE], dtype=np.int64)[places], [Function(word) for word in words]


def _number(words: dict[str, int], word: str, first: int) -> int:
    return words.setdefault(word, first + len(words)) if word else NONE
