"""The live page's process: no privileges, a socket that listens, and a channel to the recorder."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from unspool.web.live import LiveSource, LiveViews, News, live_routes
from unspool.web.serving import Place, Server, access_for, drop_privileges, link, prepared
from unspool.web.uploads import Namer, Uploads


@dataclass(frozen=True, slots=True)
class Pipes:
    """What the process is given: the channel to the recorder, and the socket that the page is served on."""

    channel: socket.socket
    bound: socket.socket


def serve_live(pipes: Pipes, name: str, place: Place, owner: tuple[int, int] | None, ready: Callable[[str], None], namer: Namer) -> None:
    """Serve the recording `name` until the recorder lets go of the channel. `ready` gets the address, once something can be seen there."""
    source = LiveSource(pipes.channel, name)
    news, views = News(source), LiveViews(source)
    namer.prepare()
    routes = [*live_routes(source, news), *Uploads(views, namer).routes()]
    guarded, config = prepared(views, access_for(place, pipes.bound, owner), routes)
    # Nothing that comes from the recorder is looked at before.
    drop_privileges(owner)
    server = LiveServer(config, lambda: ready(link(place, guarded.access)), news.close)
    first = threading.Event()
    source.tell(first.set)

    def ended(why: str) -> None:
        if why:
            sys.stderr.write(f"unspool: the live page ends: {why}\n")
        server.should_exit = True
        first.set()

    threading.Thread(target=source.read, args=(ended,), name="unspool-feed", daemon=True).start()
    # A recorder that could not begin has nothing to show.
    first.wait()
    source.tell(news.wake)
    if not server.should_exit:
        server.run(sockets=[pipes.bound])


class LiveServer(Server):
    """A server that ends with its recorder, and not with Ctrl-C, which the terminal sends to both."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave Ctrl-C and the terminal's end to the recorder."""
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        yield
