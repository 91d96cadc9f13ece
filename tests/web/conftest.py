"""A server for the tests of a module, and a browser that it knows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from export.browser import Browsers, wait_for
from selenium import webdriver
from selenium.webdriver.common.by import By
from store.recordings import small
from web.page import Show
from web.serving import Server, serving
from web.stories import changed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two small recordings."""
    folder = tmp_path_factory.mktemp("web")
    with serving(small(folder / "before.unspool"), changed(folder / "after.unspool")) as running:
        yield running


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


@pytest.fixture
def show(browser: webdriver.Chrome, server: Server) -> Show:
    """Opens the page in that state; the token came before, once."""

    def opened(state: str) -> webdriver.Chrome:
        browser.get(server.link)
        browser.get(f"http://{server.host}/#{state}")
        browser.refresh()
        wait_for(browser, lambda driver: driver.find_elements(By.ID, "summary"))
        return browser

    return opened
