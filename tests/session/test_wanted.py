from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.session.wanted import Wanted, spellings, without_parameters

VISIT = "_ZN4tree4Left5visitEiRKSt8functionIFliEE"


@pytest.mark.parametrize(
    "name",
    [
        VISIT,
        "tree::Left::visit",
        "tree::Left::visit(int, std::function<long (int)> const&)",
        "tree::Left::visit(int,std::function<long(int)>const&)",
    ],
)
@pytest.mark.parametrize("suffix", ["", ".cold", ".part.0", ".constprop.0.isra.0"])
def test_a_function_may_be_named_mangled_or_decoded_with_or_without_parameters(name: str, suffix: str) -> None:
    assert Wanted(name).matches(VISIT + suffix)
    assert Wanted(name).identifier in VISIT.encode()


@pytest.mark.parametrize("name", ["visit", "Left::visit", "tree::Left::visit(int)", "tree::Left", "tree::Left::visi", "", "("])
def test_a_part_of_a_name_or_other_parameters_are_another_function(name: str) -> None:
    assert not Wanted(name).matches(VISIT)


@pytest.mark.parametrize(
    ("wanted", "symbol"),
    [
        ("main", "main"),
        ("main", "main.cold"),
        ("tree::wait_here", "tree::wait_here() (.isra.0)"),
        ("tree::wait_here()", "tree::wait_here() [clone .isra.0]"),
        ("tree::catching", "long tree::catching<tree::Left>(tree::Left&&)"),
        ("a::operator()", "a::operator()(int) const"),
        ("a::operator<", "a::operator<(a const&) const"),
        ("(anonymous namespace)::f", "(anonymous namespace)::f(int)"),
        ("a::~a", "a::~a()"),
        ("f", "f[abi:cxx11](int)"),
    ],
)
def test_a_decoded_name_is_matched_by_its_shorter_forms(wanted: str, symbol: str) -> None:
    expected = wanted if wanted != "f" else "f[abi:cxx11]"
    assert Wanted(expected).matches(symbol)


@given(st.text(alphabet="ab:<>()[] .&*~_Z123NE,", max_size=60), st.text(alphabet="ab:<>()[] .&_Z1NE", max_size=20))
def test_any_name_can_be_asked_for_and_matches_itself(symbol: str, wanted: str) -> None:
    spellings(symbol)
    without_parameters(symbol)
    assert Wanted(symbol).matches(symbol)
    assert Wanted(wanted).matches(symbol) in {True, False}
    assert isinstance(Wanted(wanted).identifier, bytes)
