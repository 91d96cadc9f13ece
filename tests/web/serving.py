"""A real server in a process of its own, and requests to it as a program or an attacker would send them."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

PATIENCE = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: status, headers (names in lower case), body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as an object."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Server:
    """A running `unspool serve`: its process, the address it printed, and the token in it."""

    pid: int
    link: str
    port: int
    token: str

    @property
    def host(self) -> str:
        """Host and port as a browser sends them."""
        return f"127.0.0.1:{self.port}"

    def ask(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, token: bool = True, body: bytes | None = None
    ) -> Answer:
        """Send one request; the token goes along unless it is to be left out."""
        sent = {"Host": self.host, **({"Authorization": f"Bearer {self.token}"} if token else {}), **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    def change(self, path: str, body: bytes = b"") -> Answer:
        """Send one POST as the page does."""
        return self.ask(path, method="POST", headers={"Origin": f"http://{self.host}"}, body=body)

    def view(self, name: str, **parameters: object) -> Any:
        """What /api/NAME answers."""
        answer = self.ask(f"/api/{name}?{urlencode(parameters, doseq=True)}")
        assert 200 == answer.status, answer.body
        return answer.json()


UNSPOOL = (sys.executable, "-c", "import sys; from unspool.cli.main import main; sys.exit(main())")


@contextlib.contextmanager
def serving(*files: Path, options: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server for those recordings; it is ended afterwards."""
    with running("serve", "--no-open", *options, *map(str, files)) as (server, _):
        yield server


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[Server, subprocess.Popen[str]]]:
    """A command of ours that prints the address of a page, and its process, which is ended afterwards."""
    with subprocess.Popen([*UNSPOOL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            link = process.stdout.readline().strip()
            assert link, process.stderr.read()
            parts = urlsplit(link.split(" ")[0])
            yield Server(process.pid, link, parts.port or 0, parts.query.removeprefix("token=")), process
        finally:
            if process.poll() is None:
                process.terminate()
            # What `with` would read again is read here, with a bound.
            process.communicate(timeout=PATIENCE)
