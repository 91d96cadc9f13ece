"""The server: where it listens, as whom it runs, and when it says that it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import pwd
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.routing import BaseRoute

from unspool.errors import BadRequest, NotPermitted
from unspool.export.formats import FORMATS
from unspool.store.writer import Writer
from unspool.web.access import Access, Guard, new_token
from unspool.web.app import VIEWS, Views, application
from unspool.web.opened import Opened
from unspool.web.uploads import Namer, Uploads

PR_SET_NO_NEW_PRIVS = 38
NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen: an address and port (0: any that is free), or a Unix socket. Beyond loopback only with `remote`."""

    address: str = "127.0.0.1"
    port: int = 0
    unix: Path | None = None
    remote: bool = False


def listen(place: Place) -> socket.socket:
    """A bound socket; BadRequest when the address is not this machine's, is taken, or is open to others unasked."""
    if place.unix is not None:
        return _listen_unix(place.unix)
    try:
        address = ipaddress.ip_address(place.address)
    except ValueError:
        raise BadRequest(f"{place.address!r} is no address", hint="Give a number, for example 127.0.0.1 or ::1.") from None
    if not address.is_loopback and not place.remote:
        raise BadRequest(
            f"{place.address} can be reached from other machines, and the connection is not encrypted",
            hint="Use `ssh -L PORT:localhost:PORT HOST` instead, or add --allow-remote if that is what you want.",
        )
    bound = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((place.address, place.port))
    except OSError as error:
        bound.close()
        raise BadRequest(f"cannot listen on {place.address} port {place.port}: {error.strerror}", hint="Choose another --port.") from error
    return bound


def _listen_unix(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise BadRequest(f"{path} exists and is no socket", hint="Choose another name.")
        path.unlink()
    bound = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        bound.bind(str(path))
    except OSError as error:
        bound.close()
        raise BadRequest(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    return bound


def user_without_root(owner: tuple[int, int] | None) -> tuple[int, int] | None:
    """Whom the server becomes: `owner` (user and group), else nobody; None when it is not root, and so stays who it is."""
    return (owner or _nobody()) if os.geteuid() == 0 else None


def drop_privileges(owner: tuple[int, int] | None) -> None:
    """Give root up for good; see `user_without_root`."""
    user = user_without_root(owner)
    if user is None:
        return
    uid, gid = user
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise NotPermitted(f"the server cannot give up root: {error.strerror}", hint="Start it as another user.") from error
    # No program that it might be made to start can get privileges back.
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _nobody() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return NOBODY, NOBODY
    return entry.pw_uid, entry.pw_gid


def serve(
    load: Callable[[], list[Opened]], place: Place, owner: tuple[int, int] | None, ready: Callable[[str], None], namer: Namer
) -> None:
    """Serve until a signal comes. `ready` is called with the address to open, once the server answers.

    `load` reads the recordings, `namer` the files that the page sends. By then this process is not root any more: what parses bytes of
    others must not have its rights.
    """
    with listen(place) as bound:
        views = Views(empty())
        namer.prepare()
        guarded, config = prepared(views, access_for(place, bound, owner), Uploads(views, namer).routes())
        drop_privileges(owner)
        views.hold(load())
        asyncio.run(_ask(guarded, FIRST))
        Server(config, lambda: ready(link(place, guarded.access))).run(sockets=[bound])


def access_for(place: Place, bound: socket.socket, owner: tuple[int, int] | None) -> Access:
    """Who may ask through that socket, by a new token. A socket file is given to the owner."""
    if place.unix is not None and owner is not None and os.geteuid() == 0:
        os.chown(place.unix, *owner)
    port = 0 if place.unix else bound.getsockname()[1]
    return Access(new_token(), port, remote=place.remote, hostname=socket.gethostname() if place.remote else "")


def prepared(views: Views, access: Access, more: Iterable[BaseRoute] = ()) -> tuple[Guard, uvicorn.Config]:
    """The guarded application and its server's configuration, with everything imported: as nobody the package may be out of reach."""
    guarded = Guard(application(views, more), access)
    config = uvicorn.Config(
        guarded, log_level="warning", access_log=False, lifespan="off", server_header=False, date_header=False, ws="none"
    )
    config.load()
    asyncio.run(
        _ask(guarded, [*((path, NO_PROCESS) for path in WARM), *((EXPORT, NO_PROCESS + b"&format=" + name.encode()) for name in FORMATS)])
    )
    return guarded, config


def empty() -> list[Opened]:
    """A recording without samples, read from a file like any other: it costs the imports and nothing else."""
    with tempfile.TemporaryDirectory(prefix="unspool-") as folder:
        path = Path(folder, "empty.unspool")
        Writer(path).finish(0)
        return [Opened.of(path)]


def link(place: Place, access: Access) -> str:
    """What to open in a browser."""
    if place.unix is not None:
        return f"http://localhost/?token={access.token} (through {place.unix})"
    host = f"[{place.address}]" if ":" in place.address else place.address
    return f"http://{host}:{access.port}/?token={access.token}"


EXPORT = "/api/export"
WARM = ("/", "/nothing", *(f"/api/{name}" for name in VIEWS))
NO_PROCESS = b"pid=-1"
FIRST = (("/api/recordings", b""), ("/api/summary", b"file=0"), ("/api/tree", b"file=0&by=comm&inverted=0&marks=1"))
"""What the page asks for first; the answers are kept, so that it does not wait for them."""


async def _ask(app: Guard, asked: Iterable[tuple[str, bytes]]) -> None:
    """Ask for these addresses and parameters, and forget what is answered."""
    headers = [(b"host", f"localhost:{app.access.port}".encode()), (b"authorization", f"Bearer {app.access.token}".encode())]
    fixed = {"type": "http", "method": "GET", "headers": headers, "root_path": "", "scheme": "http", "http_version": "1.1"}
    for path, query in asked:
        # A view that fails, fails again when somebody asks for it, and says so then.
        with contextlib.suppress(Exception):
            scope = {**fixed, "path": path, "query_string": query, "server": ("localhost", app.access.port), "client": ("localhost", 0)}
            await app(scope, _receive, _drop)


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _drop(_: Any) -> None:  # noqa: ANN401 - ASGI
    return


class Server(uvicorn.Server):
    """A server that says when it listens, and before it waits for its connections to end."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], ending: Callable[[], None] = lambda: None) -> None:
        """Call `ready` when it answers, `ending` when it is about to end."""
        super().__init__(config)
        self._ready = ready
        self._ending = ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        self._ending()
        await super().shutdown(sockets)
