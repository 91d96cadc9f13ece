"""A flame graph as one HTML file that works without a network: zoom, search with the share of what matches, and every verdict.

Lost: time, threads (choose `--by thread` to keep them), lines. The largest 200,000 boxes are kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from unspool.export.layout import kinds, lay_out
from unspool.export.options import Options
from unspool.profile.columns import Profile, ending_of
from unspool.profile.quality import quality
from unspool.profile.tree import grow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BOXES = 200_000


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The page."""
    page = files("unspool.export") / "page"
    style, script = ((page / name).read_text("utf-8") for name in ("flame.css", "flame.js"))
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    data = _embeddable(flame_data(profile, options))
    template = (page / "flame.html").read_text("utf-8")
    title = options.title or profile.about.command or profile.about.hostname or "flame graph"
    for part in _filled(template, {"policy": escape(policy), "title": escape(title), "style": style, "data": data, "script": script}):
        yield part.encode("utf-8", "backslashreplace")


def flame_data(profile: Profile, options: Options) -> dict[str, object]:
    """What the page draws: names, and boxes as columns, level by level from the root (`Layout`)."""
    tree = grow(profile, by=options.by, marks=options.marks)
    boxes = lay_out(tree, at_most=BOXES)
    used, function = _renumbered(boxes.function)
    kind_names = kinds(profile, tree)
    about, found = profile.about, quality(profile)
    return {
        "title": options.title or about.command,
        "machine": f"{about.hostname}, Linux {about.kernel} {about.arch}",
        "duration_s": about.duration_s,
        "lost": about.lost,
        "samples": found.samples,
        "whole": found.whole,
        "cut": found.cut,
        "none": found.none,
        "verdicts": {verdict.label: count for verdict, count in found.verdicts.items()},
        "stops": [{"stop": cause.stop.label, "ending": ending_of(cause.stop), "samples": cause.samples} for cause in found.causes],
        "left_out": boxes.left_out,
        "functions": [
            [tree.functions[number].name, profile.module_name(tree.functions[number].module), kind_names[number]] for number in used
        ],
        # Distances to the parent are small numbers, and small numbers are short text.
        "parent": (-_distances(boxes.parent)).tolist(),
        "function": function,
        "total": boxes.total.tolist(),
        "own": boxes.own.tolist(),
    }


def _distances(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    import numpy as np

    distances: NDArray[np.int64] = np.where(parent < 0, 0, parent - np.arange(len(parent)))
    return distances


def _renumbered(functions: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """The functions that occur, and for each box its place among them."""
    import numpy as np

    used, places = np.unique(functions, return_inverse=True)
    return used.tolist(), places.tolist()


def _embeddable(data: object) -> str:
    """JSON that cannot end the script element it stands in: no `<`, no `>`, no `&`, only ASCII."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(source: str) -> str:
    """What the content security policy knows an inline block by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _filled(template: str, values: dict[str, str]) -> Iterator[str]:
    """The template with each `{{name}}` replaced once; nothing inside a value is replaced."""
    rest = template
    while "{{" in rest:
        before, _, rest = rest.partition("{{")
        name, _, rest = rest.partition("}}")
        yield before
        yield values[name]
    yield rest
