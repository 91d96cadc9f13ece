"""The screen of `unspool top`: a table over the whole terminal, made with textual."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Static

from unspool.cli.printable import printable
from unspool.cli.top import figures, named, proof
from unspool.model.guest import HOST
from unspool.model.percent import percent
from unspool.session.top import WINDOWS, FunctionLine, Share, Source, Table, ThreadLine, View

REFRESH = 0.25
"""Seconds between two looks for a newer table."""

MOST_ROWS = 500
WIDTHS = {"self": 8, "total": 8, "share": 8, "reliable": 9, "cut": 8, "tid": 8}
"""Columns of the terminal for each number; each has one free on both sides."""

NAME_ROOM = 4
"""What is free around the name: one on both sides, and two for the bar that scrolls."""

NARROWEST = 16

HELP = """\
What runs now: the last seconds, made anew every second.

 self       part of the samples in which the function itself ran
 total      part of the samples with the function on the stack
 reliable   of these: the stack misses no function, which is proved
 cut        of these: the stack ends before its true end; callers are missing
            (what is neither is whole, but something speaks against it)

 q          leave                    s, S     sort by another column
 p, space   pause, go on             + -      a longer, shorter time
 t          threads, functions       enter    functions of the marked thread
 /          show names that have     escape   all names, all threads
            these letters            ?        this page

A name ending in +0x... has no symbol. docs/top.md says more.
Any key leaves this page."""

FUNCTION_SORTS = ("self", "total", "reliable", "cut", "name")
THREAD_SORTS = ("share", "reliable", "cut", "name")


class Help(ModalScreen[None]):
    """What the keys do."""

    CSS = """
    Help { align: center middle; }
    Help VerticalScroll { width: 80; max-width: 100%; height: auto; max-height: 100%; border: round $accent; background: $surface; }
    """

    def compose(self) -> ComposeResult:
        """One page of text."""
        with VerticalScroll():
            yield Static(Text(HELP))

    def on_key(self) -> None:
        """Leave."""
        self.dismiss()


class Top(App[None]):
    """The table. It ends with q, Ctrl-C, SIGTERM, when its time is over, or when the source fails."""

    TITLE = "unspool top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: 2; padding: 0 1; }
    #filter { height: 1; border: none; padding: 0 1; display: none; }
    #filter.open { display: block; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("p,space", "pause", "pause"),
        Binding("t", "threads", "threads"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("s", "sort(1)", "sort"),
        Binding("S", "sort(-1)", show=False),
        Binding("plus,equals_sign", "longer(1)", "longer", key_display="+"),
        Binding("minus", "longer(-1)", "shorter", key_display="-"),
        Binding("escape", "clear", show=False),
        Binding("question_mark", "help", "help", key_display="?"),
    ]

    def __init__(self, source: Source, *, what: str, seconds: float | None = None) -> None:
        """Show the source's tables; `what` says what is watched, `seconds` when to end."""
        super().__init__()
        self._source = source
        self._what = what
        self._seconds = seconds
        self._shown: Table | None = None
        self._width = 0
        self._paused = False
        self._by_thread = False
        self._sort = {False: 0, True: 0}
        self._letters = ""

    def compose(self) -> ComposeResult:
        """Head, filter, table, keys."""
        yield Static(id="head")
        yield DataTable[Text](cursor_type="row", zebra_stripes=True)
        yield Input(placeholder="letters of a name, a file or a thread", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look for tables."""
        self._rows.focus()
        self.set_interval(REFRESH, self.look)
        if self._seconds is not None:
            self.set_timer(self._seconds, self.exit)
        self._catch_signals()
        self.show()

    def _catch_signals(self) -> None:
        """SIGTERM and SIGHUP end it in order: the terminal is given back as it was."""
        import asyncio

        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self.exit)

    @property
    def _rows(self) -> DataTable[Text]:
        return self.query_one(DataTable)

    def look(self) -> None:
        """Show a newer table when there is one, and all of it anew on a terminal that has another width now."""
        if self._source.failed is not None:
            self.exit()
        elif self.size.width != self._width or not (self._paused or self._source.latest() is self._shown):
            self.show()

    def show(self) -> None:
        """Write everything anew; the marked row stays marked when it is still there."""
        if not self._paused or self._shown is None:
            self._shown = self._source.latest()
        try:
            rows = self._rows
        except NoMatches:
            # A timer's last call while the screen is taken down.
            return
        self.query_one("#head", Static).update(self._head(self._shown))
        self._width = self.size.width
        marked, top = self._marked(), rows.scroll_y
        with self.batch_update():
            rows.clear(columns=True)
            if self._by_thread:
                self._fill_threads(rows, self._shown)
            else:
                self._fill_functions(rows, self._shown)
            if marked is not None and marked in rows.rows:
                rows.move_cursor(row=rows.get_row_index(marked), scroll=False)
            rows.scroll_to(y=top, animate=False)

    def _marked(self) -> str | None:
        rows = self._rows
        if not rows.row_count:
            return None
        key = rows.coordinate_to_cell_key(rows.cursor_coordinate).row_key
        return key.value

    def _head(self, table: Table) -> Text:
        view = self._source.view
        state = " [paused]" if self._paused else f" [{table.note}]" if table.note else ""
        thread = f", thread {view.tid}{'' if view.guest == HOST else f' of guest {view.guest}'}" if view.tid is not None else ""
        first = f"{self._what}{thread}: {table.total.samples:,} samples in {table.seconds:.0f} s of {view.seconds:.0f}{state}"
        second = f"{proof(table.total)}, {table.lost:,} lost"
        if self._letters:
            second += f"; only /{self._letters}"
        return Text.assemble((f"{printable(first)}\n", "bold"), printable(second), no_wrap=True, overflow="ellipsis")

    def _columns(self, rows: DataTable[Text], sorts: tuple[str, ...], labels: tuple[str, ...]) -> int:
        """Add the columns; the room for a name, which is the last one."""
        chosen = sorts[self._sort[self._by_thread]]
        room = max(self.size.width - NAME_ROOM - sum(WIDTHS[label] + 2 for label in labels[:-1]), NARROWEST)
        for label in labels:
            is_last = label == labels[-1]
            mark = "▼" if label == chosen or (is_last and chosen == "name") else ""
            rows.add_column(Text(label + mark, justify="left" if is_last else "right"), width=WIDTHS.get(label, room))
        return room

    def _fill_functions(self, rows: DataTable[Text], table: Table) -> None:
        room = self._columns(rows, FUNCTION_SORTS, ("self", "total", "reliable", "cut", "function"))
        found = [line for line in table.functions if self._passes(line.name, line.module)]
        found.sort(key=function_key(FUNCTION_SORTS[self._sort[False]]))
        used: set[str] = set()
        for line in found[:MOST_ROWS]:
            own, total, reliable, cut = figures(line, table.total.samples)
            name = printable(line.name)
            module = printable(line.module.rpartition("/")[2]) if "+0x" not in name else ""
            cells = (right(own), right(total), *shares(line.total, reliable, cut), fitted(name, module, room))
            key = f"{line.name}\0{line.module}"
            # Two builds of one file, or the kernels of two guests.
            while key in used:
                key += "\0"
            used.add(key)
            rows.add_row(*cells, key=key)

    def _fill_threads(self, rows: DataTable[Text], table: Table) -> None:
        room = self._columns(rows, THREAD_SORTS, ("share", "reliable", "cut", "tid", "thread"))
        found = [line for line in table.threads if self._passes(named(line), line.thread, str(line.pid), str(line.tid))]
        found.sort(key=thread_key(THREAD_SORTS[self._sort[True]]))
        every = sum(line.total.samples for line in table.threads)
        used: set[str] = set()
        for line in found[:MOST_ROWS]:
            own = line.total
            reliable, cut = percent(own.reliable, own.stacks), percent(own.cut, own.stacks)
            name = fitted(printable(named(line)), str(line.pid), room)
            key = f"{line.tid} {line.guest}"
            if key not in used:
                used.add(key)
                cells = (right(percent(own.samples, every)), *shares(own, reliable, cut), right(str(line.tid)), name)
                rows.add_row(*cells, key=key)

    def _passes(self, *texts: str) -> bool:
        return not self._letters or any(self._letters.lower() in text.lower() for text in texts)

    def action_pause(self) -> None:
        """Stand still, or go on. Sampling goes on in any case."""
        self._paused = not self._paused
        self.show()

    def action_threads(self) -> None:
        """Threads instead of functions, and back."""
        self._by_thread = not self._by_thread
        self.show()

    def action_sort(self, step: int) -> None:
        """Sort by another column."""
        sorts = THREAD_SORTS if self._by_thread else FUNCTION_SORTS
        self._sort[self._by_thread] = (self._sort[self._by_thread] + step) % len(sorts)
        self.show()

    def action_longer(self, step: int) -> None:
        """Show a longer or shorter time, from the next table on."""
        view = self._source.view
        place = max(0, min(WINDOWS.index(view.seconds) + step, len(WINDOWS) - 1))
        self._source.view = View(WINDOWS[place], view.tid, view.guest)
        self.show()

    def action_filter(self) -> None:
        """Ask for letters."""
        box = self.query_one("#filter", Input)
        box.add_class("open")
        box.focus()

    def action_clear(self) -> None:
        """All names and all threads."""
        box = self.query_one("#filter", Input)
        box.value = ""
        box.remove_class("open")
        self._letters = ""
        self._source.view = View(self._source.view.seconds)
        self._rows.focus()
        self.show()

    def action_help(self) -> None:
        """Show what the keys do."""
        self.push_screen(Help())

    def on_input_changed(self, event: Input.Changed) -> None:
        """Each letter counts at once."""
        self._letters = event.value
        self.show()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter goes back to the table."""
        if not event.value:
            event.input.remove_class("open")
        self._rows.focus()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter on a thread shows its functions."""
        if self._by_thread and event.row_key.value is not None:
            tid, _, guest = event.row_key.value.partition(" ")
            self._source.view = View(self._source.view.seconds, int(tid), guest)
            self._by_thread = False
            self.show()


def function_key(sort: str) -> Callable[[FunctionLine], Any]:
    """What sorts functions: the largest first, names from a to z."""
    match sort:
        case "total":
            return lambda line: -line.total.samples
        case "reliable":
            return lambda line: (-_part(line.total.reliable, line.total), -line.total.samples)
        case "cut":
            return lambda line: (-line.total.cut, -line.total.samples)
        case "name":
            return lambda line: line.name
    return lambda line: (-line.own, -line.total.samples)


def thread_key(sort: str) -> Callable[[ThreadLine], Any]:
    """What sorts threads."""
    match sort:
        case "reliable":
            return lambda line: (-_part(line.total.reliable, line.total), -line.total.samples)
        case "cut":
            return lambda line: (-line.total.cut, -line.total.samples)
        case "name":
            return lambda line: (line.process, line.thread)
    return lambda line: -line.total.samples


def _part(part: int, share: Share) -> float:
    return part / share.stacks if share.stacks else 0.0


def right(text: str) -> Text:
    """A number's cell."""
    return Text(text, justify="right")


def fitted(name: str, behind: str, room: int) -> Text:
    """A name with what stands behind it, as much as fits."""
    short = name if len(name) <= room else name[: room - 1] + "…"
    return Text.assemble(short, (f"  {behind}" if behind else "", "dim"), no_wrap=True, overflow="ellipsis")


def shares(share: Share, reliable: str, cut: str) -> tuple[Text, Text]:
    """The cells of what is proved and of what is cut; the numbers say it, the colour repeats it."""
    proved = "green" if share.stacks and share.reliable == share.stacks else ""
    return Text(reliable, style=proved, justify="right"), Text(cut, style="red" if share.cut else "", justify="right")
