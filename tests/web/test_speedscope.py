"""speedscope, served beside the page: it opens what the page shows, with the same weights, and asks nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from export.browser import complaints, wait_for
from selenium import webdriver
from selenium.webdriver.common.by import By
from web.serving import Server

# A browser may not come up on a machine that is too busy.
pytestmark = pytest.mark.flaky(reruns=2, reruns_delay=1)


def rows(driver: webdriver.Chrome) -> dict[str, tuple[str, str]]:
    """Its table: by function total and self. A cell is a line."""
    lines = driver.find_element(By.TAG_NAME, "body").text.split("\n")
    return {name: (total, own) for total, own, name in zip(lines, lines[1:], lines[2:], strict=False)}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("", {"leaf": ("70.00ms (78%)", "70.00ms (78%)"), "work": ("50.00ms (56%)", "0.00ns (<0.01%)")}),
        ("cpu=0", {"leaf": ("40.00ms (80%)", "40.00ms (80%)"), "work": ("30.00ms (60%)", "0.00ns (<0.01%)")}),
    ],
)
def test_the_page_opens_its_samples_in_speedscope(
    browser: webdriver.Chrome, server: Server, filters: str, expected: dict[str, tuple[str, str]]
) -> None:
    """A sample of 100 a second stands for 10 ms."""
    browser.get(server.link)
    browser.get(f"http://{server.host}/#{filters}")
    browser.refresh()
    link: Any = wait_for(browser, lambda driver: driver.find_elements(By.ID, "speedscope"))
    browser.get(link[0].get_attribute("href"))
    sandwich: Any = wait_for(browser, lambda driver: driver.find_elements(By.XPATH, "//*[contains(text(), 'Sandwich')]"))
    sandwich[0].click()
    wait_for(browser, lambda driver: "leaf" in rows(driver))
    assert expected.items() <= rows(browser).items()
    refused = [line for line in complaints(browser) if "Content Security Policy" in line]
    # It would compile a demangler that it has with it; names come demangled.
    assert [] == [line for line in refused if "WebAssembly" not in line]


def test_speedscope_is_as_closed_as_the_page(server: Server) -> None:
    answer = server.ask("/speedscope/index.html")
    assert 200 == answer.status
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "connect-src 'self'" in policy
    assert "script-src 'self'" in policy
    assert 401 == server.ask("/speedscope/index.html", token=False).status


def test_its_licences_stand_beside_it(server: Server) -> None:
    assert b"MIT License" in server.ask("/speedscope/LICENSE.md").body
    assert b"SIL Open Font License" in server.ask("/speedscope/source-code-pro.LICENSE.md").body
