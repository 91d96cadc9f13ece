"""The pages on the library, the verdicts and the stops say what the code does."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from target_programs import Programs, running, wait_asleep

import unspool
from unspool.model.explain import explain
from unspool.model.verdict import Stop
from unspool.unwind import ends, exception_commit
from unspool.unwind.policy import CHECK_OF, Check

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.live
def test_the_library_page_runs(programs: Programs) -> None:
    with running(programs.build("deep.c", "-O2")) as process:
        wait_asleep(process.pid)
        result = doctest.testfile(str(DOCS / "library.md"), module_relative=False, globs={"pid": process.pid})
    assert (0, True) == (result.failed, result.attempted > 20)


def test_the_table_of_stops_is_the_one_that_is_printed() -> None:
    page = (DOCS / "stop-reasons.md").read_text(encoding="utf-8")
    rows = {
        label: (int(number), meaning, advice)
        for label, number, meaning, advice in re.findall(r"^\| `(.+?)` \| (\d+) \| (.+?) \| (.+) \|$", page, re.MULTILINE)
    }
    expected = {stop.label: (stop.value, explain(stop).meaning, explain(stop).advice) for stop in Stop if stop is not Stop.NONE}
    assert expected == rows


def test_every_label_on_the_verdicts_page_exists() -> None:
    page = (DOCS / "verdicts.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:stop|note|stops with|is|reason:?) (?:\(\w(?:\+1)?, )?`([a-z]+(?:-[a-z]+)+)`", page))
    labels = {stop.label for stop in Stop}
    assert len(named) > 10
    assert named <= labels | {"frame-pointer", "return-address"}


def test_the_numbers_of_the_rules_are_those_of_the_code() -> None:
    page = (DOCS / "verdicts.md").read_text(encoding="utf-8")
    assert f"0 <= ip - entry <= {ends.NEAR_ENTRY}" in page
    assert f"0 <= initial_sp - sp <= {ends.NEAR_INITIAL_SP}" in page
    assert ends.NEAR_THREAD_POINTER == 1 << 20
    assert "at most 1 MiB below the thread pointer" in page
    assert f"E - {exception_commit.WINDOW}" in page
    assert f"|rel32| <= {exception_commit.NEAR}" in page


def test_the_table_of_rules_is_that_of_the_policy() -> None:
    page = (DOCS / "verdicts.md").read_text(encoding="utf-8")
    rows = {
        rule.upper(): (text, re.findall("`(.+?)`", reasons))
        for rule, text, reasons in re.findall(r"^\| (R\d+[ab]?) \| (.+?) \| (.+) \|$", page, re.MULTILINE)
    }
    assert {check.name for check in Check} == set(rows)
    for check in Check:
        text, reasons = rows[check.name]
        assert check.value.startswith(text)
        assert [stop.label for stop, owner in CHECK_OF.items() if owner is check] == reasons


def test_every_rule_can_be_switched_off() -> None:
    for check in Check:
        assert check not in unspool.Policy().without(check).checks


def test_every_public_name_can_be_had() -> None:
    for name in unspool.__all__:
        assert getattr(unspool, name) is not None
    assert set(unspool.__all__) <= set(dir(unspool))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unspool.nothing  # type: ignore[attr-defined]
