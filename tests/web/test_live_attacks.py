"""The live page against whoever tries it: other sites, too many listeners, a page or a recorder that says what it must not."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from store.recordings import small
from web.feeding import bodies
from web.live import is_alive, until
from web.serving import PATIENCE, Server

from unspool.session import live_feed
from unspool.session.live_feed import Feed, forked
from unspool.store import wire
from unspool.symbols.uploaded import UploadedFile
from unspool.web.live import MOST_LISTENERS
from unspool.web.live_serving import Pipes, serve_live
from unspool.web.serving import Place, listen


@dataclass(frozen=True, slots=True)
class Page:
    """A live page, and the recorder's end of its channel."""

    server: Server
    feed: Feed
    pid: int

    def heard(self) -> bytes:
        """The last word that the page said; b"" when none came until it answered something else."""
        assert 200 == self.server.ask("/api/live").status
        return self.feed.attend()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Page]:
    """A page that a small recording was sent to."""
    sent = bodies(small, tmp_path / "a.unspool", monkeypatch)
    place = Place()
    with listen(place) as bound:

        def serve(channel: socket.socket) -> None:
            # What pytest puts in their place leads nowhere after the fork.
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, encoding="utf-8", closefd=False) for number in (1, 2))
            serve_live(Pipes(channel, bound), "a.unspool", place, None, print, UploadedFile)

        feed = forked(serve, bound)
    try:
        for body in sent:
            feed._send(wire.message(wire.Kind.ROWS, body))
        feed.state(started_ns=1, monotonic_ns=1, recorded_s=1.0, sampling=True, finished=False)
        feed.flush()
        said: list[str] = []

        def link() -> str:
            said.append(capfd.readouterr().out)
            return "".join(said).strip() if said[-1].endswith("\n") else ""

        parts = urlsplit(until(link))
        server = Server(os.getpid(), parts.geturl(), parts.port or 0, parts.query.removeprefix("token="))
        yield Page(server, feed, feed._pid)
    finally:
        feed.close()


@contextlib.contextmanager
def listening(server: Server) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/api/events", headers={"Host": server.host, "Authorization": f"Bearer {server.token}"})
        yield connection.getresponse()


@pytest.mark.parametrize("word", ["start", "stop"])
def test_only_the_page_itself_starts_and_stops(page: Page, word: str) -> None:
    server, path = page.server, f"/api/{word}"
    ours = {"Origin": f"http://{server.host}"}
    for headers in (
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert 403 == server.ask(path, method="POST", headers=headers).status
    assert 403 == server.ask(path, method="POST", headers={**ours, "Host": f"evil.example:{server.port}"}).status
    assert 401 == server.ask(path, method="POST", headers=ours, token=False).status
    assert 405 == server.ask(path).status, "a link or an image starts nothing"
    assert b"" == page.heard()
    assert 202 == server.ask(path, method="POST", headers=ours).status
    assert {"start": wire.START, "stop": wire.STOP}[word] == page.heard()


def test_news_is_for_those_who_have_the_token(page: Page) -> None:
    assert 401 == page.server.ask("/api/events", token=False).status
    assert 403 == page.server.ask("/api/events", headers={"Origin": "http://evil.example"}).status
    assert 403 == page.server.ask("/api/events", headers={"Sec-Fetch-Site": "cross-site"}).status


def test_listeners_are_bounded_and_one_that_goes_makes_room(page: Page) -> None:
    with contextlib.ExitStack() as held:
        first = held.enter_context(contextlib.ExitStack())
        for index in range(MOST_LISTENERS):
            response = (first if index == 0 else held).enter_context(listening(page.server))
            assert 200 == response.status
            assert json.loads(response.readline().removeprefix(b"data: "))["live"]
        with listening(page.server) as response:
            assert 503 == response.status
        assert 200 == page.server.ask("/api/summary").status, "whoever gets no news still gets answers"
        first.close()

        def is_let_in() -> bool:
            with listening(page.server) as response:
                return response.status == 200

        until(is_let_in)


@pytest.mark.parametrize(
    "said",
    [
        b"garbage that is no message",
        wire.message(wire.Kind.ROWS, b"no rows"),
        wire.message(wire.Kind.STATE, b"[]"),
        wire.message(wire.Kind.STATE, b'{"started_ns": 1}'),
        wire.message(wire.Kind.STATE, b"[" * 100_000),
        wire.MESSAGE.pack(wire.MAGIC, 1, 2**32 - 1),
        wire.message(wire.Kind.ROWS, wire.encoded({"threads": [(7, 7, 7, "x")]})),
    ],
)
def test_a_recorder_that_says_nonsense_ends_the_page(page: Page, said: bytes) -> None:
    page.feed._send(said)
    page.feed.flush()
    until(lambda: not is_alive(page.pid))


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"+", b"+"),
        (b"-", b"-"),
        (b"+-", b"-"),
        (b"x" * 5000, b""),
        (b"stop\n- now", b"-"),
        (b"\0\xff+", b"+"),
    ],
)
def test_the_recorder_hears_two_words_and_nothing_else(said: bytes, heard: bytes) -> None:
    ours, theirs = socket.socketpair()
    feed = Feed(ours, 0)
    with theirs:
        theirs.sendall(said)
        assert heard == feed.attend()
        assert b"" == feed.attend()
        assert not feed.gone
    assert b"" == feed.attend()
    assert feed.gone
    feed.close()


def test_a_page_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(live_feed, "MOST_WAITING", 1 << 20)
    ours, theirs = socket.socketpair()
    feed = Feed(ours, 0)
    with theirs:
        rows = {"machine": [("key", "x" * 1000)] * 500}
        for _ in range(20):
            feed.rows(rows)
        assert feed.gone
        assert "does not keep up" in capsys.readouterr().err
        feed.rows(rows)
        feed.state(finished=True)
        feed.flush()
        feed.linger()
    feed.close()


def test_names_can_be_sent_while_it_is_recorded(page: Page) -> None:
    answer = page.server.change("/api/names?module=[kernel]", b"hello")
    assert 400 == answer.status
    before = page.server.view("live")["version"]
    found = page.server.change("/api/names?module=/usr/lib/libfoo.so", Path("/proc/self/exe").read_bytes())
    assert (400, "the file is another build than /usr/lib/libfoo.so") == (found.status, found.json()["error"])
    assert before == page.server.view("live")["version"]
