"""A collector of tests: a real HTTP server that answers as it is told, and keeps what it took."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

PROTOBUF = "application/x-protobuf"


@dataclass
class Reply:
    """What to answer; `hang` answers nothing until the server is closed, `cut` closes the connection instead."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    kind: str = PROTOBUF
    hang: bool = False
    cut: bool = False


TAKEN = Reply()


def rejecting(number: int, words: str) -> Reply:
    """Partial success."""
    answer = service.ExportProfilesServiceResponse()
    answer.partial_success.rejected_profiles = number
    answer.partial_success.error_message = words
    return Reply(body=answer.SerializeToString())


Script = Callable[[int, Any], Reply]
"""From the number of the request (from 0) and its message to the answer."""


class FakeCollector:
    """`taken` holds the messages that were answered with 200, `seen` the path and headers of every request."""

    def __init__(self, script: Script, certificate: Path | None = None) -> None:
        """Listen on a free port."""
        self.taken: list[Any] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.closing = threading.Event()
        self._script = script
        self._lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def samples(self) -> int:
        """How many samples the taken messages hold."""
        return sum(samples_of(message) for message in self.taken)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert "gzip" == self.headers["Content-Encoding"]
                assert PROTOBUF == self.headers["Content-Type"]
                message = service.ExportProfilesServiceRequest.FromString(gzip.decompress(body))
                with collector._lock:
                    number = len(collector.seen)
                    collector.seen.append((self.path, dict(self.headers)))
                    reply = collector._script(number, message)
                    if reply.status == 200 and not reply.hang and not reply.cut:
                        collector.taken.append(message)
                if reply.hang:
                    collector.closing.wait()
                if not reply.hang and not reply.cut:
                    self._answer(reply)

            def _answer(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in {"Content-Type": reply.kind, "Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Silence."""

        return Handler


def samples_of(message: Any) -> int:
    """The number of samples in a message."""
    profiles = [profile for resource in message.resource_profiles for scope in resource.scope_profiles for profile in scope.profiles]
    return sum(len(sample.timestamps_unix_nano) for profile in profiles for sample in profile.samples)


@contextlib.contextmanager
def collector(script: Script = lambda _number, _message: TAKEN, certificate: Path | None = None) -> Iterator[FakeCollector]:
    """A collector that runs as long as the block."""
    running = FakeCollector(script, certificate)
    try:
        yield running
    finally:
        running.close()


def counted(messages: list[Any]) -> Counter[tuple[object, ...]]:
    """Every sample of the messages as time, weight and the names on its stack, however the messages are cut."""
    found: Counter[tuple[object, ...]] = Counter()
    for message in messages:
        words, table = message.dictionary.string_table, message.dictionary
        for sample in message.resource_profiles[0].scope_profiles[0].profiles[0].samples:
            places = [table.location_table[place] for place in table.stack_table[sample.stack_index].location_indices]
            names = tuple(words[table.function_table[line.function_index].name_strindex] for place in places for line in place.lines)
            for moment, weight in zip(sample.timestamps_unix_nano, sample.values, strict=True):
                found[moment, weight, names] += 1
    return found
