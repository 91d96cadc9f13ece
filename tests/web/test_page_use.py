"""The page in the hands of somebody in a hurry: keys, drags, addresses, small windows, odd recordings, a server that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from export.browser import complaints, wait_for
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from store.recordings import small
from web.page import Show, canvas, click_box, drawn, text
from web.serving import Server, serving
from web.stories import LONG, crowded, empty, many_causes

from unspool.cli.main import main as unspool

pytestmark = pytest.mark.live
MATCH = "227,107,242"
HATCH = "213,94,0"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a recording whose boxes are mostly narrower than a pixel."""
    with serving(crowded(tmp_path_factory.mktemp("crowded") / "a.unspool")) as running:
        yield running


def opened(driver: webdriver.Chrome, server: Server, state: str) -> webdriver.Chrome:
    """That server's page in that state."""
    driver.get(server.link)
    driver.get(f"http://{server.host}/#{state}")
    driver.refresh()
    wait_for(driver, lambda found: found.find_elements(By.ID, "summary"))
    return driver


def reach(driver: webdriver.Chrome, *, offline: bool) -> None:
    """Take the network away from the page, or give it back."""
    everything = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": offline, **everything})


def press(driver: webdriver.Chrome, keys: str) -> None:
    ActionChains(driver).send_keys(keys).perform()


def width(driver: webdriver.Chrome, expected: float) -> None:
    """Wait until the picture shows so many samples."""
    wait_for(driver, lambda found: float(canvas(found, "width") or -1) == pytest.approx(expected))


def state_of(driver: webdriver.Chrome) -> dict[str, list[str]]:
    """What the address says."""
    return parse_qs(urlsplit(driver.current_url).fragment)


def colours(driver: webdriver.Chrome) -> set[str]:
    """Every colour of the picture."""
    return set(
        driver.execute_script(
            "const c = document.querySelector('.flame canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "const s = new Set(); for (let i = 0; i < d.length; i += 4) s.add(d[i] + ',' + d[i + 1] + ',' + d[i + 2]); return [...s];"
        )
    )


@pytest.mark.parametrize("clicked", ["flip", "view-flame", "whole"])
def test_keys_work_after_a_click_on_what_takes_no_letters(show: Show, clicked: str) -> None:
    driver = drawn(show(""))
    driver.find_element(By.ID, clicked).click()
    press(driver, "w")
    width(driver, 7)
    press(driver, "2")
    wait_for(driver, lambda found: found.find_elements(By.ID, "functions"))


def test_keys_of_other_programs_and_capital_letters(show: Show) -> None:
    """`+`, `-` and `0` as in speedscope; a locked shift key changes nothing."""
    driver = drawn(show(""))
    press(driver, "W")
    width(driver, 7)
    press(driver, "+")
    width(driver, 4.9)
    press(driver, "-")
    width(driver, 7)
    press(driver, "0")
    width(driver, 10)


def test_what_is_seen_stands_in_the_address(show: Show) -> None:
    driver = drawn(show(""))
    press(driver, "w")
    wait_for(driver, lambda found: state_of(found) == {"part": ["0.15,0.85"]})
    driver.refresh()
    width(driver, 7)
    press(driver, Keys.ESCAPE)
    width(driver, 10)
    driver.back()
    width(driver, 7)
    click_box(driver, 0.2, 3).click().perform()
    wait_for(driver, lambda found: "focus" in state_of(found) and "part" not in state_of(found))
    assert [] == complaints(driver)


@pytest.mark.parametrize("part", ["1,0", "0.2", "x,y", "-1,2", "0.5,0.5", ","])
def test_an_address_that_makes_no_sense_shows_everything(show: Show, part: str) -> None:
    driver = drawn(show(f"part={part}"))
    width(driver, 10)
    assert [] == complaints(driver)


def test_a_drag_moves_the_picture_and_chooses_nothing(show: Show) -> None:
    driver = drawn(show(""))
    press(driver, "w")
    width(driver, 7)
    click_box(driver, 0.5, 3).click_and_hold().move_by_offset(-200, 0).release().perform()
    wait_for(driver, lambda found: float(state_of(found).get("part", ["0"])[0].split(",")[0]) > 0.2)
    assert "0" == canvas(driver, "focus")
    width(driver, 7)
    click_box(driver, 0.2, 3).click().perform()
    wait_for(driver, lambda found: canvas(found, "focus") != "0")


def test_two_fingers_zoom(show: Show) -> None:
    driver = drawn(show(""))
    picture = driver.find_element(By.CSS_SELECTOR, ".flame canvas").rect
    middle, y = picture["x"] + picture["width"] / 2, picture["y"] + 10

    def touch(kind: str, *apart: float) -> None:
        points = [{"x": middle + side * distance, "y": y, "id": side + 1} for distance in apart for side in (-1, 1)]
        driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 50)
    for distance in (60, 80, 100):
        touch("touchMove", distance)
    touch("touchEnd")
    wait_for(driver, lambda found: float(canvas(found, "width")) < 6)


def test_enter_goes_from_match_to_match(show: Show) -> None:
    driver = drawn(show(""))
    press(driver, "/")
    press(driver, "leaf")
    wait_for(driver, lambda found: text(found, "#matches") == "70.00 % matches")

    def at(samples: int) -> None:
        wait_for(driver, lambda found: text(found, ".detail").startswith(f"leaf (demo)\n{samples} samples"))

    press(driver, Keys.ENTER)
    at(2)
    press(driver, Keys.ENTER)
    at(5)
    ActionChains(driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    at(2)


def test_a_match_narrower_than_a_pixel_is_seen_and_found(browser: webdriver.Chrome, full: Server) -> None:
    driver = drawn(opened(browser, full, ""))
    assert MATCH not in colours(driver)
    press(driver, "/")
    press(driver, "needle")
    wait_for(driver, lambda found: MATCH in colours(found))
    press(driver, Keys.ENTER)
    wait_for(driver, lambda found: text(found, ".detail").startswith("needle (demo)\n1 sample, 0.03 %"))
    assert float(canvas(driver, "width")) < 200, "it is wide enough to be seen"


def test_a_cut_stack_narrower_than_a_pixel_is_seen(browser: webdriver.Chrome, full: Server) -> None:
    assert HATCH in colours(drawn(opened(browser, full, "")))


def test_one_cut_stack_of_many_is_not_rounded_away(browser: webdriver.Chrome, full: Server) -> None:
    driver = drawn(opened(browser, full, ""))
    assert "✓ > 99.9 % reliable, > 99.9 % whole, ✂ < 0.1 % cut" in text(driver, "#facts")


def test_the_numbers_of_a_long_name_are_read(browser: webdriver.Chrome, full: Server) -> None:
    driver = drawn(opened(browser, full, ""))
    click_box(driver, 0.3, 2).perform()
    wait_for(driver, lambda found: "3,000 samples" in text(found, ".tip"))
    tip, window = driver.find_element(By.CSS_SELECTOR, ".tip"), driver.execute_script("return [innerWidth, innerHeight]")
    assert "::insert (demo)" in tip.text
    assert "demo.c:10" in tip.text
    assert tip.rect["y"] >= 0
    assert tip.rect["y"] + tip.rect["height"] <= window[1]
    click_box(driver, 0.3, 2).click().perform()
    wait_for(driver, lambda found: LONG in text(found, ".detail"))


def test_a_server_that_is_away_is_told_and_its_return_is_seen(show: Show) -> None:
    driver = drawn(show(""))
    before = canvas(driver, "boxes")
    reach(driver, offline=True)
    try:
        driver.find_element(By.ID, "inverted").click()
        wait_for(driver, lambda found: "The server does not answer" in text(found, "#lost"))
        assert before == canvas(driver, "boxes"), "the last picture stays"
    finally:
        reach(driver, offline=False)
    wait_for(driver, lambda found: not found.find_elements(By.ID, "lost"))
    wait_for(driver, lambda found: canvas(found, "boxes") not in {"", before})
    assert "inverted=1" in driver.current_url


def test_a_server_that_was_started_anew_knows_no_page(show: Show) -> None:
    driver = drawn(show(""))
    driver.delete_all_cookies()
    driver.find_element(By.ID, "inverted").click()
    wait_for(driver, lambda found: "open the address that it printed" in text(found, "#app"))


def test_a_recording_without_samples_says_so_in_every_view(browser: webdriver.Chrome, tmp_path: Path) -> None:
    with serving(empty(tmp_path / "a.unspool")) as running:
        for view in ("flame", "table", "sandwich", "chart"):
            driver = opened(browser, running, f"view={view}")
            wait_for(driver, lambda found: "The recording holds no sample" in text(found, "main"))
        opened(browser, running, "view=quality")
        wait_for(browser, lambda found: "No stack is cut" in text(found, "main"))
        assert "0 samples in 1.0 s, 0 lost" == text(browser, "#summary")
        assert "no user stacks" in text(browser, "#facts")
        assert [] == complaints(browser)


def test_a_profile_without_times_says_so(browser: webdriver.Chrome, tmp_path: Path) -> None:
    (tmp_path / "a.folded").write_text("a;b 700\na;c 300\n")
    assert 0 == unspool(["import", str(tmp_path / "a.folded"), "-o", str(tmp_path / "a.unspool")])
    with serving(tmp_path / "a.unspool") as running:
        driver = drawn(opened(browser, running, ""))
        wait_for(driver, lambda found: "The samples have no times" in text(found, ".timeline"))
        assert [] == complaints(driver)


def test_a_time_can_be_typed(show: Show) -> None:
    driver = drawn(show(""))
    first, last = driver.find_elements(By.CSS_SELECTOR, "#time input")
    first.send_keys("0.15", Keys.TAB)
    wait_for(driver, lambda found: text(found, "#summary").startswith("8 samples of 10"))
    last.send_keys("0.45", Keys.TAB)
    wait_for(driver, lambda found: text(found, "#summary").startswith("3 samples of 10"))
    assert {"from": ["0.15"], "to": ["0.45"]} == state_of(driver)
    assert "reliable 8" in str(driver.find_element(By.ID, "timeline").get_attribute("aria-label"))


@pytest.mark.parametrize("view", ["flame", "chart", "diff"])
def test_a_narrow_window_has_room_for_the_picture(show: Show, view: str) -> None:
    driver = drawn(show(f"view={view}"))
    size = driver.get_window_size()
    try:
        driver.set_window_size(500, 800)
        wait_for(driver, lambda found: found.execute_script("return innerWidth") <= 500)
        wait_for(driver, lambda found: found.find_element(By.CSS_SELECTOR, ".view").rect["height"] > 300)
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out to the right"
    finally:
        driver.set_window_size(size["width"], size["height"])


def test_two_device_pixels_for_one_are_used(show: Show) -> None:
    """Also where the window keeps its size: it moved to another screen."""
    driver = drawn(show(""))
    width, height = driver.execute_script("return [innerWidth, innerHeight]")
    sharp = "const c = document.querySelector(arguments[0]); return c.width - 2 * c.parentElement.clientWidth"
    try:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for selector in (".flame canvas", "#timeline"):
            wait_for(driver, lambda found, selector=selector: found.execute_script(sharp, selector) == 0)
        click_box(driver, 0.2, 3).perform()
        wait_for(driver, lambda found: text(found, ".tip").startswith("work (demo)"))
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_difference_the_other_way_round(show: Show) -> None:
    driver = drawn(show("view=diff&by=none"))
    wait_for(driver, lambda found: "+60.00" in text(found, "#changes tbody tr"))
    driver.find_element(By.ID, "swap").click()
    wait_for(driver, lambda found: "\u221260.00" in text(found, "#changes tbody tr"))
    assert {"before": ["1"], "after": ["0"]}.items() <= state_of(driver).items()


def test_another_recording_has_other_threads(show: Show) -> None:
    driver = drawn(show("view=chart&thread=2"))
    driver.find_element(By.CSS_SELECTOR, "header select option[value='1']").click()
    wait_for(driver, lambda found: text(found, "#thread") == "demo (30): 10 samples")
    driver = show("view=chart&thread=99")
    wait_for(driver, lambda found: "there is no thread 99" in text(found, "main"))
    driver.find_element(By.CSS_SELECTOR, "main button").click()
    wait_for(driver, lambda found: text(found, "#thread").startswith("demo (10): 5 samples"))


def test_escape_closes_the_help_and_leaves_the_picture(show: Show) -> None:
    driver = drawn(show("focus=2"))
    press(driver, "?")
    wait_for(driver, lambda found: found.find_elements(By.CSS_SELECTOR, ".help"))
    press(driver, Keys.ESCAPE)
    wait_for(driver, lambda found: not found.find_elements(By.CSS_SELECTOR, ".help"))
    assert {"focus": ["2"]} == state_of(driver)


def test_a_recording_that_is_replaced_is_still_shown(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """The server read it once."""
    with serving(small(tmp_path / "a.unspool")) as running:
        driver = drawn(opened(browser, running, ""))
        empty(tmp_path / "b.unspool").replace(tmp_path / "a.unspool")
        driver.find_element(By.ID, "view-table").click()
        wait_for(driver, lambda found: text(found, "#functions tbody tr").startswith("70.00 %70.00 %77leaf"))
        driver.refresh()
        wait_for(driver, lambda found: text(found, "#summary").startswith("10 samples in"))


def test_two_pages_at_once_do_not_share_their_state(show: Show) -> None:
    driver = show("view=table")
    first = driver.current_window_handle
    try:
        driver.switch_to.new_window("tab")
        drawn(show("comm=kworker*"))
        wait_for(driver, lambda found: text(found, "#summary").startswith("1 sample of 10"))
        driver.switch_to.window(first)
        wait_for(driver, lambda found: text(found, "#summary").startswith("10 samples in"))
        assert {"view": ["table"]} == state_of(driver)
    finally:
        for handle in driver.window_handles:
            if handle != first:
                driver.switch_to.window(handle)
                driver.close()
        driver.switch_to.window(first)


def test_the_flame_chart_says_the_time(show: Show) -> None:
    driver = drawn(show("view=chart"))
    wait_for(driver, lambda found: {"0.0 s", "0.2 s", "0.8 s"} <= set(canvas(found, "times").split(", ")))
    click_box(driver, 0.5, 1).perform()
    for _ in range(6):
        press(driver, "w")
    wait_for(driver, lambda found: any(len(time) > len("0.40 s") - 1 for time in canvas(found, "times").split(", ")))
    driver = drawn(show(""))
    assert not canvas(driver, "times"), "a flame graph has none"


@pytest.mark.parametrize("state", ["view=diff&diffsort=change", "view=diff&diffsort=-change-total", "view=diff&diffsort=total-before"])
def test_the_arrow_of_the_order_is_not_clipped(show: Show, state: str) -> None:
    driver = show(state)
    wait_for(driver, lambda found: found.find_elements(By.CSS_SELECTOR, "th[aria-sort$='ending'] button"))
    out = driver.execute_script(
        "const area = of => of.getBoundingClientRect();"
        "return [...document.querySelectorAll('th')].filter(head => { const inner = area(head.firstElementChild), box = area(head);"
        "return inner.left < box.left || inner.right > box.right; }).map(head => head.textContent)"
    )
    assert [] == out


def test_the_sandwich_says_of_what_its_share_is(show: Show) -> None:
    driver = show("view=sandwich&in=/usr/bin/demo&function=work")
    wait_for(driver, lambda found: text(found, ".layers h2").startswith("work 50.00 % of all samples;"))
    driver = show("view=sandwich&in=/usr/bin/demo&function=work&comm=demo")
    wait_for(driver, lambda found: text(found, ".layers h2").startswith("work 55.56 % of the samples that pass the filters;"))


def test_scrolling_through_a_table_does_not_sort_it_again(browser: webdriver.Chrome, full: Server) -> None:
    driver = opened(browser, full, "view=table&sort=function")
    wait_for(driver, lambda found: text(found, "#functions td.name") == "hay0")
    driver.execute_script(
        "window.compared = 0; const real = String.prototype.localeCompare;"
        "String.prototype.localeCompare = function (...all) { window.compared++; return real.apply(this, all); };"
        "document.getElementById('functions').scrollTop = 30000"
    )
    wait_for(driver, lambda found: text(found, "#functions tr.pick td.name") not in {"", "hay0"})
    assert 0 == driver.execute_script("return window.compared")
    driver.find_element(By.XPATH, "//th/button[starts-with(., 'Function')]").click()
    wait_for(driver, lambda found: found.execute_script("return window.compared") > 0)


def test_every_file_that_cuts_stacks_can_be_chosen(browser: webdriver.Chrome, tmp_path: Path) -> None:
    with serving(many_causes(tmp_path / "a.unspool")) as running:
        driver = opened(browser, running, "view=quality")
        wait_for(driver, lambda found: text(found, "#causes summary") == "3 more")
        driver.find_element(By.CSS_SELECTOR, "#causes summary").click()
        last = driver.find_elements(By.CSS_SELECTOR, "#causes details button")[-1]
        name = last.text
        last.click()
        wait_for(driver, lambda found: text(found, "#summary").startswith("1 sample of 9"))
        assert [f"/usr/lib/{name}"] == state_of(driver)["module"]
