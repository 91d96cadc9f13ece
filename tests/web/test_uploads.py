"""Files that the page sends name what had no name; what is no such file changes nothing, and costs nothing but itself."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from export.browser import complaints, wait_for
from selenium import webdriver
from selenium.webdriver.common.by import By
from store.recordings import HEADER, MONOTONIC, SECOND, Scene
from target_programs import Programs
from web.live import until
from web.serving import PATIENCE, Answer, Server, serving

from unspool.formats.elf import Elf
from unspool.model.verdict import Trust
from unspool.store.writer import Writer

KERNEL = 0xFFFF_FFFF_9A00_0000
LINKED = 0xFFFF_FFFF_8100_0000
KALLSYMS = f"{KERNEL:x} T _text\n{KERNEL + 0x1000:x} T do_work\n{KERNEL + 0x2000:x} t do_more\n{KERNEL + 0x9000:x} t helper\t[xfs]\n"
SYSTEM_MAP = f"{LINKED:x} T _text\n{LINKED + 0x1000:x} T do_work\n{LINKED + 0x2000:x} t do_more\n{LINKED + 0x9000:x} t another\n"


@pytest.fixture(scope="module")
def program(programs: Programs) -> Path:
    """A program with a build id."""
    return programs.build("burn.c", "-Wl,--build-id=sha1")


def function(program: Path, name: str) -> tuple[int, int]:
    """Where a function's code begins in the file, and its size."""
    listed = subprocess.run(["nm", "-S", str(program)], capture_output=True, text=True, check=True).stdout.split("\n")
    address, size = next((int(line.split()[0], 16), int(line.split()[1], 16)) for line in listed if line.endswith(f" {name}"))
    load = next(load for load in Elf(program.read_bytes()).loads if load.address <= address < load.address + load.file_size)
    return address - load.address + load.offset, size


def recorded(path: Path, program: Path) -> Path:
    """Three samples without a name in them: of a program, of something else, of a kernel and of a guest's kernel."""
    offset, size = function(program, "main")
    with Writer(path, HEADER) as writer:
        scene = Scene(writer)
        app = writer.module("/opt/app", Elf(program.read_bytes()).build_id)
        other = writer.module("/opt/other", "0123456789")
        kernel, guest = writer.module("[kernel]", "", "kernel"), writer.module("[guest.kernel]", "ee", "kernel")
        scene.modules["demo"] = app
        leaf = writer.frame(app, 0x5000 + offset, offset, "user", Trust.REGISTERS)
        # A return address at the function's end: one byte before it is the call.
        caller = writer.frame(app, 0x5000 + offset + size, offset + size, "user", Trust.CFI)
        strange = writer.frame(other, 0x1000, 0x1000, "user", Trust.CFI)
        ours = writer.frame(kernel, KERNEL + 0x1000, None, "kernel", Trust.KERNEL)
        back = writer.frame(kernel, KERNEL + 0x2000, None, "kernel", Trust.KERNEL)
        theirs = writer.frame(guest, KERNEL + 0x1000, 0x1000, "kernel", Trust.REGISTERS)
        process = writer.process(10, 5, "demo")
        thread = writer.thread(process, 10, "demo")
        stacks = [scene.stack(leaf, caller, strange), scene.stack(ours, back, leaf, kernel=2), scene.stack(theirs, kernel=1)]
        for index, stack in enumerate(stacks):
            writer.sample(MONOTONIC + index, process, thread, 0, "cpu", "", 1, stack)
        writer.finish(SECOND)
    return path


@pytest.fixture
def server(program: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(recorded(tmp_path / "a.unspool", program)) as running:
        yield running


@pytest.fixture(scope="module")
def unchanged(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that leave it as it is."""
    with serving(recorded(tmp_path_factory.mktemp("uploads") / "a.unspool", program)) as running:
        yield running


def send(server: Server, body: bytes, **parameters: object) -> Answer:
    return server.change(f"/api/names?{urlencode(parameters)}", body)


def names(server: Server) -> dict[str, str]:
    """The functions that are shown, with their modules."""
    found = server.view("functions")
    return dict(zip(found["name"], found["module"], strict=True))


def test_an_elf_file_names_the_module_of_its_build_id(server: Server, program: Path) -> None:
    assert "main" not in names(server)
    answer = send(server, program.read_bytes(), name="burn")
    assert 200 == answer.status, answer.body
    assert (200, ["/opt/app"], 2, 2) == (answer.status, *(answer.json()[key] for key in ("modules", "asked", "named")))
    assert "/opt/app" == names(server)["main"]
    assert "app+0x" not in "".join(names(server)), "the return address behind the function belongs to it too"
    assert "/opt/other" == names(server)["other+0x1000"]
    assert [{"name": "burn", "modules": ["/opt/app"], "asked": 2, "named": 2}] == server.view("summary")["added"]
    tree = server.view("tree")
    assert "main" in tree["name"]


def test_a_file_of_another_build_is_refused(unchanged: Server, program: Path) -> None:
    answer = send(unchanged, program.read_bytes(), module="/opt/other")
    assert (400, "the file is another build than /opt/other") == (answer.status, answer.json()["error"])
    without = program.parent / "stripped_of_its_id"
    subprocess.run(["objcopy", "--remove-section", ".note.gnu.build-id", str(program), str(without)], check=True)
    assert "no module has this file's build id" == send(unchanged, without.read_bytes()).json()["error"]


def test_kallsyms_name_the_kernel_and_its_guests_by_their_distance(server: Server) -> None:
    answer = send(server, KALLSYMS.encode(), module="[kernel]")
    assert (200, 2) == (answer.status, answer.json()["named"])
    assert "[kernel]" == names(server)["do_work"]
    assert "do_more" not in names(server), "the return address at its first byte is that of a call in do_work"
    assert "[guest.kernel]" in names(server).values()
    assert 200 == send(server, KALLSYMS.encode(), module="[guest.kernel]").status
    assert {"do_work", "main"} & set(names(server)) == {"do_work"}
    assert "[unknown]" not in names(server)


def test_a_system_map_needs_to_know_where_the_kernel_was(server: Server) -> None:
    answer = send(server, SYSTEM_MAP.encode(), module="[kernel]")
    assert 400 == answer.status
    assert "base" in answer.json()["hint"]
    assert 200 == send(server, SYSTEM_MAP.encode(), module="[kernel]", base=hex(KERNEL)).status
    assert "[kernel]" == names(server)["do_work"]
    # A guest's addresses are known from where its kernel begins.
    assert 200 == send(server, SYSTEM_MAP.encode(), module="[guest.kernel]").status


BROKEN = {
    "empty": b"",
    "text": b"hello\nworld",
    "binary": bytes(range(256)) * 64,
    "cut ELF": b"\x7fELF\x02\x01\x01" + bytes(57),
    "wild ELF": b"\x7fELF\x02\x01\x01" + b"\xff" * 4096,
    "hidden": b"0000000000000000 T _text\n0000000000000000 T do_work\n",
    "long line": b"ffffffff81000000 T " + b"a" * 100_000,
    "no address": b"zzzz T main\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_gives_no_names_is_refused_and_changes_nothing(unchanged: Server, kind: str) -> None:
    before = names(unchanged)
    answer = send(unchanged, BROKEN[kind], module="[kernel]")
    assert 400 == answer.status, answer.body
    assert answer.json()["error"]
    assert before == names(unchanged)


def test_names_out_of_a_file_are_text(server: Server) -> None:
    evil = "<img/src=x/onerror=alert(1)>"
    assert 200 == send(server, KALLSYMS.replace("do_work", evil).encode(), module="[kernel]", name=evil).status
    answer = server.ask("/api/functions")
    assert answer.headers["content-type"].startswith("application/json")
    assert evil in names(server)


@pytest.mark.parametrize(
    "parameters", [{"module": "/etc/passwd"}, {"file": 9}, {"file": "/etc/passwd"}, {"base": "-1"}, {"base": "x"}, {"path": "/etc/passwd"}]
)
def test_no_parameter_leads_anywhere(unchanged: Server, parameters: dict[str, object]) -> None:
    answer = send(unchanged, KALLSYMS.encode(), **parameters)
    assert 400 == answer.status
    assert b"root:" not in answer.body


def test_a_file_must_come_from_the_page(unchanged: Server) -> None:
    body = KALLSYMS.encode()
    assert 403 == unchanged.ask("/api/names?module=[kernel]", method="POST", body=body).status
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        assert 403 == unchanged.ask("/api/names?module=[kernel]", method="POST", headers=headers, body=body).status
    ours = {"Origin": f"http://{unchanged.host}"}
    assert 401 == unchanged.ask("/api/names?module=[kernel]", method="POST", headers=ours, body=body, token=False).status
    assert 405 == unchanged.ask("/api/names").status
    assert "do_work" not in names(unchanged)


def half_sent(server: Server, length: int) -> http.client.HTTPConnection:
    """A request that says how long its body is, and has sent none of it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.putrequest("POST", "/api/names?module=[kernel]", skip_host=True)
    sent = {
        "Host": server.host,
        "Authorization": f"Bearer {server.token}",
        "Origin": f"http://{server.host}",
        "Content-Length": str(length),
    }
    for name, value in sent.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection


def test_too_large_a_file_is_refused_before_it_came(unchanged: Server) -> None:
    with contextlib.closing(half_sent(unchanged, 1 << 40)) as connection:
        assert 413 == connection.getresponse().status


def test_one_file_at_a_time_and_a_sender_that_goes_away_leaves_nothing(server: Server) -> None:
    with contextlib.closing(half_sent(server, 1000)) as connection:
        connection.send(b"half")
        until(lambda: send(server, KALLSYMS.encode(), module="/nothing").status == 503)
    until(lambda: send(server, KALLSYMS.encode(), module="[kernel]").status == 200)
    assert "[kernel]" == names(server)["do_work"]


@pytest.mark.flaky(reruns=2, reruns_delay=1)
def test_the_page_sends_a_file_and_says_what_it_gave(browser: webdriver.Chrome, server: Server, tmp_path: Path) -> None:
    (tmp_path / "System.map").write_text(SYSTEM_MAP)
    browser.get(server.link)
    browser.get(f"http://{server.host}/#view=quality")
    browser.refresh()
    chooser: Any = wait_for(
        browser, lambda driver: driver.find_elements(By.CSS_SELECTOR, "#unnamed input[aria-label='Send a file… [kernel]']")
    )
    chooser[0].send_keys(str(tmp_path / "System.map"))
    base: Any = wait_for(browser, lambda driver: driver.find_elements(By.CSS_SELECTOR, "#unnamed input.base"))
    base[0].send_keys(f"{KERNEL:x}\n")
    wait_for(browser, lambda driver: "System.map (2 of 2 addresses of [kernel])" in driver.find_element(By.TAG_NAME, "body").text)
    assert "[kernel]" == names(server)["do_work"]
    assert not [line for line in complaints(browser) if "400" not in line], "a refusal is the only thing that the browser reports"
