"""A call tree as lines of text: a chain of single calls stands straight below itself, so that deep stacks stay on the screen."""

from __future__ import annotations

from collections.abc import Iterator

from unspool.cli.printable import printable
from unspool.model.percent import percent
from unspool.profile.columns import Profile
from unspool.profile.tree import Grouping, Tree, grow

SPACES_AT_MOST = 60


def tree_lines(profile: Profile, by: Grouping, least_percent: float) -> Iterator[str]:
    """Total and self of each node that has at least that part of the whole, callers above what they call."""
    tree = grow(profile, by=by)
    whole = int(tree.total[0]) or 1
    least = max(int(whole * least_percent / 100), 1)
    yield "   total      self  call tree"
    waiting = _branches(tree, 0, least, "")
    while waiting:
        node, lead, below = waiting.pop()
        shares = "  ".join(f"{percent(int(value[node]), whole):>8}" for value in (tree.total, tree.own))
        yield f"{shares}  {lead}{_name(tree, profile, node)}"
        waiting.extend(_branches(tree, node, least, below))


def _branches(tree: Tree, node: int, least: int, lead: str) -> list[tuple[int, str, str]]:
    """The children to print, last first: node, what stands before it, and what stands before its children."""
    children = [child for child in tree.children(node) if tree.total[child] >= least]
    if len(lead) > SPACES_AT_MOST:
        lead = f"({len(lead) // 3}) "
    if len(children) == 1:
        return [(children[0], lead, lead)]
    branches = [(child, lead + "|- ", lead + "|  ") for child in children[:-1]]
    branches += [(child, lead + "`- ", lead + "   ") for child in children[-1:]]
    return branches[::-1]


def _name(tree: Tree, profile: Profile, node: int) -> str:
    function = tree.functions[tree.function[node]]
    module = profile.module_name(function.module)
    return printable(f"{function.name}  ({module})" if module and function.named else function.name)
