"""A recording that is being made, as the page sees it: its rows from the recorder, a picture of them on request, and two words back.

The recorder keeps its privileges; this side has none, and can ask for nothing but START and STOP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from unspool.errors import BadInput
from unspool.store import wire
from unspool.web.app import Views
from unspool.web.live_profile import LiveProfile, State
from unspool.web.names import Added, with_names
from unspool.web.opened import Opened
from unspool.web.query import Query

if TYPE_CHECKING:
    Json = dict[str, object]

MOST_LISTENERS = 16
"""Pages that are told of news at the same time; each costs a connection."""
STILL_HERE_SECONDS = 15.0
"""After so long without news a listener gets an empty line, so that a connection that is gone is noticed."""


class LiveSource:
    """The rows so far. `read` takes them from the recorder in a thread of its own; everything else is for the server."""

    def __init__(self, channel: socket.socket, name: str) -> None:
        """`channel` leads to the recorder; `name` is the recording's file."""
        self.name = name
        self.version = 0
        self._channel = channel
        self._profile = LiveProfile()
        self._lock = threading.Lock()
        self._opened: tuple[int, Opened] | None = None
        self.added: list[Added] = []
        self._tell: Callable[[], None] = lambda: None

    def opened(self) -> Opened:
        """The picture of now; the same one until something new comes."""
        with self._lock:
            if self._opened is None or self._opened[0] != self.version:
                self._opened = (self.version, Opened(self.name, with_names(self._profile.profile(), self.added)))
            return self._opened[1]

    def add_names(self, added: Added) -> None:
        """Show these names from now on, also in later pictures; what is seen for the first time after this has none of them."""
        with self._lock:
            self.added.append(added)
            self.version += 1
        self._tell()

    def status(self) -> Json:
        """What is told with every piece of news."""
        with self._lock:
            state = self._profile.state
            return {
                "live": True,
                "version": self.version,
                "samples": self._profile.samples,
                "recorded_s": state.recorded_s,
                "sampling": state.sampling,
                "finished": state.finished,
            }

    def ask(self, word: bytes) -> None:
        """Say START or STOP to the recorder; whether it did shows in the next state that it sends."""
        # A recorder that has ended is told nothing.
        with contextlib.suppress(OSError):
            self._channel.send(word, socket.MSG_NOSIGNAL)

    def tell(self, tell: Callable[[], None]) -> None:
        """Call this after every piece of news, from the reading thread."""
        self._tell = tell

    def read(self, ended: Callable[[str], None]) -> None:
        """Take what the recorder sends until it ends; `ended` gets an empty text, or what was wrong with the bytes."""
        why = ""
        try:
            with self._channel.makefile("rb") as stream:
                # A recorder that was killed leaves a message unfinished.
                while len(head := stream.read(wire.MESSAGE.size)) == wire.MESSAGE.size:
                    kind, size = wire.opened(head)
                    body = stream.read(size)
                    if len(body) == size:
                        self.take(kind, body)
        except (BadInput, OSError, ValueError) as error:
            why = str(error)
        ended(why)

    def take(self, kind: wire.Kind, body: bytes) -> None:
        """One message: rows, or the recorder's state."""
        rows = wire.decoded(body) if kind is wire.Kind.ROWS else None
        state = _state(body) if kind is wire.Kind.STATE else None
        with self._lock:
            if rows is not None:
                self._profile.add(rows)
            if state is not None:
                before, self._profile.state = self._profile.state, state
            # The clock alone is no reason to count everything again.
            if state is None or (before.sampling, before.finished) != (state.sampling, state.finished):
                self.version += 1
        self._tell()


def _state(body: bytes) -> State:
    try:
        said = json.loads(body)
        number = {name: int(said[name]) for name in ("started_ns", "monotonic_ns")}
        return State(**number, recorded_s=float(said["recorded_s"]), sampling=said["sampling"] is True, finished=said["finished"] is True)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise BadInput("a state that is none") from None


class News:
    """Tells every page that listens when there is something new."""

    def __init__(self, source: LiveSource) -> None:
        """Nobody listens."""
        self._source = source
        self._listeners: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def is_full(self) -> bool:
        """Whether no more pages can listen."""
        return len(self._listeners) >= MOST_LISTENERS

    async def listen(self) -> AsyncIterator[bytes]:
        """Server-sent events: the state now, and again whenever something changed."""
        self._loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        self._listeners.add(changed)
        try:
            while not self._closed:
                changed.clear()
                yield f"data: {json.dumps(self._source.status())}\n\n".encode()
                while not self._closed and not await _within(changed, STILL_HERE_SECONDS):
                    yield b":\n\n"
        finally:
            self._listeners.discard(changed)

    def close(self) -> None:
        """End every stream, or the server would wait for them."""
        self._closed = True
        self._ring()

    def wake(self) -> None:
        """There is something new; may be called from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        for listener in self._listeners:
            listener.set()


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


class LiveViews(Views):
    """The views of one recording that grows."""

    def __init__(self, source: LiveSource) -> None:
        """Show that one."""
        super().__init__([])
        self._source = source

    @property
    def opened(self) -> list[Opened]:
        """The recording as it is now."""
        return [self._source.opened()]

    @property
    def version(self) -> int:
        """The number of pieces of news."""
        return self._source.version

    def add_names(self, number: int, added: Added) -> None:
        """Show the recording with these names from now on."""
        del number
        self._source.add_names(added)

    def added(self, number: int) -> list[Added]:
        """The names that were added."""
        del number
        return self._source.added

    def live(self, query: Query) -> Json:
        """How far the recording is."""
        query.check(())
        return self._source.status()


def live_routes(source: LiveSource, news: News) -> list[BaseRoute]:
    """The addresses that only a live recording has: news, and the two words."""

    async def events(_: Request) -> Response:
        if news.is_full:
            return PlainTextResponse("too many pages listen already\n", 503)
        return StreamingResponse(news.listen(), media_type="text/event-stream")

    def asking(word: bytes) -> Callable[[Request], object]:
        async def answer(_: Request) -> Response:
            source.ask(word)
            return Response(status_code=202)

        return answer

    return [
        Route("/api/events", events, methods=["GET"]),
        Route("/api/start", asking(wire.START), methods=["POST"]),
        Route("/api/stop", asking(wire.STOP), methods=["POST"]),
    ]
