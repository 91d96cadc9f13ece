"""Who may ask the web server: nobody without the token, no page of another site, no name that only pretends to be this machine.

The token comes in the address that `unspool serve` prints (`/?token=...`) and becomes a cookie; a program may send it as
`Authorization: Bearer TOKEN`. A browser that visits a hostile page while the server runs is the enemy here: it can send requests to
loopback addresses, from that page (Origin, Sec-Fetch-Site) or under a name that suddenly means 127.0.0.1 (Host; DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
SPEEDSCOPE = "/speedscope/"
"""Where another program stands beside the page: its files, and nothing else."""
SPEEDSCOPE_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='")
"""It makes an empty style element (the digest is that of nothing) and puts its rules into that by script, which no policy forbids."""
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""What every answer carries, besides a content security policy."""
NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
LOGIN = "401 Not allowed: open the address that `unspool serve` printed; it holds the token.\n"


def new_token() -> str:
    """Thirty-two random bytes, for an address."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request is not answered."""

    status: int
    why: str


@dataclass(frozen=True, slots=True)
class Head:
    """The parts of a request that decide whether it is answered. A header that came twice is joined by a comma, and then fits nothing."""

    method: str
    path: str
    query: bytes
    headers: dict[str, str]

    @classmethod
    def of(cls, scope: Scope) -> Head:
        """The head of an ASGI request."""
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]},{text}" if key in headers else text
        return cls(scope["method"], scope["path"], scope["query_string"], headers)

    def get(self, name: str) -> str:
        """A header, empty when it did not come."""
        return self.headers.get(name, "")


@dataclass(frozen=True, slots=True)
class Access:
    """The rules. `port` is 0 on a Unix socket; `remote` allows addresses (never foreign names) other than loopback."""

    token: str
    port: int
    remote: bool = False
    hostname: str = ""

    @property
    def cookie(self) -> str:
        """The cookie's name; it has the port, because cookies do not tell ports apart."""
        return f"unspool-{self.port}"

    def refusal(self, head: Head) -> Refused | None:
        """Why this request is not answered whoever sends it; None when only the token is to be asked for."""
        if not self._is_our_host(head.get("host")):
            return Refused(403, "this server does not go by that name (Host)")
        origin, site = head.get("origin"), head.get("sec-fetch-site")
        if origin and origin != f"http://{head.get('host')}":
            return Refused(403, "the request comes from another site (Origin)")
        if site not in {"", "same-origin", "none"} and not self._is_visit(head):
            return Refused(403, "the request comes from another site (Sec-Fetch-Site)")
        if head.method not in {"GET", "HEAD"} and not origin and site != "same-origin":
            return Refused(403, "a change must come from the page itself (Origin)")
        return None

    def is_known(self, head: Head) -> bool:
        """Whether the request carries the token, as cookie or bearer."""
        kind, _, bearer = head.get("authorization").partition(" ")
        if kind.lower() == "bearer" and self.fits(bearer.strip()):
            return True
        pairs = (pair.strip().partition("=") for pair in head.get("cookie").replace(",", ";").split(";"))
        return any(name == self.cookie and self.fits(value) for name, _, value in pairs)

    def fits(self, token: str) -> bool:
        """Whether this is the token, compared in constant time."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())

    def _is_our_host(self, host: str) -> bool:
        name, _, port = host.rpartition(":") if host.rpartition(":")[2].isdecimal() else (host, "", "80")
        if self.port and port != str(self.port):
            return False
        if name in NAMES:
            return True
        # A name can be made to mean this machine by whoever owns it; a number cannot.
        return self.remote and (_is_address(name) or (bool(self.hostname) and name == self.hostname))

    @staticmethod
    def _is_visit(head: Head) -> bool:
        """Whether somebody followed a link to the page; that gives the other site nothing."""
        return head.method == "GET" and head.path == "/" and head.get("sec-fetch-mode") == "navigate"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


class Guard:
    """An ASGI application that lets through to another one what `Access` allows, and adds the security headers to every answer."""

    def __init__(self, app: App, access: Access) -> None:
        """Stand before that application."""
        self._app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or take the token."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        head = Head.of(scope)
        refused = self.access.refusal(head)
        if refused is not None:
            await _answer(send, refused.status, f"{refused.status} {refused.why}\n")
            return
        token = parse_qs(head.query.decode("latin-1")).get("token", [""])[0]
        if head.method == "GET" and head.path == "/" and token:
            await self._take(token, send)
            return
        if not self.access.is_known(head):
            await _answer(send, 401, LOGIN)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *headers_for(head.path)]}
            await send(message)

        await self._app(scope, receive, with_headers)

    async def _take(self, token: str, send: Send) -> None:
        if not self.access.fits(token):
            await _answer(send, 401, LOGIN)
            return
        # The redirect takes the token out of the address, where it would stay in the history.
        cookie = f"{self.access.cookie}={self.access.token}; Path=/; HttpOnly; SameSite=Strict"
        await _answer(send, 303, "", (b"location", b"/"), (b"set-cookie", cookie.encode()))


def headers_for(path: str) -> list[tuple[bytes, bytes]]:
    """The headers that keep the page, or what else is at that address, from doing anything but its work."""
    policy = SPEEDSCOPE_POLICY if path.startswith(SPEEDSCOPE) else POLICY
    return [(b"content-security-policy", policy.encode()), *HEADERS]


async def _answer(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    body = text.encode()
    own = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers, *headers_for("")]})
    await send({"type": "http.response.body", "body": body})
