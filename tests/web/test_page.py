"""The page in a real browser: what is seen, clicked, typed and kept in the address."""

from __future__ import annotations

from pathlib import Path

import pytest
from export.browser import complaints, wait_for
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from store.recordings import guests
from web.page import Show, canvas, choose, click_box, drawn, offered, text
from web.serving import Server, serving
from web.stories import EVIL, hostile

# A browser may not come up on a machine that is too busy.
pytestmark = pytest.mark.flaky(reruns=2, reruns_delay=1)


def test_the_page_is_drawn_without_complaint(show: Show) -> None:
    driver = drawn(show(""))
    assert "10 samples in 1.0 s, 3 lost" == text(driver, "#summary")
    assert "✓ 88.9 % reliable, 88.9 % whole, ✂ 11.1 % cut" in text(driver, "#facts")
    assert "token" not in driver.current_url
    assert [] == complaints(driver)
    pixels = driver.execute_script(
        "const c = document.querySelector('.flame canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "const s = new Set(); for (let i = 0; i < d.length; i += 4) s.add(d[i] + ',' + d[i + 1] + ',' + d[i + 2]); return [...s];"
    )
    assert {"240,176,65", "124,196,236", "92,192,160"} <= set(pixels), "program, library and kernel have their colours"


def test_a_click_zooms_escape_and_back_undo_it(show: Show) -> None:
    driver = drawn(show(""))
    click_box(driver, 0.2, 3).click().perform()
    wait_for(driver, lambda found: canvas(found, "focus") not in {"", "0"})
    assert text(driver, ".detail").startswith("work (demo)\n5 samples, 50.00 %; self 0, 0.00 %\n/src/demo.c:20")
    assert "focus=" in driver.current_url
    driver.back()
    wait_for(driver, lambda found: canvas(found, "focus") == "0")
    driver.forward()
    wait_for(driver, lambda found: canvas(found, "focus") != "0")
    ActionChains(driver).send_keys(Keys.ESCAPE).perform()
    wait_for(driver, lambda found: canvas(found, "focus") == "0")


def test_search_shows_the_share_of_what_matches(show: Show) -> None:
    driver = drawn(show(""))
    ActionChains(driver).send_keys("/").perform()
    ActionChains(driver).send_keys("leaf").perform()
    wait_for(driver, lambda found: text(found, "#matches") == "70.00 % matches")
    assert "search=leaf" in driver.current_url
    driver.refresh()
    wait_for(driver, lambda found: text(found, "#matches") == "70.00 % matches")


def test_letters_zoom_and_move(show: Show) -> None:
    driver = drawn(show(""))
    ActionChains(driver).send_keys("w").perform()
    wait_for(driver, lambda found: float(canvas(found, "width")) == pytest.approx(7))
    ActionChains(driver).send_keys("s").perform()
    wait_for(driver, lambda found: float(canvas(found, "width")) == pytest.approx(10))


def test_arrows_reach_every_box(show: Show) -> None:
    driver = drawn(show(""))
    for key, expected in (
        (Keys.ARROW_DOWN, "demo\n"),
        (Keys.ARROW_DOWN, "main"),
        (Keys.ARROW_RIGHT, "[cut: no-unwind-info in libfoo.so]"),
        (Keys.ARROW_DOWN, "libfoo.so+0x9000"),
    ):
        ActionChains(driver).send_keys(key).perform()
        wait_for(driver, lambda found, expected=expected: text(found, ".detail").startswith(expected))
    assert "not whole" in text(driver, ".detail")


def test_numbers_choose_the_views(show: Show) -> None:
    driver = drawn(show(""))
    for key, selector in (("2", "#functions"), ("3", ".sandwich"), ("4", "#proof"), ("5", "#thread"), ("6", "#changes"), ("1", "#whole")):
        ActionChains(driver).send_keys(key).perform()
        wait_for(driver, lambda found, selector=selector: found.find_elements(By.CSS_SELECTOR, selector))
    assert [] == complaints(driver)


def test_the_table_sorts_and_a_row_leads_to_the_sandwich(show: Show) -> None:
    driver = show("view=table")
    wait_for(driver, lambda found: text(found, "#functions tbody tr").startswith("70.00 %70.00 %77leaf"))
    driver.find_element(By.XPATH, "//th/button[starts-with(., 'Total')]").click()
    wait_for(driver, lambda found: "main" in text(found, "#functions tbody tr"))
    driver.find_element(By.XPATH, "//td[contains(., 'work')]").click()
    wait_for(driver, lambda found: text(found, ".layers h2").startswith("work 50.00 % of all samples"))
    wait_for(driver, lambda found: len(found.find_elements(By.CSS_SELECTOR, ".layers canvas[data-drawn]")) == 2)
    assert "function=work" in driver.current_url


def test_a_filter_is_chosen_shown_kept_and_taken_away(show: Show) -> None:
    driver = drawn(show(""))
    choose(driver, "comm")
    wait_for(driver, lambda found: found.find_elements(By.XPATH, "//li/button[contains(., 'kworker')]"))
    driver.find_element(By.XPATH, "//li/button[contains(., 'kworker')]").click()
    wait_for(driver, lambda found: text(found, "#summary").startswith("1 sample of 10"))
    assert "comm=kworker" in driver.current_url
    driver.refresh()
    wait_for(driver, lambda found: text(found, "#summary").startswith("1 sample of 10"))
    driver.find_element(By.CSS_SELECTOR, ".chip button").click()
    wait_for(driver, lambda found: text(found, "#summary").startswith("10 samples in"))


def test_dragging_over_the_timeline_chooses_a_time(show: Show) -> None:
    driver = drawn(show(""))
    strip = driver.find_element(By.ID, "timeline")
    wait_for(driver, lambda found: found.find_element(By.ID, "timeline").get_attribute("data-most") == "1")
    width = strip.size["width"]
    chain = ActionChains(driver).move_to_element_with_offset(strip, int(-width * 0.25), 0).click_and_hold()
    chain.move_by_offset(int(width * 0.5), 0).release().perform()
    wait_for(driver, lambda found: text(found, "#summary").startswith("5 samples of 10"))
    assert "from=0.2" in driver.current_url
    ActionChains(driver).move_to_element_with_offset(strip, 0, 0).click().perform()
    wait_for(driver, lambda found: text(found, "#summary").startswith("10 samples in"))


@pytest.mark.parametrize("series", ["ending", "process", "cpu", "trigger", "mode", "cgroup"])
def test_the_timeline_can_be_split(show: Show, series: str) -> None:
    driver = show(f"series={series}")
    names = {
        "mode": "kernel 2",
        "cgroup": "not known 10",
        "ending": "whole 8",
        "process": "kworker/0:1 1",
        "cpu": "CPU 1 5",
        "trigger": "cpu 10",
    }
    wait_for(driver, lambda found: names[series] in text(found, ".timeline"))


def test_data_quality_names_causes_and_leads_to_their_samples(show: Show) -> None:
    driver = show("view=quality")
    wait_for(driver, lambda found: "no-unwind-info" in text(found, "#causes"))
    assert "✓ proved88.89 %8" in text(driver, "#proof")
    assert "libfoo.so" in text(driver, "#unnamed")
    driver.find_element(By.CSS_SELECTOR, "#causes td button").click()
    wait_for(driver, lambda found: text(found, "#summary").startswith("1 sample of 10"))
    drawn(driver)
    assert "stop=no-unwind-info" in driver.current_url


def test_the_flame_chart_has_one_thread_in_order_of_time(show: Show) -> None:
    driver = drawn(show("view=chart"))
    assert text(driver, "#thread").startswith("demo (10): 5 samples")
    click_box(driver, 0.015, 2).perform()
    wait_for(driver, lambda found: text(found, ".tip").startswith("work (demo)\n"))
    Select(driver.find_element(By.ID, "thread")).select_by_visible_text("demo (10) helper (11): 4 samples")
    wait_for(driver, lambda found: "thread=1" in found.current_url)
    drawn(driver)
    assert [] == complaints(driver)


def test_the_difference_of_two_recordings(show: Show) -> None:
    driver = drawn(show("view=diff&by=none"))
    wait_for(driver, lambda found: "+60.00" in text(found, "#changes tbody tr"))
    click_box(driver, 0.1, 1).perform()
    wait_for(driver, lambda found: text(found, ".tip").startswith("main (demo)\nbefore 80.00 %, after 100.00 %: +20.00 points"))
    assert [] == complaints(driver)


def test_the_keyboard_walks_through_a_table_and_opens_a_row(show: Show) -> None:
    driver = show("view=table")
    wait_for(driver, lambda found: text(found, "#functions tbody tr").startswith("70.00 %70.00 %77leaf"))
    table = driver.find_element(By.ID, "functions")
    for key, expected in ((Keys.ARROW_DOWN, "leaf"), (Keys.END, "read"), (Keys.HOME, "leaf"), (Keys.ARROW_DOWN, "ksys")):
        table.send_keys(key)
        wait_for(driver, lambda found, expected=expected: expected in text(found, "#functions tr.cursor"))
    table.send_keys(Keys.ENTER)
    wait_for(driver, lambda found: text(found, ".layers h2").startswith("ksys 20.00 % of all samples"))


def test_guests_are_told_apart(browser: webdriver.Chrome, tmp_path: Path) -> None:
    with serving(guests(tmp_path / "a.unspool")) as running:
        browser.get(running.link)
        drawn(browser)
        assert "guests web, web#2, db" in text(browser, "header")
        browser.get(f"http://{running.host}/#series=vcpu")
        wait_for(browser, lambda found: "web vCPU 1 2" in text(found, ".timeline"))
        ActionChains(browser).move_to_element_with_offset(browser.find_element(By.ID, "timeline"), 0, 0).perform()
        wait_for(browser, lambda found: " s to " in str(found.find_element(By.ID, "timeline").get_attribute("title")))
        choose(browser, "guest")
        wait_for(browser, lambda found: found.find_elements(By.XPATH, "//li/button[contains(., 'web#2')]"))
        browser.find_element(By.XPATH, "//li/button[contains(., 'web#2')]").click()
        wait_for(browser, lambda found: text(found, "#summary").startswith("2 samples of 12"))
        browser.find_element(By.CSS_SELECTOR, ".chip button").click()
        wait_for(browser, lambda found: text(found, "#summary").startswith("12 samples in"))
        choose(browser, "vcpu")
        wait_for(browser, lambda found: found.find_elements(By.XPATH, "//li/button[starts-with(., '1')]"))
        browser.find_element(By.XPATH, "//li/button[starts-with(., '1')]").click()
        wait_for(browser, lambda found: text(found, "#summary").startswith("2 samples of 12"))
        browser.get(f"http://{running.host}/#view=quality")
        wait_for(browser, lambda found: "web#216.67 %2100.00 %100.00 %100.00 %6.1.0-50-cloud-amd64kvm-hold0: 2" in text(found, "#machines"))
        browser.find_element(By.XPATH, "//table[@id='machines']//button[. = '[host]']").click()
        wait_for(browser, lambda found: text(found, "#summary").startswith("2 samples of 12"))
        assert "guest=%5B%5B%5Dhost%5D" in browser.current_url
        browser.get(f"http://{running.host}/#view=table")
        wait_for(browser, lambda found: "web, web#2, db" in text(found, "#functions"))
        assert [] == complaints(browser)


def test_without_guests_their_filters_are_not_offered(show: Show) -> None:
    driver = drawn(show(""))
    wait_for(driver, lambda found: "comm" in offered(found))
    assert not {"guest", "vcpu", "kernel", "cgroup"} & offered(driver)
    assert "mode" in offered(driver)


def test_the_table_says_what_share_matches_the_search(show: Show) -> None:
    driver = show("view=table&search=leaf")
    wait_for(driver, lambda found: text(found, "#matches") == "1 function, self 70.00 %")
    driver = show("view=sandwich&search=leaf")
    wait_for(driver, lambda found: text(found, "#matches") == "1 function, self 70.00 %")


def test_dark_is_kept(show: Show) -> None:
    driver = drawn(show(""))
    before = driver.execute_script("return document.documentElement.classList.contains('dark')")
    driver.find_element(By.ID, "theme").click()
    driver.refresh()
    drawn(driver)
    assert before is not driver.execute_script("return document.documentElement.classList.contains('dark')")
    driver.execute_script("localStorage.clear()")


def test_the_keys_are_explained(show: Show) -> None:
    driver = drawn(show(""))
    ActionChains(driver).send_keys("?").perform()
    wait_for(driver, lambda found: "double click" in text(found, ".help"))
    ActionChains(driver).send_keys(Keys.ESCAPE).perform()
    wait_for(driver, lambda found: not found.find_elements(By.CSS_SELECTOR, ".help"))


def test_without_the_cookie_the_page_says_what_to_do(browser: webdriver.Chrome, server: Server) -> None:
    browser.get(server.link)
    browser.delete_all_cookies()
    browser.get(f"http://{server.host}/")
    assert "open the address that `unspool serve` printed" in text(browser, "body")


def test_names_are_text_and_never_markup(browser: webdriver.Chrome, tmp_path: Path) -> None:
    with serving(hostile(tmp_path / "evil.unspool"), hostile(tmp_path / "again.unspool")) as running:
        browser.get(running.link)
        drawn(browser)
        click_box(browser, 0.5, 1).perform()
        wait_for(browser, lambda found: EVIL in text(found, ".tip"))
        choose(browser, "on")
        wait_for(browser, lambda found: EVIL in text(found, ".choices"))
        for view, selector in (("table", "#functions"), ("sandwich", "#functions"), ("quality", "#causes"), ("quality", "#machines")):
            browser.get(f"http://{running.host}/#view={view}&series=trigger")
            part = EVIL.rpartition("/")[2] if selector == "#causes" else EVIL
            wait_for(browser, lambda found, selector=selector, part=part: part in text(found, selector))
        assert "Unspool" == browser.title
        assert [] == browser.find_elements(By.TAG_NAME, "img")
        assert 1 == len(browser.find_elements(By.TAG_NAME, "script"))


def test_the_policy_stops_what_would_get_in(show: Show) -> None:
    """Even markup that got into the page could not run."""
    driver = drawn(show(""))
    driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'document.title = \"owned\"'; document.body.append(s)"
    )
    driver.execute_script("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    wait_for(driver, lambda found: any("Content Security Policy" in line or "CSP" in line for line in complaints(found)))
    assert "Unspool" == driver.title
