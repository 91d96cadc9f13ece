"""What tests of the page look at and click on."""

from __future__ import annotations

from collections.abc import Callable

from export.browser import wait_for
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

ROW = 19
Show = Callable[[str], webdriver.Chrome]


def text(driver: webdriver.Chrome, selector: str) -> str:
    """The text of the first element, shown or not; empty when there is none."""
    found = driver.find_elements(By.CSS_SELECTOR, selector)
    return str(found[0].get_attribute("textContent")) if found else ""


def canvas(driver: webdriver.Chrome, name: str) -> str:
    """What the flame graph says of itself; empty before it is drawn."""
    found = driver.find_elements(By.CSS_SELECTOR, ".flame canvas")
    return str(found[0].get_attribute(f"data-{name}") or "") if found else ""


def drawn(driver: webdriver.Chrome) -> webdriver.Chrome:
    """The page once its flame graph is drawn."""
    wait_for(driver, lambda found: canvas(found, "drawn") not in {"", "0"})
    return driver


def click_box(driver: webdriver.Chrome, across: float, level: int) -> ActionChains:
    """The mouse over a part of the picture's width, on that level from the top."""
    picture = driver.find_element(By.CSS_SELECTOR, ".flame canvas")
    x, y = int(picture.size["width"] * (across - 0.5)), int(level * ROW + ROW // 2 - picture.size["height"] / 2)
    return ActionChains(driver).move_to_element_with_offset(picture, x, y)


def offered(driver: webdriver.Chrome) -> set[str]:
    """The filters that the menu offers."""
    return {str(option.get_attribute("value")) for option in driver.find_elements(By.CSS_SELECTOR, "#filter option")}


def choose(driver: webdriver.Chrome, name: str) -> None:
    """Open that filter's menu; what there is to choose comes after the page."""
    wait_for(driver, lambda found: name in offered(found))
    # By what the browser takes for its value: where that is the text, Preact writes no attribute.
    next(option for option in driver.find_elements(By.CSS_SELECTOR, "#filter option") if option.get_attribute("value") == name).click()
