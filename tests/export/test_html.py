from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
from export.browser import complaints, open_file, wait_for
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from store.recordings import HEADER, Scene, big, small

from unspool.cli.main import main
from unspool.store.writer import Writer

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><!--{{script}}\u2028'\"&amp;"

# A browser may not come up on a machine that is too busy.
pytestmark = pytest.mark.flaky(reruns=2, reruns_delay=1)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("html")
    assert 0 == main(["export", str(small(folder / "a.unspool")), "-o", str(folder / "a.html")])
    return folder / "a.html"


def hostile(folder: Path) -> Path:
    with Writer(folder / "evil.unspool", HEADER) as out:
        scene = Scene(out)
        scene.modules["demo"] = out.module(f"/lib/{EVIL}", "dd")
        process = out.process(1, 1, EVIL, EVIL)
        out.sample(HEADER.monotonic_ns, process, out.thread(process, 1, EVIL), 0, "cpu", EVIL, 1, scene.stack(scene.frame(EVIL)))
    return folder / "evil.unspool"


def shown(driver: webdriver.Chrome, page: Path) -> None:
    """Wait until the picture is there."""
    open_file(driver, page)
    wait_for(driver, lambda found: found.find_element(By.ID, "canvas").get_attribute("data-boxes"))


def text(driver: webdriver.Chrome, identity: str) -> str:
    return str(driver.find_element(By.ID, identity).get_attribute("textContent"))


def focus(driver: webdriver.Chrome) -> str:
    return str(driver.find_element(By.ID, "canvas").get_attribute("data-focus"))


def click_box(driver: webdriver.Chrome, across: float, level: int) -> None:
    """Click at a part of the picture's width, on that level from the top."""
    canvas = driver.find_element(By.ID, "canvas")
    size = canvas.size
    x, y = int(size["width"] * (across - 0.5)), int(level * 19 + 9 - size["height"] / 2)
    ActionChains(driver).move_to_element_with_offset(canvas, x, y).click().perform()


def test_the_page_needs_nothing_from_outside(page: Path) -> None:
    content = page.read_text()
    assert [] == re.findall(r"""(?:src|href)\s*=|url\(|@import|https?://""", content.replace("http-equiv", ""))
    assert "default-src 'none'" in unescape(content)
    assert "unsafe" not in content


def test_the_page_is_drawn_without_complaint(browser: webdriver.Chrome, page: Path) -> None:
    shown(browser, page)
    assert [] == complaints(browser)
    assert "./demo --fast" == text(browser, "title")
    assert "10 samples in 1.0 s, 3 lost; 88.9 % of user stacks whole, 11.1 % cut, 88.9 % reliable; 1 samples without user stack" == text(
        browser, "summary"
    )
    pixels = browser.execute_script(
        "const c = document.getElementById('canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "const s = new Set(); for (let i = 0; i < d.length; i += 4) s.add(d[i] + ',' + d[i + 1] + ',' + d[i + 2]); return [...s];"
    )
    assert {"240,176,65", "124,196,236", "92,192,160"} <= set(pixels), "program, library and kernel have their colours"


def test_a_click_zooms_and_escape_shows_all_again(browser: webdriver.Chrome, page: Path) -> None:
    shown(browser, page)
    click_box(browser, 0.2, 3)
    wait_for(browser, lambda driver: focus(driver) != "0")
    assert text(browser, "detail").startswith("work (demo)\n5 samples, 50.00 %; self 0")
    assert "f=" in browser.current_url
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    wait_for(browser, lambda driver: focus(driver) == "0")


def test_search_shows_the_share_of_what_matches(browser: webdriver.Chrome, page: Path) -> None:
    shown(browser, page)
    search = browser.find_element(By.ID, "search")
    search.send_keys("leaf")
    wait_for(browser, lambda driver: text(driver, "matches") == "70.00 % matches")
    assert "s=leaf" in browser.current_url
    search.clear()
    search.send_keys("/^(work|ksys)$/")
    wait_for(browser, lambda driver: text(driver, "matches") == "70.00 % matches")
    search.clear()
    search.send_keys("/(/")
    wait_for(browser, lambda driver: "wrong" in str(driver.find_element(By.ID, "search").get_attribute("class")))
    search.send_keys(Keys.ESCAPE)
    wait_for(browser, lambda driver: not text(driver, "matches"))


def test_the_address_keeps_the_view(browser: webdriver.Chrome, page: Path) -> None:
    shown(browser, page)
    browser.get(page.as_uri() + "#s=leaf&f=3&flip=1")
    browser.refresh()
    wait_for(browser, lambda driver: text(driver, "matches") == "70.00 % matches")
    wait_for(browser, lambda driver: focus(driver) == "3")


def test_the_keyboard_reaches_every_box(browser: webdriver.Chrome, page: Path) -> None:
    shown(browser, page)
    browser.execute_script("document.getElementById('view').focus()")
    for key, expected in (
        (Keys.ARROW_DOWN, "demo"),
        (Keys.ARROW_DOWN, "main"),
        (Keys.ARROW_RIGHT, "[cut: no-unwind-info in libfoo.so]"),
        (Keys.ARROW_DOWN, "libfoo.so+0x9000"),
        (Keys.ARROW_LEFT, "read"),
        (Keys.ARROW_UP, "main"),
    ):
        ActionChains(browser).send_keys(key).perform()
        wait_for(browser, lambda driver, expected=expected: text(driver, "detail").startswith(expected))
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    wait_for(browser, lambda driver: focus(driver) != "0")


def test_names_are_text_and_never_markup(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = tmp_path / "evil.html"
    assert 0 == main(["export", str(hostile(tmp_path)), "--title", EVIL, "-o", str(page)])
    shown(browser, page)
    assert EVIL == text(browser, "title")
    click_box(browser, 0.5, 2)
    wait_for(browser, lambda driver: EVIL in text(driver, "detail"))
    assert EVIL in text(browser, "tip")
    assert "owned" != browser.title
    assert [] == browser.find_elements(By.TAG_NAME, "img")
    assert 2 == len(browser.find_elements(By.TAG_NAME, "script"))
    assert [] == complaints(browser)


def test_the_policy_stops_what_would_get_in(browser: webdriver.Chrome, page: Path) -> None:
    """Even markup that got into the page could not run."""
    shown(browser, page)
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'document.title = \"owned\"'; document.body.append(s)"
    )
    browser.execute_script("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    wait_for(browser, lambda driver: any("Content Security Policy" in line or "CSP" in line for line in complaints(driver)))
    assert "owned" != browser.title


def test_many_boxes_are_drawn_and_the_smallest_left_out(browser: webdriver.Chrome, tmp_path: Path) -> None:
    recording = big(tmp_path / "big.unspool", samples=40_000, stacks=20_000, depth=40)
    assert 0 == main(["export", str(recording), "-o", str(tmp_path / "big.html")])
    shown(browser, tmp_path / "big.html")
    data = json.loads(text(browser, "data"))
    assert len(data["parent"]) <= 200_000
    assert data["left_out"] > 0
    assert "smaller boxes are left out" in text(browser, "summary")
    click_box(browser, 0.5, 3)
    wait_for(browser, lambda driver: focus(driver) != "0")
    assert [] == complaints(browser)
