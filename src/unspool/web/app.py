"""The web application: the page's files, and every view as JSON. It reads no file: recordings and page come from memory."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from unspool.errors import BadRequest, UnspoolError
from unspool.export.formats import FORMATS
from unspool.export.options import Options
from unspool.profile.columns import NONE, Profile
from unspool.profile.difference import difference
from unspool.profile.tree import GROUPINGS, Grouping
from unspool.web.chart import chart
from unspool.web.graphs import Shape, flame, joint, sandwich
from unspool.web.names import Added, with_names
from unspool.web.opened import Opened
from unspool.web.query import Query
from unspool.web.views import Series, choices, data_quality, functions, summary, timeline

if TYPE_CHECKING:
    Json = dict[str, object]

SERIES = ("verdict", "ending", "process", "cpu", "trigger", "guest", "vcpu", "mode", "cgroup")
SHAPE = ("by", "marks", "inverted")
MOST_BINS = 2000
MOST_CHANGES = 5000
MOST_THREADS = 2**31
ANSWERS_KEPT = 4
"""Of each view, as text: going back and forth between views asks the same again."""


class Views:
    """What /api/ answers, for recordings that are open. Every method takes the parameters and gives an object."""

    def __init__(self, opened: list[Opened]) -> None:
        """Take them in the order of the command line; parameter `file` is a place in it."""
        self._held = opened
        self._version = 0
        self._added: dict[int, list[Added]] = {}

    @property
    def opened(self) -> list[Opened]:
        """The recordings as they are now."""
        return self._held

    @property
    def version(self) -> int:
        """A number that grows when an answer may be another one than before."""
        return self._version

    def hold(self, opened: list[Opened]) -> None:
        """Show other recordings from now on."""
        self._held = opened
        self._version += 1

    def add_names(self, number: int, added: Added) -> None:
        """Show a recording with these names from now on."""
        self._added.setdefault(number, []).append(added)
        one = self._held[number]
        self.hold([*self._held[:number], Opened(one.name, with_names(one.profile, [added])), *self._held[number + 1 :]])

    def added(self, number: int) -> list[Added]:
        """The names that were added to a recording."""
        return self._added.get(number, [])

    def live(self, query: Query) -> Json:
        """Whether the recording still grows; then /api/events tells when."""
        query.check(())
        return {"live": False, "version": self.version}

    def recordings(self, query: Query) -> Json:
        """The recordings that are open."""
        query.check(())
        return {"recordings": [self._summary(number, one, one.profile) for number, one in enumerate(self.opened)]}

    def summary(self, query: Query) -> Json:
        """One recording under the filter."""
        query.check(("file",))
        return self._summary(query.number("file", 0, 0, len(self.opened) - 1), *self._chosen(query))

    def choices(self, query: Query) -> Json:
        """What filters can be set to."""
        query.check(("file",))
        return choices(self._opened(query, "file"))

    def tree(self, query: Query) -> Json:
        """The flame graph."""
        query.check(("file", *SHAPE))
        return flame(*self._chosen(query), shape(query))

    def functions(self, query: Query) -> Json:
        """The table."""
        query.check(("file",))
        return functions(*self._chosen(query))

    def sandwich(self, query: Query) -> Json:
        """Callers and callees of `function` in `in` (a path)."""
        query.check(("file", "function", "in"))
        return sandwich(*self._chosen(query), query.one("function"), query.one("in"))

    def timeline(self, query: Query) -> Json:
        """Samples over time; the filter's times do not hold here, or there were nothing to choose a time in."""
        query.check(("file", "series", "bins"))
        one = self._opened(query, "file")
        profile = one.select(replace(query.filter(), since=None, until=None))
        return timeline(one, profile, cast("Series", query.choice("series", SERIES)), query.number("bins", 300, 1, MOST_BINS))

    def chart(self, query: Query) -> Json:
        """One thread's stacks in order of time; `thread` is a number of the answer's list, the busiest one when it is left out."""
        query.check(("file", "thread"))
        return chart(*self._chosen(query), query.number("thread", NONE, NONE, MOST_THREADS))

    def quality(self, query: Query) -> Json:
        """How far the picture can be trusted."""
        query.check(("file",))
        return data_quality(*self._chosen(query))

    def diff(self, query: Query) -> Json:
        """What changed between two recordings: functions, and the tree of both."""
        query.check(("before", "after", *SHAPE))
        sides = [self._opened(query, "before", 0), self._opened(query, "after", len(self.opened) - 1)]
        only = query.filter()
        (first, before), (second, after) = ((one, one.select(only)) for one in sides)
        changes = difference(before, after)
        kept = [change for change in changes if change.own or change.total][:MOST_CHANGES]
        return {
            "before": summary(first, before),
            "after": summary(second, after),
            "functions": {
                "name": [change.name for change in kept],
                "module": [change.module for change in kept],
                "own_before": [change.own_before for change in kept],
                "own_after": [change.own_after for change in kept],
                "total_before": [change.total_before for change in kept],
                "total_after": [change.total_after for change in kept],
            },
            "tree": joint((first, before), (second, after), shape(query)),
        }

    def export(self, query: Query) -> tuple[str, bytes]:
        """The samples that pass in another format, and a name for the file."""
        query.check(("file", "format", "by", "marks"))
        _one, profile = self._chosen(query)
        name = query.choice("format", tuple(FORMATS))
        options = Options(marks=query.flag("marks", default=True), by=cast("Grouping", query.choice("by", GROUPINGS)))
        return f"recording{FORMATS[name].suffixes[0]}", b"".join(FORMATS[name].chunks(profile, options))

    def _summary(self, number: int, one: Opened, profile: Profile) -> Json:
        sent = [{"name": each.name, "modules": each.modules, "asked": each.asked, "named": len(each.names)} for each in self.added(number)]
        return {**summary(one, profile), "added": sent}

    def _chosen(self, query: Query) -> tuple[Opened, Profile]:
        one = self._opened(query, "file")
        return one, one.select(query.filter())

    def _opened(self, query: Query, name: str, default: int = 0) -> Opened:
        return self.opened[query.number(name, default, 0, len(self.opened) - 1)]


def shape(query: Query) -> Shape:
    """How a tree is wanted."""
    by = cast("Grouping", query.choice("by", GROUPINGS))
    return Shape(by=by, marks=query.flag("marks", default=True), inverted=query.flag("inverted", default=False))


VIEWS = ("recordings", "summary", "choices", "tree", "functions", "sandwich", "timeline", "chart", "quality", "diff", "live")


def application(views: Views, more: Iterable[BaseRoute] = ()) -> Starlette:
    """The application, without its guard (`access.Guard`); `more` are addresses beside the views and the page's files."""
    routes: list[BaseRoute] = [*more]
    routes += [Route(f"/api/{name}", _json(views, getattr(views, name)), methods=["GET"]) for name in VIEWS]
    routes.append(Route("/api/export", _download(views), methods=["GET"]))
    for path, content, kind in page_files():
        routes.append(Route(path, _fixed(content, kind), methods=["GET"]))
    return Starlette(routes=routes)


def page_files() -> Iterator[tuple[str, bytes, str]]:
    """The built page: address, content and type of each file. An address outside this list leads nowhere, whatever it looks like."""
    root = files("unspool.web") / "static"
    for path, entry in _walk(root, ""):
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        if path.endswith((".js", ".css", ".html", ".svg")):
            kind = {"js": "text/javascript", "css": "text/css", "html": "text/html", "svg": "image/svg+xml"}[path.rpartition(".")[2]]
            kind += "; charset=utf-8"
        yield "/" if path == "/index.html" else path, entry.read_bytes(), kind


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        path = f"{prefix}/{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, path)
        elif not entry.name.startswith("."):
            yield path, entry


def _json(views: Views, view: Callable[[Query], Json]) -> Callable[[Request], object]:
    @lru_cache(ANSWERS_KEPT)
    def answered(query: Query, _: int) -> bytes:
        return json.dumps(view(query), separators=(",", ":")).encode()

    async def answer(request: Request) -> Response:
        try:
            content = await run_in_threadpool(answered, query_of(request), views.version)
        except UnspoolError as error:
            return _error(error)
        return Response(content, media_type="application/json")

    return answer


def _download(views: Views) -> Callable[[Request], object]:
    async def answer(request: Request) -> Response:
        try:
            name, content = await run_in_threadpool(views.export, query_of(request))
        except UnspoolError as error:
            return _error(error)
        return Response(content, media_type="application/octet-stream", headers={"content-disposition": f'attachment; filename="{name}"'})

    return answer


def _error(error: UnspoolError) -> Response:
    status = 400 if isinstance(error, BadRequest) else 500
    return Response(json.dumps({"error": str(error), "hint": error.hint}), status, media_type="application/json")


def _fixed(content: bytes, kind: str) -> Callable[[Request], object]:
    async def answer(_: Request) -> Response:
        return Response(content, headers={"content-type": kind})

    return answer


def query_of(request: Request) -> Query:
    """The parameters of a request."""
    return Query(tuple((name, value) for name, value in request.query_params.multi_items() if name != "token"))
