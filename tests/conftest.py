"""Fixtures and rules of the whole suite: a live test that cannot run here fails in CI instead of skipping."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
from hypothesis import settings

pytest_plugins = [name for name in ("target_programs", "sframe_toolchain", "guest_machines") if find_spec(name)]

# In CI the examples are the same at every run: what a new random example finds is a developer's to find, not the next submission's.
settings.register_profile("unspool", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("unspool")

LIVE_TRIES = 3
"""How often a live test is tried: it shares two cores with the programs it measures, and may get none of them for a second."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give live tests their further tries; each one that was needed shows as R in the report."""
    for item in items:
        if item.get_closest_marker("live"):
            item.add_marker(pytest.mark.flaky(reruns=LIVE_TRIES - 1, reruns_delay=1))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Live tests need root; without it they skip with that reason, and in CI they fail instead."""
    if item.get_closest_marker("live") and os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("live tests must run in CI, and this is not root")
        pytest.skip("needs root")
