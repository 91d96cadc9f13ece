"""Ranges of addresses, and the figures of `unspool sframe stats`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sframe_toolchain import Toolchain

from unspool.cli.main import main
from unspool.toolkit.stats import difference, merged, overlap

MANY = (Path(__file__).parents[1] / "formats" / "sframe" / "programs" / "many.c").read_text(encoding="utf-8")
ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=8)


def addresses(of: list[tuple[int, int]]) -> set[int]:
    return {address for start, end in of for address in range(start, end)}


@given(ranges, ranges)
def test_ranges_are_sets_of_addresses(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    assert addresses(left) == addresses(list(merged(left)))
    assert len(addresses(left) & addresses(right)) == overlap(left, right)
    assert addresses(left) - addresses(right) == addresses(list(difference(left, right)))


def test_the_figures_are_those_of_the_section(toolchain: Toolchain, capsys: pytest.CaptureFixture[str]) -> None:
    program = toolchain.build(MANY, "x86_64")
    assert 0 == main(["sframe", "stats", "--json", str(program)])
    found = json.loads(capsys.readouterr().out)
    text = toolchain.readelf(program)
    assert f"Num FDEs: {found['fdes']}" in text
    assert f"Num FREs: {found['fres']}" in text
    assert text.count('attr = "F"') == found["flexible"]
    assert text.count("STARTPC[m]") == found["repeated"]
    assert 0 < found["coverage"] < 1
