"""A flame graph as one still SVG picture: hovering shows each box's numbers, no script runs in it.

Lost: time, threads, lines; boxes too narrow to be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from unspool.export.layout import kinds, lay_out
from unspool.export.options import FunctionKind, Options, one_line
from unspool.model.percent import percent
from unspool.profile.columns import Profile
from unspool.profile.quality import quality
from unspool.profile.tree import grow

WIDTH = 1200.0
ROW = 18
MARGIN = 10
HEAD = 84
FOOT = 10
LETTER = 6.6
"""Width of a letter of the 11 px monospace font."""
NARROWEST = 0.4
"""Boxes narrower than this many pixels are left out."""

# Okabe and Ito's palette, which colour-blind people can tell apart; marks are hatched as well, so that nothing is said by colour alone.
COLOURS: dict[FunctionKind, tuple[str, str]] = {
    "program": ("#f0b041", "program"),
    "library": ("#7cc4ec", "library"),
    "kernel": ("#5cc0a0", "kernel"),
    "vdso": ("#f3e96b", "vDSO"),
    "generated": ("#da8ac2", "generated code"),
    "unknown": ("#c8c8c8", "unknown place"),
    "group": ("#eaeaea", "process"),
    "mark": ("url(#cut)", "not whole, and why"),
}
STYLE = (
    "text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#111}.t{font-size:16px}"
    ".b text{pointer-events:none}rect{stroke:#fff;stroke-width:.5}"
)


def chunks(profile: Profile, options: Options) -> Iterator[bytes]:
    """The picture."""
    tree = grow(profile, by=options.by, marks=options.marks)
    whole = int(tree.total[0]) or 1
    boxes = lay_out(tree, at_most=200_000)
    scale = (WIDTH - 2 * MARGIN) / whole
    wide = (boxes.total * scale >= NARROWEST).nonzero()[0].tolist()
    deepest = int(boxes.depth[wide].max()) if wide else 0
    height = HEAD + (deepest + 1) * ROW + FOOT
    yield _head(profile, options, height).encode()
    names = [one_line(function.name) for function in tree.functions]
    places = [profile.module_name(function.module) if function.named else "" for function in tree.functions]
    colours = [COLOURS[kind][0] for kind in kinds(profile, tree)]
    left, total, depth, function, own = (column.tolist() for column in (boxes.left, boxes.total, boxes.depth, boxes.function, boxes.own))
    for box in wide:
        number = function[box]
        # The root is on top: deep stacks would push it out of sight.
        x, y, width = MARGIN + left[box] * scale, HEAD + depth[box] * ROW, total[box] * scale
        name = names[number]
        place = f" ({places[number]})" if places[number] else ""
        title = f"{name}{place}: {total[box]:,} samples, {100 * total[box] / whole:.2f} %; self {own[box]:,}"
        room = int((width - 6) / LETTER)
        shown = (name if len(name) <= room else name[: room - 1] + "…") if room >= 3 else ""
        text = f'<text x="{x + 3:.1f}" y="{y + 13}">{escape(shown)}</text>' if shown else ""
        yield (
            f'<g class="b"><title>{escape(title)}</title>'
            f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{ROW - 1}" fill="{colours[number]}" rx="1"/>{text}</g>\n'
        ).encode()
    yield b"</svg>\n"


def _head(profile: Profile, options: Options, height: int) -> str:
    found = quality(profile)
    title = one_line(options.title or profile.about.command or profile.about.hostname or "flame graph")
    whole = f"{percent(found.stack_share(found.whole))} of user stacks whole"
    say = f"{found.samples:,} samples, {whole}, {profile.about.lost:,} lost; width is share of samples"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height}" width="{WIDTH:.0f}" height="{height}" role="img">\n',
        f"<title>{escape(title)}</title><style>{STYLE}</style>\n",
        '<defs><pattern id="cut" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">',
        '<rect width="6" height="6" fill="#f4b08c"/><rect width="2" height="6" fill="#d55e00"/></pattern></defs>\n',
        f'<rect width="100%" height="{height}" fill="#fff"/>\n',
        f'<text class="t" x="{MARGIN}" y="26">{escape(title)}</text><text x="{MARGIN}" y="46">{escape(say)}</text>\n',
    ]
    x = float(MARGIN)
    for colour, label in COLOURS.values():
        parts.append(f'<rect x="{x:.0f}" y="54" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16:.0f}" y="64">{label}</text>\n')
        x += 30 + LETTER * len(label)
    return "".join(parts)
