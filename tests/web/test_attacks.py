"""Each way in that a hostile page, name or neighbour could try, and the answer it gets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from store.recordings import small
from web.serving import PATIENCE, Server, serving

from unspool.cli.main import main
from unspool.errors import BadRequest
from unspool.web.access import Access, Head
from unspool.web.serving import Place, listen

VIEWS = ("recordings", "summary", "choices", "tree", "functions", "sandwich", "timeline", "quality", "diff", "export", "live", "names")


@pytest.mark.parametrize("path", ["/", "/page.js", "/index.css", "/nothing", *(f"/api/{view}" for view in VIEWS)])
def test_without_the_token_nothing_is_answered(server: Server, path: str) -> None:
    assert 401 == server.ask(path, token=False).status


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "\u00e9" * 43, "0" * 5000])
def test_another_token_is_none(server: Server, token: str) -> None:
    sent = token.encode().decode("latin-1")
    assert 401 == server.ask("/api/summary", token=False, headers={"Authorization": f"Bearer {sent}"}).status
    assert 401 == server.ask("/api/summary", token=False, headers={"Cookie": f"unspool-{server.port}={sent}"}).status
    assert 401 == server.ask("/?token=x", token=False).status


def test_the_link_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(server: Server) -> None:
    answer = server.ask(f"/?token={server.token}", token=False)
    assert (303, "/") == (answer.status, answer.headers["location"])
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"unspool-{server.port}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert 200 == server.ask("/api/summary", token=False, headers={"Cookie": cookie.partition(";")[0]}).status
    other = cookie.partition(";")[0].replace(f"-{server.port}", "-1")
    assert 401 == server.ask("/api/summary", token=False, headers={"Cookie": other}).status


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "localhost", "127.0.0.1.evil.example:{port}", "", "0:{port}"]
)
def test_a_name_that_only_leads_here_is_refused(server: Server, host: str) -> None:
    """DNS rebinding: the attacker's own name is made to mean 127.0.0.1."""
    assert 403 == server.ask("/api/summary", headers={"Host": host.format(port=server.port)}).status


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
def test_the_machines_own_names_are_known(server: Server, name: str) -> None:
    assert 200 == server.ask("/api/summary", headers={"Host": f"{name}:{server.port}"}).status


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "http://127.0.0.1:{port}.evil.example"]
)
def test_a_foreign_origin_is_refused(server: Server, origin: str) -> None:
    assert 403 == server.ask("/api/summary", headers={"Origin": origin.format(port=server.port)}).status


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_a_fetch_from_another_site_is_refused(server: Server, site: str) -> None:
    assert 403 == server.ask("/api/summary", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}).status
    assert 403 == server.ask("/api/summary", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}).status
    assert 200 == server.ask("/api/summary", headers={"Sec-Fetch-Site": "same-origin"}).status


def test_a_change_must_come_from_the_page(server: Server) -> None:
    assert 403 == server.ask("/api/summary", method="POST").status
    assert 403 == server.ask("/api/summary", method="DELETE").status
    assert 405 == server.ask("/api/summary", method="POST", headers={"Origin": f"http://{server.host}"}).status


@pytest.mark.parametrize(
    "path",
    [
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/static/../page.js",
        "/.stamp",
        "/page.js%00.html",
    ],
)
def test_no_path_leads_to_a_file(server: Server, path: str) -> None:
    answer = server.ask(path)
    assert 404 == answer.status
    assert b"root:" not in answer.body


@pytest.mark.parametrize(
    "parameters", ["file=../../etc/passwd", "file=9", "file=-1", "file=/etc/passwd", "format=/etc/passwd", "format=../x"]
)
def test_no_parameter_is_a_path(server: Server, parameters: str) -> None:
    answer = server.ask(f"/api/export?{parameters}")
    assert 400 == answer.status
    assert b"root:" not in answer.body


@pytest.mark.parametrize(
    "parameters", ["from=nan", "to=1e999", "cpu=x", "stop=nothing", "verdict=1", "bins=10000000", "pidd=1", "series=x", "cpu=1" * 3]
)
def test_wrong_parameters_are_named(server: Server, parameters: str) -> None:
    answer = server.ask(f"/api/timeline?{parameters}")
    assert 400 == answer.status
    assert answer.json()["error"]


@pytest.mark.parametrize("path", ["/", "/api/summary", "/nothing", "/?token=x"])
def test_every_answer_carries_the_policy(server: Server, path: str) -> None:
    headers = server.ask(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "nosniff" == headers["x-content-type-options"]
    assert "no-referrer" == headers["referrer-policy"]
    assert "same-origin" == headers["cross-origin-resource-policy"]
    assert "access-control-allow-origin" not in headers


def test_the_page_has_no_inline_script(server: Server) -> None:
    page = server.ask("/").body.decode()
    assert '<script type="module"' in page
    assert "<style" not in page
    assert "onclick" not in page


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_are_kept_out_unless_asked_for(address: str) -> None:
    with pytest.raises(BadRequest, match="reached from other machines"):
        listen(Place(address))


def test_a_name_is_no_address() -> None:
    with pytest.raises(BadRequest, match="no address"):
        listen(Place("localhost.evil.example"))


def test_beyond_loopback_only_numbers_and_the_machines_name_are_hosts() -> None:
    access = Access("t" * 43, 8080, remote=True, hostname="here")
    heads = {
        host: access.refusal(Head("GET", "/", b"", {"host": host}))
        for host in ("192.0.2.1:8080", "here:8080", "[2001:db8::1]:8080", "evil:8080")
    }
    assert [True, True, True, False] == [refused is None for refused in heads.values()]


def test_a_unix_socket_is_its_owners_alone(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listen(Place(unix=path)):
        assert 0o600 == path.stat().st_mode & 0o777
    path.unlink()
    path.write_text("a file")
    with pytest.raises(BadRequest, match="is no socket"):
        listen(Place(unix=path))
    assert server.token


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("no recording")
    assert 1 == main(["serve", "--no-open", str(tmp_path / "x")])
    assert "is not a recording" in capsys.readouterr().err


@pytest.mark.live
def test_the_server_is_not_root(server: Server) -> None:
    """It read the recordings as root, and gave that up before it said its address."""
    state = dict(line.split(":\t", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if ":\t" in line)
    assert {"65534"} == set(state["Uid"].split())
    assert {"65534"} == set(state["Gid"].split())
    assert not state["Groups"].strip()
    assert 0 == int(state["CapEff"], 16) == int(state["CapPrm"], 16)
    assert "1" == state["NoNewPrivs"]


WATCHED = """
import os, sys
from unspool.web import lent, opened
read = opened.open_recording
def watched(path):
    print("parsed as", os.geteuid(), "from", "a copy" if str(path) != sys.argv[-1] else "the file", file=sys.stderr)
    return read(path)
opened.open_recording = watched
from unspool.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.live
@pytest.mark.parametrize("readable", [False, True])
def test_root_parses_no_recording(*, readable: bool) -> None:
    """What may not be read by whom the server becomes is copied; of the bytes root looks at nothing but the magic."""
    with tempfile.TemporaryDirectory() as name:
        folder, copies = Path(name), Path(name, "copies")
        path = small(folder / "a.unspool")
        copies.mkdir()
        for entry, mode in ((folder, 0o755), (copies, 0o1777), (path, 0o644 if readable else 0o600)):
            entry.chmod(mode)
        command = [sys.executable, "-c", WATCHED, "serve", "--no-open", str(path)]
        environment = {**os.environ, "TMPDIR": str(copies)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            process.terminate()
            said = process.communicate(timeout=PATIENCE)[1].splitlines()
        # The first one is the empty recording that the server makes itself, to have everything imported.
        assert ["parsed as 0 from a copy", f"parsed as 65534 from {'the file' if readable else 'a copy'}"] == said[:2]
        assert [] == list(copies.iterdir())


def test_half_a_request_does_not_stop_others(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as half:
        half.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert 200 == server.ask("/api/summary").status


@pytest.mark.parametrize("options", [("--bind", "0.0.0.0"), ("--port", "70000"), ("--bind", "nowhere")])
def test_wrong_options_are_named(options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["serve", "--no-open", *options, str(small(tmp_path / "a.unspool"))])
    assert "unspool serve:" in capsys.readouterr().err


def test_a_recording_is_served_through_a_socket_file(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    tmp_path.chmod(0o755)
    with serving(small(tmp_path / "a.unspool"), options=("--unix-socket", str(path))) as running:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(
                f"GET /api/summary HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {running.token.split(' ')[0]}\r\n\r\n".encode()
            )
            assert client.recv(64).startswith(b"HTTP/1.1 200")
        assert path.exists()
