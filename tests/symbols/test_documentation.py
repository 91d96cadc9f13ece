"""The page on symbols explains what a user can meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from unspool.symbols.reasons import Reason

PAGE = Path(__file__).parents[2] / "docs" / "symbols.md"


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_explained(reason: Reason) -> None:
    assert f"| {reason.value} |" in PAGE.read_text(encoding="utf-8")
