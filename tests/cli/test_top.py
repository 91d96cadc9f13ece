"""`unspool top`: the screen with a made-up source, the text, and what is said when textual is missing."""

from __future__ import annotations

import asyncio
import builtins
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text
from store.recordings import guests
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from unspool.cli import top
from unspool.cli.main import main
from unspool.cli.top_screen import Help, Top
from unspool.errors import NotPermitted
from unspool.model.guest import HOST
from unspool.session.guests import GuestPlan
from unspool.session.recording import Plan
from unspool.session.top import FunctionLine, Share, Table, ThreadLine, View, table
from unspool.store.load import load
from unspool.store.reader import open_recording

HOSTILE = "evil\x1b]0;owned\x07[red]\u202eeman\n[/red]"
FUNCTIONS = (
    FunctionLine("burn", "/usr/bin/demo", 60, Share(60, 60, 60, 0)),
    FunctionLine("main", "/usr/bin/demo", 10, Share(90, 70, 80, 10)),
    FunctionLine(HOSTILE, "/lib/[bold]x.so", 6, Share(6, 0, 6, 0)),
    FunctionLine("do_idle", "[kernel]", 4, Share(4, 0, 0, 0)),
    FunctionLine("libcut.so+0x1230", "/lib/libcut.so", 0, Share(10, 0, 0, 10)),
)
THREADS = (
    ThreadLine(10, 10, "demo", "demo", Share(70, 60, 70, 0)),
    ThreadLine(10, 11, "demo", "worker", Share(20, 10, 10, 10)),
    ThreadLine(77, 77, "kworker\x1b[2J", "kworker\x1b[2J", Share(10, 0, 0, 0)),
)
TABLE = Table(9.6, Share(100, 70, 80, 10), 3, FUNCTIONS, THREADS)


class FakeSource:
    """Gives the tables that a test sets."""

    def __init__(self, table: Table = TABLE) -> None:
        """Begin with that table."""
        self.view = View()
        self.failed: Exception | None = None
        self.table = table

    def latest(self) -> Table:
        """The test's table."""
        return self.table


@dataclass
class Stage:
    """What a test plays with."""

    app: Top
    pilot: Pilot[None]
    source: FakeSource


Steps = Callable[[Stage], Awaitable[None]]


def played(steps: Steps, *, size: tuple[int, int] = (80, 24), table: Table = TABLE) -> Top:
    """The application after a test's steps, on a terminal of that size."""
    source = FakeSource(table)
    app = Top(source, what="the machine")

    async def play() -> None:
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(Stage(app, pilot, source))

    asyncio.run(play())
    return app


def cells(app: Top) -> list[list[str]]:
    rows: DataTable[Text] = app.query_one(DataTable)
    return [[cell.plain for cell in rows.get_row_at(index)] for index in range(rows.row_count)]


def names(app: Top) -> list[str]:
    return [row[-1].partition("  ")[0] for row in cells(app)]


def head(app: Top) -> str:
    return str(app.query_one("#head", Static).content)


def screen(app: Top) -> str:
    """What stands on the terminal, line by line."""
    lines = app.screen._compositor.render_strips()
    return "\n".join(strip.text for strip in lines)


def test_functions_stand_with_their_numbers() -> None:
    async def steps(it: Stage) -> None:
        assert ["60.0 %", "60.0 %", "100.0 %", "0.0 %", "burn  demo"] == [cell.strip() for cell in cells(it.app)[0]]
        assert ["10.0 %", "90.0 %", "77.8 %", "11.1 %", "main  demo"] == [cell.strip() for cell in cells(it.app)[1]]
        assert ["4.0 %", "4.0 %", "-", "-", "do_idle  [kernel]"] == [cell.strip() for cell in cells(it.app)[3]]
        assert "the machine: 100 samples in 10 s of 10\n88.9 % whole, 77.8 % reliable, 3 lost" == head(it.app)

    played(steps)


def test_it_fits_80_by_24() -> None:
    """No line is longer, nothing has to be scrolled sideways, and the keys can be read."""

    async def steps(it: Stage) -> None:
        shown = screen(it.app)
        assert all(len(line) <= 80 for line in shown.splitlines())
        assert it.app.query_one(DataTable).virtual_size.width <= 80
        assert "burn" in shown
        assert "quit" in shown

    played(steps)


def test_hostile_names_are_text() -> None:
    async def steps(it: Stage) -> None:
        shown = screen(it.app)
        assert "\x1b" not in shown.replace("\n", "")
        assert "\u202e" not in shown
        assert "[red]" in shown
        assert "\\x1b]0;owned" in shown
        assert "[bold]x.so" in cells(it.app)[2][-1]
        await it.pilot.press("t")
        await it.pilot.pause()
        assert "kworker\\x1b[2J" in screen(it.app)

    played(steps)


def test_a_long_name_is_cut_to_the_terminal() -> None:
    long = Table(1, Share(1, 1, 1, 0), 0, (FunctionLine("x" * 5000, "", 1, Share(1, 1, 1, 0)),), ())

    async def steps(it: Stage) -> None:
        assert len(cells(it.app)[0][-1]) <= 40
        assert "…" in screen(it.app)
        await it.pilot.resize_terminal(200, 50)
        it.app.look()
        await it.pilot.pause()
        assert 100 < len(cells(it.app)[0][-1]) <= 160

    played(steps, table=long)


def test_sorting() -> None:
    async def steps(it: Stage) -> None:
        orders = []
        for _ in range(5):
            orders.append(names(it.app)[0])
            await it.pilot.press("s")
            await it.pilot.pause()
        assert ["burn", "main", "burn", "main", "burn"] == orders
        await it.pilot.press("S")
        await it.pilot.pause()
        assert sorted(names(it.app)) == names(it.app)
        assert "function▼" in screen(it.app)

    played(steps)


def test_the_filter() -> None:
    async def steps(it: Stage) -> None:
        await it.pilot.press("slash", *"LIBCUT")
        await it.pilot.pause()
        assert ["libcut.so+0x1230"] == names(it.app)
        assert "only /LIBCUT" in head(it.app)
        await it.pilot.press("enter", "t")
        await it.pilot.pause()
        assert [] == names(it.app)
        await it.pilot.press("escape", "t")
        await it.pilot.pause()
        assert 5 == len(names(it.app))
        assert not it.app.query_one("#filter", Input).has_class("open")

    played(steps)


def test_the_letter_q_in_the_filter_is_a_letter() -> None:
    async def steps(it: Stage) -> None:
        await it.pilot.press("slash", "q", "t")
        await it.pilot.pause()
        assert it.app.is_running
        assert "qt" == it.app.query_one("#filter", Input).value

    played(steps)


def test_pause_holds_the_table() -> None:
    async def steps(it: Stage) -> None:
        await it.pilot.press("p")
        it.source.table = Table(2, Share(1, 1, 1, 0), 0, FUNCTIONS[1:2], ())
        it.app.look()
        await it.pilot.pause()
        assert "burn" == names(it.app)[0]
        assert "[paused]" in head(it.app)
        await it.pilot.press("space")
        await it.pilot.pause()
        assert ["main"] == names(it.app)

    played(steps)


def test_a_newer_table_is_shown_and_the_marked_row_stays() -> None:
    async def steps(it: Stage) -> None:
        await it.pilot.press("down")
        more = FunctionLine("hotter", "", 70, Share(70, 70, 70, 0))
        it.source.table = Table(2, Share(170, 140, 150, 10), 0, (more, *FUNCTIONS), ())
        it.app.look()
        await it.pilot.pause()
        rows = it.app.query_one(DataTable)
        assert "hotter" == names(it.app)[0]
        assert "main" == names(it.app)[rows.cursor_row]

    played(steps)


def test_threads_and_the_functions_of_one() -> None:
    async def steps(it: Stage) -> None:
        await it.pilot.press("t")
        await it.pilot.pause()
        assert ["demo", "demo: worker", "kworker\\x1b[2J"] == names(it.app)
        assert ["70.0 %", "85.7 %", "0.0 %", "10"] == [cell.strip() for cell in cells(it.app)[0][:4]]
        await it.pilot.press("down", "enter")
        await it.pilot.pause()
        assert View(10.0, 11) == it.source.view
        assert "burn" == names(it.app)[0]
        assert "thread 11" in head(it.app)
        await it.pilot.press("escape")
        await it.pilot.pause()
        assert View(10.0) == it.source.view

    played(steps)


def test_threads_of_two_guests_may_have_one_number() -> None:
    twins = tuple(ThreadLine(10, 10, "sh", "sh", Share(9 - len(guest), 1, 1, 0), guest) for guest in (HOST, "web", "web#2"))

    async def steps(it: Stage) -> None:
        await it.pilot.press("t")
        await it.pilot.pause()
        assert {"sh", "guest:web sh", "guest:web#2 sh"} == set(names(it.app))
        await it.pilot.press("slash", *"web#2", "enter", "enter")
        await it.pilot.pause()
        assert View(10.0, 10, "web#2") == it.source.view
        assert "thread 10 of guest web#2" in head(it.app)
        await it.pilot.press("plus")
        await it.pilot.pause()
        assert View(30.0, 10, "web#2") == it.source.view

    played(steps, table=replace(TABLE, threads=twins))


def test_a_table_knows_the_guest_of_a_thread(tmp_path: Path) -> None:
    with open_recording(guests(tmp_path / "a.unspool")) as recording:
        profile = load(recording, timed=True)
    every = table(profile, View(), 1.0, 0)
    assert {(10, HOST): 2, (10, "web"): 5, (10, "web#2"): 2, (10, "db"): 3} == {
        (line.tid, line.guest): line.total.samples for line in every.threads
    }
    for line in every.threads:
        assert line.total.samples == table(profile, View(10.0, line.tid, line.guest), 1.0, 0).total.samples


def test_two_kernels_may_have_one_function() -> None:
    """Two guests with other kernels: the same name in the same module, and both are shown."""
    schedule = FunctionLine("schedule", "[guest.kernel]", 5, Share(5, 5, 5, 0))

    async def steps(it: Stage) -> None:
        assert ["schedule", "schedule"] == names(it.app)

    played(steps, table=replace(TABLE, functions=(schedule, schedule)))


def test_what_is_watched_in_words() -> None:
    def plan(**what: Any) -> Plan:
        return Plan(Path("x"), **what)

    assert "the machine" == top.what(plan(everything=True))
    assert "process 7, guest web" == top.what(plan(pids=(7,), guests=GuestPlan("web")))
    assert "the machine, all guests" == top.what(plan(everything=True, guests=GuestPlan("all")))
    assert "guest web,db" == top.what(plan(guests=GuestPlan("web,db")))


def test_a_longer_and_a_shorter_time() -> None:
    async def steps(it: Stage) -> None:
        await it.pilot.press("plus")
        assert 30.0 == it.source.view.seconds
        await it.pilot.press(*["minus"] * 9)
        assert 1.0 == it.source.view.seconds
        await it.pilot.press(*["plus"] * 9)
        await it.pilot.pause()
        assert 60.0 == it.source.view.seconds

    played(steps)


def test_help_and_back() -> None:
    async def steps(it: Stage) -> None:
        await it.pilot.press("question_mark")
        await it.pilot.pause()
        assert isinstance(it.app.screen, Help)
        assert "the stack ends before its true end" in screen(it.app)
        assert all(len(line) <= 80 for line in screen(it.app).splitlines())
        it.source.table = Table(2)
        it.app.look()
        await it.pilot.press("x")
        await it.pilot.pause()
        assert not isinstance(it.app.screen, Help)
        assert it.app.is_running

    played(steps)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_leaving(key: str) -> None:
    async def steps(it: Stage) -> None:
        await it.pilot.press(key)
        await it.pilot.pause()

    app = played(steps)
    assert (0, None) == (app.return_code, app._exception)


def test_it_ends_when_the_source_fails() -> None:
    async def steps(it: Stage) -> None:
        it.source.failed = NotPermitted("no more")
        it.app.look()
        await it.pilot.pause()
        assert it.app._exit

    played(steps)


def test_an_empty_table_is_no_error() -> None:
    async def steps(it: Stage) -> None:
        await it.pilot.press("t", "enter", "down", "t", "enter")
        await it.pilot.pause()
        assert "no user stacks" in head(it.app)
        it.source.table = Table(1, note="ended")
        it.app.look()
        await it.pilot.pause()
        assert "[ended]" in head(it.app)

    played(steps, table=Table())


def test_the_text() -> None:
    lines = list(top.lines(TABLE, 3))
    assert "100 samples in 9.6 s, 88.9 % whole, 77.8 % reliable, 3 lost" == lines[0]
    assert "    self     total  reliable       cut  function" == lines[2]
    assert "  10.0 %    90.0 %    77.8 %    11.1 %  main  (/usr/bin/demo)" == lines[4]
    assert r"   6.0 %     6.0 %     0.0 %     0.0 %  evil\x1b]0;owned\x07[red]\u202eeman\n[/red]  (/lib/[bold]x.so)" in lines[5]
    assert "libcut" not in "".join(lines)
    assert r"kworker\x1b[2J" in lines[-1]
    assert ["0 samples in 0.0 s, no user stacks, 0 lost", "nothing of what was asked for ran on a CPU"] == list(top.lines(Table(), 3))


def test_the_hint_when_textual_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    really = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "textual":
            raise ModuleNotFoundError("No module named 'textual'", name="textual")
        return really(name, *rest, **more)

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.delitem(sys.modules, "unspool.cli.top_screen")
    monkeypatch.setattr(builtins, "__import__", without)
    assert 1 == main(["top"])
    said = capsys.readouterr().err
    assert "textual is not installed" in said
    assert "pip install 'unspool[tui]'" in said


def test_a_machine_and_a_process_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["top", "-a", "-p", "1"])
    assert "Leave one of them out" in capsys.readouterr().err
