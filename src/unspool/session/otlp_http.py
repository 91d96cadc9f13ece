"""One request to an OpenTelemetry collector over HTTP, and what its answer means for the profile that was sent.

The rules are those of the OTLP specification 1.9, section "OTLP/HTTP": which statuses are tried again, and partial success.
The standard library's client is enough for one POST every some seconds, and does what is wanted here: it verifies certificates, follows no
redirect, asks no proxy, and adds no code to a process that may run as root.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from unspool.errors import BadRequest

PATH = "/v1development/profiles"
"""Where a collector takes profiles: the path of the signal while it is in development (OTLP specification)."""

RETRYABLE = frozenset({429, 502, 503, 504})
HOPELESS = frozenset({401, 403, 404, 405, 407, 501})
"""Statuses that say that every further request would be refused too."""

PAYLOAD_TOO_LARGE, BAD_REQUEST = 413, 400
TOO_LARGE_IN_GO = "request body too large"
"""What a Go server says with status 400 where 413 is meant: the error of net/http's MaxBytesReader."""

TIMEOUT = 30.0
"""Seconds for a collector to accept a connection, and to answer."""

MOST_ANSWER = 256 << 10
MOST_WORDS = 300
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


Meaning = Literal["taken", "rejected", "again", "too-large", "refused", "hopeless"]
"""What became of a request: taken; taken and thrown away; to be sent again; to be cut in two; refused; refused like all that may follow."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a collector's answer means; `says` is a sentence without secrets, `after` the seconds that it asks us to wait."""

    meaning: Meaning
    says: str = ""
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """A collector's address. `shown` is what may be printed: without a query, which may hold a key."""

    https: bool
    host: str
    port: int
    path: str
    shown: str

    @property
    def exposed(self) -> bool:
        """Whether what is sent can be read on the way."""
        return not self.https and self.host not in _LOOPBACK


def address_of(url: str) -> Address:
    """The address in a URL; one that does not name the signal's own path gets it, as OTEL_EXPORTER_OTLP_ENDPOINT does."""
    parts, port = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadRequest("--otlp takes an address that begins with http:// or https://", hint="For example http://localhost:4318")
    if parts.username is not None or parts.password is not None:
        raise BadRequest("the address holds a name or password", hint="Give it with --header, or in OTEL_EXPORTER_OTLP_HEADERS.")
    path = parts.path if parts.path.endswith("/profiles") else parts.path.rstrip("/") + PATH
    if (
        not path.isascii()
        or not path.isprintable()
        or " " in path + parts.query
        or not (parts.query.isascii() and parts.query.isprintable())
    ):
        raise BadRequest("the address holds characters that no address may hold", hint="Write them as %XX.")
    host = parts.hostname
    name = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{name}:{port}{path}"
    return Address(parts.scheme == "https", host, port, path + (f"?{parts.query}" if parts.query else ""), shown)


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadRequest("--otlp takes an address such as http://localhost:4318") from None
    return parts, port if port is not None else (443 if parts.scheme == "https" else 80)


class Collector:
    """A collector that takes profiles. `headers` go with every request and into no message."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, *, ca: Path | None = None) -> None:
        """Check the address and the headers (BadRequest); `ca` holds certificates to trust instead of the machine's."""
        self.address = address_of(url)
        self._headers = dict(headers or {})
        self._timeout = TIMEOUT
        self._context = _context(ca) if self.address.https else None
        for name, value in self._headers.items():
            _check_header(name, value)

    def post(self, body: bytes) -> Answer:
        """Send a message (gzip of an `ExportProfilesServiceRequest`); what its answer means. Raises nothing for what a collector does."""
        own = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", "User-Agent": "unspool", "Connection": "close"}
        headers = own | self._headers
        deadline = time.monotonic() + self._timeout
        connection = self._connection()
        try:
            connection.request("POST", self.address.path, body, headers)
            response = connection.getresponse()
            answer = _read(response, deadline)
            return self._without_secrets(meaning_of(response.status, dict(response.headers), answer))
        except ssl.SSLCertVerificationError as error:
            return Answer("hopeless", f"its certificate cannot be trusted: {error.verify_message}")
        except TimeoutError:
            return Answer("again", f"no answer within {self._timeout:g} s")
        except (OSError, http.client.HTTPException) as error:
            return Answer("again", _words(error))
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        place = self.address
        if self._context is not None:
            return http.client.HTTPSConnection(place.host, place.port, timeout=self._timeout, context=self._context)
        return http.client.HTTPConnection(place.host, place.port, timeout=self._timeout)

    def _without_secrets(self, answer: Answer) -> Answer:
        """The answer with every header's value taken out: a server may repeat what it does not like."""
        says = answer.says
        for value in sorted(self._headers.values(), key=len, reverse=True):
            for part in {value, *value.split()}:
                if len(part) >= 4:
                    says = says.replace(part, "***")
        return Answer(answer.meaning, says, answer.after)


def meaning_of(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """What an answer means; `headers` are named as the server wrote them."""
    headers = {name.lower(): value for name, value in headers.items()}
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300:
        return _taken(kind, body)
    says = f"it answers {status} {http.client.responses.get(status, '')}".rstrip()
    words = _said(kind, body)
    if words:
        says += f": {words}"
    if status in RETRYABLE:
        return Answer("again", says, _retry_after(headers.get("retry-after")))
    if status == PAYLOAD_TOO_LARGE or (status == BAD_REQUEST and TOO_LARGE_IN_GO in words):
        return Answer("too-large", says)
    if 300 <= status < 400:
        return Answer("hopeless", f"{says}; redirects are not followed")
    return Answer("hopeless" if status in HOPELESS else "refused", says)


def _taken(kind: str, body: bytes) -> Answer:
    """Also a 200 may mean that nothing was taken: partial success, or another server that answers anything."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

    if not body:
        return Answer("taken")
    if kind != "application/x-protobuf":
        return Answer("hopeless", f"it answers with {kind or 'something unnamed'}, so it is no collector that takes profiles")
    try:
        partial = service.ExportProfilesServiceResponse.FromString(body).partial_success
    except DecodeError:
        return Answer("hopeless", "its answer is no answer of a collector")
    words = partial.error_message[:MOST_WORDS]
    # A message of ours holds one profile, so that any number is that one.
    if partial.rejected_profiles > 0:
        return Answer("rejected", f"it took the request and rejected the profile: {words or 'without a reason'}")
    return Answer("taken", f"it says: {words}" if words else "")


def _said(kind: str, body: bytes) -> str:
    """The reason in an error's body: text, or google.rpc.Status."""
    if kind.startswith("text/plain"):
        return body[:MOST_WORDS].decode("utf-8", "replace").strip()
    if kind == "application/x-protobuf":
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

        try:
            # google.rpc.Status has a number in field 1 and a text in field 2, as this message has.
            return str(service.ExportProfilesPartialSuccess.FromString(body).error_message)[:MOST_WORDS]
        except DecodeError:
            return ""
    return ""


def _retry_after(text: str | None) -> float | None:
    """The seconds of a Retry-After header: a number or a date (RFC 9110, section 10.2.3); None for anything else."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body, as much of it as matters; TimeoutError when it comes too slowly."""
    body = b""
    while len(body) < MOST_ANSWER:
        if time.monotonic() >= deadline:
            raise TimeoutError
        part = response.read1(MOST_ANSWER - len(body))
        if not part:
            break
        body += part
    return body


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return f"its answer is no HTTP ({type(error).__name__})"


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError):
        raise BadRequest(f"{ca} holds no certificates", hint="--ca takes a file in PEM form.") from None


def _check_header(name: str, value: str) -> None:
    """BadRequest for what HTTP cannot carry; the value is not repeated, for it may be a secret."""
    token = bool(name) and all(character.isascii() and (character.isalnum() or character in "!#$%&'*+-.^_`|~") for character in name)
    printable = value.isascii() and value.isprintable()
    if not token or not printable:
        raise BadRequest("a header has a name or value that HTTP cannot carry", hint="--header takes NAME: VALUE.")
    if name.lower() in _OURS:
        raise BadRequest(f"the header {name} is set by unspool itself", hint="Leave it out.")


_OURS = frozenset({"content-type", "content-encoding", "content-length", "transfer-encoding", "connection", "host"})


def headers_of(given: Sequence[str], environment: str = "") -> dict[str, str]:
    """The headers of --header options ("NAME: VALUE") and of OTEL_EXPORTER_OTLP_HEADERS ("name=value,name=value", values as %XX)."""
    from urllib.parse import unquote

    found: dict[str, str] = {}
    for pair in environment.split(","):
        name, equals, value = pair.partition("=")
        if pair.strip() and not equals:
            raise BadRequest("OTEL_EXPORTER_OTLP_HEADERS is no list of name=value")
        if pair.strip():
            found[name.strip()] = unquote(value.strip())
    for option in given:
        name, colon, value = option.partition(":")
        if not colon:
            raise BadRequest("--header takes NAME: VALUE", hint="For example: --header 'Authorization: Bearer TOKEN'")
        found[name.strip()] = value.strip()
    return found
