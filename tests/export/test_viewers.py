"""Exports opened by the programs they are made for: speedscope's page in Chromium, the Firefox Profiler's command line, perf's readers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from export.browser import wait_for
from export.peers import firefox_profiler, speedscope
from selenium import webdriver
from selenium.webdriver.common.by import By
from store.recordings import HEADER, big, small

from unspool.cli.main import main
from unspool.store.writer import Writer

CUT = "[cut: no-unwind-info in libfoo.so]"

# A browser may not come up on a machine that is too busy.
pytestmark = pytest.mark.flaky(reruns=2, reruns_delay=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewers")
    small(folder / "small.unspool")
    return folder


def export(folder: Path, name: str, *options: str) -> Path:
    assert 0 == main(["export", str(folder / "small.unspool"), "-o", str(folder / name), *options])
    return folder / name


@pytest.mark.parametrize("name", ["a.speedscope.json", "a.pb.gz", "a.linux-perf.txt", "a.trace.json", "a.collapsedstack.txt"])
def test_speedscope_opens_it_and_shows_every_function(browser: webdriver.Chrome, folder: Path, name: str) -> None:
    browser.get(speedscope("index.html").as_uri())
    chooser: Any = wait_for(browser, lambda driver: driver.find_element(By.CSS_SELECTOR, "input[type=file]"))
    chooser.send_keys(str(export(folder, name)))
    sandwich: Any = wait_for(browser, lambda driver: driver.find_element(By.XPATH, "//*[text()='Sandwich']"))
    sandwich.click()
    expected = ("leaf", "work", "main") if name in {"a.linux-perf.txt", "a.trace.json"} else ("leaf", "work", "main", "read")
    wait_for(browser, lambda driver: all(function in driver.find_element(By.TAG_NAME, "body").text for function in expected))


@pytest.mark.parametrize("options", [(), ("--by", "thread"), ("--no-marks",), ("--pid", "99")])
def test_speedscopes_schema_accepts_it(folder: Path, options: tuple[str, ...]) -> None:
    document = json.loads(export(folder, "b.speedscope.json", *options).read_text())
    jsonschema.validate(document, json.loads(speedscope("file-format-schema.json").read_text()))


def test_speedscope_samples_are_those_of_the_recording(folder: Path) -> None:
    document = json.loads(export(folder, "c.speedscope.json").read_text())
    names = [frame["name"] for frame in document["shared"]["frames"]]
    demo, kworker = document["profiles"]
    stacks = [[names[number] for number in sample] for sample in demo["samples"]]
    assert [["main", "work", "leaf"]] * 5 == stacks[:5]
    assert [CUT, "libfoo.so+0x9000"] == stacks[8]
    assert ("demo", 9 * 10_000_000, 9) == (demo["name"], demo["endValue"], len(demo["weights"]))
    assert ("kworker/0:1", "nanoseconds") == (kworker["name"], kworker["unit"])


def test_the_firefox_profiler_loads_threads_functions_and_categories(folder: Path, tmp_path: Path) -> None:
    with firefox_profiler(tmp_path, export(folder, "a.json.gz")) as profiler:
        threads = profiler.json("thread", "list")["threads"]
        assert [("demo", "10", 10), ("helper", "10", 11), ("kworker/0:1", "20", 20)] == [
            (thread["name"], thread["pid"], thread["tid"]) for thread in threads
        ]
        samples = profiler.json("thread", "samples")
    assert 5 == samples["categoryBreakdown"]["totalSamples"]
    assert {"Program": 4, "Library": 1} == {entry["name"]: entry["samples"] for entry in samples["categoryBreakdown"]["categories"]}
    functions = {entry["name"]: (entry["selfSamples"], entry["totalSamples"]) for entry in samples["topFunctionsByTotal"]}
    assert {"demo!main": (0, 4), "demo!work": (0, 3), "demo!leaf": (4, 4), CUT: (0, 1)}.items() <= functions.items()


@pytest.mark.parametrize(("name", "samples"), [("a.perf", 5), ("a.folded", 10)])
def test_the_firefox_profiler_imports_text(folder: Path, tmp_path: Path, name: str, samples: int) -> None:
    with firefox_profiler(tmp_path, export(folder, name)) as profiler:
        found = profiler.json("thread", "samples")
    assert samples == found["categoryBreakdown"]["totalSamples"]
    names = {entry["name"].rpartition("!")[2] for entry in found["topFunctionsByTotal"]}
    assert {"main", "work", "leaf"} <= names


def test_the_firefox_profiler_imports_the_chrome_trace(folder: Path, tmp_path: Path) -> None:
    with firefox_profiler(tmp_path, export(folder, "b.trace.json")) as profiler:
        markers = profiler.json("thread", "markers")
    counts = {entry["markerName"]: entry["count"] for entry in markers["byType"]}
    assert {"main": 4, "work": 3, "leaf": 5, CUT: 1, "libfoo.so+0x9000": 1} == counts


def test_chrome_trace_events_nest(tmp_path: Path) -> None:
    """Each end closes the call that was opened last in its thread, and time does not run backwards there."""
    big(tmp_path / "small.unspool", samples=400, stacks=30, depth=6, functions=5)
    events = json.loads(export(tmp_path, "a.trace.json").read_text())["traceEvents"]
    open_calls: list[str] = []
    now = 0.0
    for event in events:
        if event["ph"] == "M":
            continue
        assert now <= event["ts"]
        now = event["ts"]
        if event["ph"] == "B":
            open_calls.append(event["name"])
        else:
            assert open_calls.pop() == event["name"]
    assert [] == open_calls


def test_perf_script_text_has_perfs_own_shape(folder: Path) -> None:
    """The lines match the expressions of stackcollapse-perf.pl."""
    text = export(folder, "b.perf").read_text()
    blocks = text.strip().split("\n\n")
    assert 10 == len(blocks)
    for block in blocks:
        head, *frames = block.split("\n")
        assert re.match(r"^(\S.+?)\s+(\d+)/*(\d+)*\s+\[(\d+)\]\s+(\d+\.\d+):\s+(\d+)\s+(\S+):\s*$", head), head
        for frame in frames:
            assert re.match(r"^\s*(\w+)\s*(.+) \((.*)\)$", frame), frame
    assert f"\t{'0':>16} {CUT} ([unspool])" in blocks[8]
    assert "[unknown] (/usr/lib/libfoo.so)" in blocks[8]


@pytest.mark.parametrize(
    "suffix", [".speedscope.json", ".json.gz", ".perf", ".trace.json", ".folded", ".html", ".svg", ".pb.gz", ".parquet"]
)
def test_a_recording_without_samples_is_a_file_all_the_same(tmp_path: Path, suffix: str) -> None:
    Writer(tmp_path / "small.unspool", HEADER).finish(5)
    assert export(tmp_path, f"empty{suffix}").exists()
