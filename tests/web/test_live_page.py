"""The live page in a real browser: samples grow, stop stops, start starts, and what was chosen stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from export.browser import complaints, wait_for
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from web.live import descriptors, names, recording, until
from web.serving import Server

pytestmark = pytest.mark.live


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A live recording of a busy program."""
    with recording(tmp_path / "a.unspool") as running:
        yield running


@pytest.fixture
def page(browser: webdriver.Chrome, server: Server) -> webdriver.Chrome:
    """Its page, once there is something to see."""
    browser.get(server.link)
    wait_for(browser, lambda found: said(found, ".flame canvas", "data-drawn") not in {"", "0"})
    return browser


def said(driver: webdriver.Chrome, selector: str, attribute: str = "textContent") -> str:
    found = driver.find_elements(By.CSS_SELECTOR, selector)
    return str(found[0].get_attribute(attribute) or "") if found else ""


def seen(driver: webdriver.Chrome) -> int:
    """The samples that the page counts."""
    return int(said(driver, "#summary").split(" ", 1)[0].replace(",", "") or 0)


def grows(driver: webdriver.Chrome, what: Callable[[webdriver.Chrome], int]) -> int:
    before = what(driver)
    wait_for(driver, lambda found: what(found) > before)
    return what(driver)


def test_samples_grow_until_stop_and_again_after_start(page: webdriver.Chrome, server: Server) -> None:
    grows(page, seen)
    grows(page, seen)
    attached = descriptors(server.pid, "perf_event")
    page.find_element(By.ID, "sampling").click()
    wait_for(page, lambda found: said(found, "#live", "data-sampling") == "0")
    assert attached > descriptors(server.pid, "perf_event"), "the sampler is off the kernel's events"
    assert "stopped" in said(page, "#live")
    still = server.view("live")["samples"]
    page.find_element(By.ID, "sampling").click()
    wait_for(page, lambda found: said(found, "#live", "data-sampling") == "1")
    assert attached == descriptors(server.pid, "perf_event")
    wait_for(page, lambda found: seen(found) > still)
    assert [] == complaints(page)


def test_the_box_that_is_zoomed_to_stays(page: webdriver.Chrome, server: Server) -> None:
    until(lambda: {"_start"} <= names(server))
    grows(page, seen)
    wait_for(page, lambda found: said(found, "#live", "data-version") == str(server.view("live")["version"]))
    ActionChains(page).send_keys(Keys.ARROW_DOWN).send_keys(Keys.ARROW_DOWN).send_keys(Keys.ARROW_DOWN).send_keys(Keys.ENTER).perform()
    wait_for(page, lambda found: said(found, ".flame canvas", "data-focus") not in {"", "0"})
    zoomed = said(page, ".detail").split("\n", maxsplit=1)[0]
    assert "(" in zoomed, "a function, with its file"
    for _ in range(3):
        grows(page, seen)
    wait_for(page, lambda found: said(found, ".detail").split("\n", maxsplit=1)[0] == zoomed)
    assert zoomed
    assert said(page, ".flame canvas", "data-focus") not in {"", "0"}


def test_a_held_picture_stands_still_while_the_recording_goes_on(page: webdriver.Chrome) -> None:
    grows(page, seen)
    page.find_element(By.ID, "hold").click()
    wait_for(page, lambda found: said(found, "#live", "data-held") == "1")
    held = said(page, "#live", "data-version")
    grows(page, lambda found: int(said(found, "#live", "data-samples")))
    grows(page, lambda found: int(said(found, "#live", "data-samples")))
    assert held == said(page, "#live", "data-version")
    page.find_element(By.ID, "hold").click()
    grows(page, seen)


@pytest.mark.parametrize("view", ["table", "quality", "chart"])
def test_every_view_follows(page: webdriver.Chrome, view: str) -> None:
    page.find_element(By.ID, f"view-{view}").click()
    grows(page, lambda found: int(said(found, "#live", "data-version")))
    grows(page, seen)
    assert [] == complaints(page)


def test_the_page_says_that_the_recorder_is_gone(page: webdriver.Chrome, server: Server) -> None:
    import os
    import signal

    os.kill(server.pid, signal.SIGKILL)
    wait_for(page, lambda found: "has ended" in said(found, "#live"))
    assert said(page, ".flame canvas", "data-drawn") not in {"", "0"}, "the last picture stays"
