from __future__ import annotations

import pytest

from unspool.model.explain import explain
from unspool.model.verdict import Stop


@pytest.mark.parametrize("stop", list(Stop), ids=lambda stop: stop.label)
def test_every_stop_has_a_sentence_and_an_advice(stop: Stop) -> None:
    explanation = explain(stop)
    for text in (explanation.meaning, explanation.advice):
        assert text[0].isupper() or text[0] == "`"
        assert text.endswith(".")


def test_no_two_stops_mean_the_same() -> None:
    meanings = [explain(stop).meaning for stop in Stop]
    assert len(meanings) == len(set(meanings))
