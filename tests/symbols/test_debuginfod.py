"""Debug files from servers: asked only when the environment says so, kept, and believed only with the right build id."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from target_programs import Programs

from unspool.formats.elf import Elf
from unspool.symbols.debuginfod import Debuginfod
from unspool.symbols.files import OpenFile, open_in_root
from unspool.symbols.symbolizer import Symbolizer


@dataclass
class Server:
    """A debuginfod server: what it has by path, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            data = served.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    yield served
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def split(programs: Programs, tmp_path: Path) -> tuple[Path, Path, str]:
    """A stripped program, its debug file, its build id."""
    whole, program, debug = programs.build("inlined.cc", "-O2", "-g"), tmp_path / "program", tmp_path / "debug"
    shutil.copy(whole, program)
    subprocess.run(["strip", program], check=True, timeout=60)
    subprocess.run(["objcopy", "--only-keep-debug", whole, debug], check=True, timeout=60)
    return program, debug, Elf(whole.read_bytes()).build_id


def line_of_main(program: Path, debug: Path) -> int | None:
    output = subprocess.run(["nm", debug], check=True, capture_output=True, text=True, timeout=60).stdout
    address = next(int(line.split()[0], 16) for line in output.splitlines() if line.endswith(" T main"))
    with Symbolizer() as symbolizer:
        symbolizer.add("program", OpenFile(open_in_root(None, str(program)), str(program)))
        [named] = symbolizer.names("program", [address], stated=True)
    return named[-1].line if isinstance(named, tuple) else None


def test_a_server_of_the_environment_is_asked_once(
    server: Server, split: tuple[Path, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, debug, build_id = split
    address = f"/buildid/{build_id}/debuginfo"
    server.files[address] = debug.read_bytes()
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)
    assert line_of_main(program, debug) is None
    assert [] == server.asked
    monkeypatch.setenv("DEBUGINFOD_URLS", f"{server.url}/ ftp://elsewhere")
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "cache"))
    assert line_of_main(program, debug) is not None
    assert line_of_main(program, debug) is not None
    assert [address] == server.asked
    assert debug.read_bytes() == (tmp_path / "cache" / build_id / "debuginfo").read_bytes()


def test_the_debug_file_of_another_program_is_not_used(
    server: Server, split: tuple[Path, Path, str], programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, debug, build_id = split
    server.files[f"/buildid/{build_id}/debuginfo"] = programs.build("inlined.cc", "-O0", "-g").read_bytes()
    monkeypatch.setenv("DEBUGINFOD_URLS", server.url)
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "cache"))
    assert line_of_main(program, debug) is None


def test_what_no_server_has_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        assert [] == list(Debuginfod((server.url,), tmp_path).debug_files("c0ffee11"))
    assert ["/buildid/c0ffee11/debuginfo"] == server.asked


def test_a_server_that_cannot_be_reached_is_skipped(server: Server, tmp_path: Path) -> None:
    server.files["/buildid/c0ffee11/debuginfo"] = b"content"
    client = Debuginfod(("http://127.0.0.1:1", server.url), tmp_path)
    [file] = client.debug_files("c0ffee11")
    file.close()
    assert {"http://127.0.0.1:1"} == client._unreachable
    # With no server in reach nothing is known, and nothing is remembered.
    assert [] == list(Debuginfod(("http://127.0.0.1:1",), tmp_path).debug_files("c0ffee22"))
    assert not (tmp_path / "c0ffee22" / "debuginfo").exists()


def test_an_answer_that_is_too_large_is_dropped(server: Server, tmp_path: Path) -> None:
    server.files["/buildid/c0ffee11/debuginfo"] = bytes(1000)
    assert [] == list(Debuginfod((server.url,), tmp_path, max_size=999).debug_files("c0ffee11"))
    assert ["debuginfo"] == [path.name for path in (tmp_path / "c0ffee11").iterdir()]


@pytest.mark.parametrize("build_id", ["", "../../etc", "c0ffee/..", "C0FFEE11", "c0"])
def test_what_is_no_build_id_is_not_asked_for(build_id: str, server: Server, tmp_path: Path) -> None:
    assert [] == list(Debuginfod((server.url,), tmp_path).debug_files(build_id))
    assert [] == server.asked


def test_the_environment_says_where_and_how_much() -> None:
    assert Debuginfod.of_environment({}) is None
    assert Debuginfod.of_environment({"DEBUGINFOD_URLS": "file:///etc"}) is None
    client = Debuginfod.of_environment(
        {"DEBUGINFOD_URLS": "https://a https://b", "HOME": "/home/x", "DEBUGINFOD_TIMEOUT": "7", "DEBUGINFOD_MAXSIZE": "8"}
    )
    assert client is not None
    assert (("https://a", "https://b"), 7.0, 8) == (client.urls, client.seconds, client.max_size)
    assert Path("/home/x/.cache/debuginfod_client") == client.cache
