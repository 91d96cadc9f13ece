"""The browser of the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from export.browser import Browsers
from selenium import webdriver


@pytest.fixture(scope="module")
def browsers() -> Iterator[Browsers]:
    """The module's browser."""
    held = Browsers()
    yield held
    held.close()


@pytest.fixture
def browser(browsers: Browsers) -> webdriver.Chrome:
    """A browser that answers."""
    return browsers.get()
