"""A real Chromium for tests of pages, with a bounded patience that a busy machine does not exhaust."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 60
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


@contextmanager
def chromium(*, width: int = 1300, height: int = 800) -> Iterator[webdriver.Chrome]:
    """The browser, without a window; skips where Debian's chromium is not installed, which fails in CI."""
    if not (shutil.which(CHROMIUM) and shutil.which(DRIVER)):
        message = "needs Debian's chromium and chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_page_load_timeout(PATIENCE)
        driver.set_script_timeout(PATIENCE)
        yield driver
    finally:
        with suppress(WebDriverException):
            driver.quit()


class Browsers:
    """One Chromium for the tests of a module; a new one when it no longer answers."""

    def __init__(self) -> None:
        """Nothing is started before the first test asks."""
        self._held = ExitStack()
        self._driver: webdriver.Chrome | None = None

    def get(self) -> webdriver.Chrome:
        """A browser that answers, with nothing on its console."""
        if self._driver is not None:
            try:
                self._driver.get("about:blank")
                complaints(self._driver)
            except WebDriverException:
                self._driver = None
        if self._driver is None:
            self._driver = self._held.enter_context(chromium())
        return self._driver

    def close(self) -> None:
        """End what was started."""
        with suppress(WebDriverException, OSError):
            self._held.close()


def wait_for(driver: webdriver.Chrome, condition: Callable[[webdriver.Chrome], object]) -> object:
    """What the condition gives once it holds."""
    return WebDriverWait(driver, PATIENCE, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException]).until(condition)


def complaints(driver: webdriver.Chrome) -> list[str]:
    """What the page's console said."""
    return [entry["message"] for entry in driver.get_log("browser")]


def open_file(driver: webdriver.Chrome, path: Path) -> None:
    """Show a file."""
    driver.get(path.as_uri())
