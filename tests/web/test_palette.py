"""Colours that people with every kind of colour vision tell apart, and the same ones on the page and in the pictures."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest

from unspool.export.svg import COLOURS

ROOT = Path(__file__).parents[2]
PALETTE = (ROOT / "ui" / "src" / "palette.ts").read_text()
KINDS = {
    kind: {"light": light, "dark": dark}
    for kind, light, dark in re.findall(r'(\w+): \{ label: "[^"]*", light: "(#\w+)", dark: "(#\w+)"', PALETTE)
}
SERIES = re.findall(r"#\w{6}", PALETTE.partition("SERIES = [")[2].partition("]")[0])
LEAST = 9.0
"""CIE 1976 colour difference; 2.3 is what can just be noticed."""

# Machado, Oliveira, Fernandes 2009: what is left of linear RGB without one kind of cone.
VISION = {
    "all": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def linear(colour: str) -> list[float]:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def seen(colour: str, vision: str) -> tuple[float, float, float]:
    """The colour in CIE L*a*b* as those eyes see it."""
    red, green, blue = (min(1.0, max(0.0, sum(a * b for a, b in zip(row, linear(colour), strict=True)))) for row in VISION[vision])
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883
    x, y, z = (value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116 for value in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def nearest(colours: dict[str, str], vision: str) -> tuple[float, str, str]:
    pairs = itertools.combinations(colours.items(), 2)
    return min((math.dist(seen(one, vision), seen(other, vision)), first, second) for (first, one), (second, other) in pairs)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_kinds_of_boxes_can_be_told_apart(theme: str, vision: str) -> None:
    """All but marks, which are hatched."""
    colours = {kind: themes[theme] for kind, themes in KINDS.items() if kind != "mark"}
    assert 7 == len(colours)
    assert nearest(colours, vision) > (LEAST, "", "")


@pytest.mark.parametrize("vision", VISION)
def test_series_of_the_timeline_can_be_told_apart(vision: str) -> None:
    assert nearest({str(place): colour for place, colour in enumerate(SERIES)}, vision) > (LEAST, "", "")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_names_on_boxes_can_be_read(theme: str) -> None:
    """A contrast of 4.5 to 1 for light boxes, as WCAG 2 asks of text; 3 to 1 at least for dark ones."""
    text = {"light": "#111111", "dark": "#f4f4f4"}[theme]

    def brightness(colour: str) -> float:
        return sum(part * weight for part, weight in zip(linear(colour), (0.2126, 0.7152, 0.0722), strict=True)) + 0.05

    for kind, themes in KINDS.items():
        pair = sorted((brightness(text), brightness(themes[theme])))
        assert pair[1] / pair[0] > (4.5 if theme == "light" else 3.0), kind


def test_page_and_pictures_have_the_same_colours() -> None:
    parts = {
        name: (ROOT / name).read_text()
        for name in ("ui/src/page.css", "src/unspool/export/page/flame.css", "src/unspool/export/page/flame.js")
    }
    for kind, themes in KINDS.items():
        if kind != "mark":
            assert themes["light"] == COLOURS[kind][0]
        for name, content in parts.items():
            if kind != "mark" or name.endswith(".js"):
                assert themes["light"] in content, (kind, name)
                assert themes["dark"] in content, (kind, name)
