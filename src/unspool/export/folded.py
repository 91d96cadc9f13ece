"""Folded stacks: a line a call path, root first, `comm;main;f 12`. Read by flamegraph.pl, inferno, speedscope and the Firefox Profiler.

Lost: time, threads (choose `--by thread` to keep them), lines, inlining, trust. The verdict is the mark below the root.
"""

from __future__ import annotations

from collections.abc import Iterator

from unspool.export.options import Options, one_line
from unspool.profile.columns import Profile
from unspool.profile.tree import grow


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The lines, sorted; equal paths are one line."""
    tree = grow(profile, by=options.by, marks=options.marks)
    # A semicolon ends a frame in this format and cannot be escaped.
    names = [one_line(function.name).replace(";", ":") for function in tree.functions]
    parents, functions, own = tree.parent.tolist(), tree.function.tolist(), tree.own.tolist()
    lines = []
    for leaf in tree.own.nonzero()[0].tolist():
        path, node = [], leaf
        while node:
            path.append(names[functions[node]])
            node = parents[node]
        lines.append(f"{';'.join(reversed(path)) or 'all'} {own[leaf]}\n")
    lines.sort()
    for start in range(0, len(lines), 10_000):
        yield "".join(lines[start : start + 10_000]).encode()
