"""`unspool top` on a real busy program: as text, headless, and in a terminal; nothing of it stays in the kernel."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live.recorded import PATIENCE, PROGRAM
from live.test_record_cut_short import is_loaded, programs_of
from target_programs import Programs, wait_until
from terminals import terminal
from textual.widgets import DataTable

from unspool.cli.top_screen import Top
from unspool.errors import NoSuchTarget
from unspool.session import windows
from unspool.session.recording import Plan
from unspool.session.top import LiveSource

pytestmark = pytest.mark.live


@pytest.fixture
def busy(programs: Programs) -> Iterator[int]:
    """A program that spends its time in the function `inner`, called by `middle`, `outer` and `main`."""
    with programs.running(programs.build("burn.c", "-O1", "-g"), "0") as process:
        yield process.pid


def test_the_text_names_the_hot_function(busy: int) -> None:
    command = [*PROGRAM, "top", "--once", "-p", str(busy), "-F", "499", "-d", "3"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    lines = done.stdout.splitlines()
    assert " samples in " in lines[0]
    assert "inner" == lines[3].split("%")[-1].split()[0]
    assert any("main" in line for line in lines)
    assert any(f"{busy}" in line for line in lines)


def test_without_a_terminal_it_is_text_too(busy: int) -> None:
    command = [*PROGRAM, "top", "-p", str(busy), "-F", "499", "-d", "2", "-n", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    assert 1 == done.stdout.count("inner")
    assert "outer" not in done.stdout


def test_the_screen_shows_the_hot_function_and_its_thread(busy: int) -> None:
    """Headless, with the real source."""
    source = LiveSource(Plan(Path(os.devnull), pids=(busy,), frequency=499))
    app = Top(source, what="burn")

    def shows(name: str) -> bool:
        rows = app.query_one(DataTable)
        return any(name in rows.get_row_at(index)[-1].plain for index in range(rows.row_count))

    async def play() -> None:
        async with app.run_test() as pilot:
            deadline = time.monotonic() + PATIENCE
            while not shows("inner"):
                assert source.failed is None
                assert time.monotonic() < deadline, "the hot function was never shown"
                await pilot.pause(0.05)
            await pilot.press("t")
            await pilot.pause()
            assert shows("burn")
            await pilot.press("q")

    try:
        source.start()
        loaded = programs_of(os.getpid())
        asyncio.run(play())
    finally:
        source.close()
    assert loaded
    wait_until(lambda: not any(map(is_loaded, loaded)), "the kernel to drop the programs")


@pytest.mark.parametrize("how", ["key", "SIGTERM"])
def test_in_a_terminal(busy: int, how: str) -> None:
    """It draws, takes keys, leaves the terminal as it was, and unloads its programs."""
    with terminal(*PROGRAM, "top", "-p", str(busy), "-F", "499") as shown:
        shown.wait_for("inner")
        loaded = programs_of(shown.pid)
        assert loaded
        shown.type("t")
        shown.wait_for("thread")
        if how == "key":
            shown.type("q")
        else:
            os.kill(shown.pid, signal.SIGTERM)
        assert 0 == shown.wait_for_end()
        # Out of the alternate screen (xterm's DECSET 1049), with the cursor shown.
        assert "\x1b[?1049l" in shown.shown
        assert "\x1b[?25h" in shown.shown[shown.shown.rindex("\x1b[?1049l") - 200 :]
        assert "Traceback" not in shown.shown
    wait_until(lambda: not any(map(is_loaded, loaded)), "the kernel to drop the programs")


def test_it_goes_on_when_it_begins_anew(busy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each table everything is forgotten: names are looked up again, and the children of a process are still followed."""
    monkeypatch.setattr(windows, "MOST_STACKS", 0)
    source = LiveSource(Plan(Path(os.devnull), pids=(busy,), frequency=499))
    try:
        source.start()
        wait_until(lambda: source.failed or source._sampling.epoch >= 3, "three beginnings", PATIENCE)
        wait_until(lambda: source.failed or "inner" in {line.name for line in source.latest().functions}, "the hot function", PATIENCE)
        assert source.failed is None
    finally:
        source.close()


def test_the_end_of_the_process_is_told(programs: Programs) -> None:
    with programs.running(programs.build("burn.c", "-O1", "-g"), "0") as process:
        source = LiveSource(Plan(Path(os.devnull), pids=(process.pid,), frequency=499))
        try:
            source.start()
            wait_until(lambda: source.latest().total.samples > 0, "the first samples", PATIENCE)
            assert "" == source.latest().note
            process.kill()
            wait_until(lambda: source.latest().note == "ended", "the end", PATIENCE)
        finally:
            source.close()


def test_nothing_is_loaded_for_a_process_that_is_not_there() -> None:
    before = programs_of(os.getpid())
    with pytest.raises(NoSuchTarget):
        LiveSource(Plan(Path(os.devnull), pids=(1 << 22,)))
    assert before == programs_of(os.getpid())
