"""A recording that is shown while it is made: samples come, names come, and the page's two words are obeyed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from web.live import BUSY, descriptors, is_alive, names, page_of, recording, until
from web.serving import PATIENCE, Server, running

from unspool.store.load import load
from unspool.store.reader import open_recording

pytestmark = pytest.mark.live


def counted(server: Server) -> int:
    return int(server.view("summary")["samples"])


def grown(server: Server) -> int:
    """Samples, once there are more than there were."""
    before = counted(server)
    return int(until(lambda: (found := counted(server)) > before and found))


@contextlib.contextmanager
def events(server: Server) -> Iterator[Iterator[dict[str, Any]]]:
    """The news, as a browser gets it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/api/events", headers={"Host": server.host, "Authorization": f"Bearer {server.token}"})
        response = connection.getresponse()
        assert (200, "text/event-stream; charset=utf-8") == (response.status, response.headers["content-type"])
        yield (json.loads(line.removeprefix(b"data: ")) for line in response if line.startswith(b"data: "))


def test_samples_and_names_come_while_it_is_recorded(tmp_path: Path) -> None:
    with recording(tmp_path / "a.unspool") as server:
        assert counted(server) < grown(server) < grown(server)
        until(lambda: names(server))
        with events(server) as news:
            versions = [next(news)["version"] for _ in range(3)]
        assert sorted(versions) == versions
        assert {"live": True, "sampling": True, "finished": False}.items() <= server.view("live").items()


def test_stop_takes_the_sampler_off_the_kernel_and_start_puts_it_back(tmp_path: Path) -> None:
    with recording(tmp_path / "a.unspool") as server:
        grown(server)
        attached = descriptors(server.pid, "perf_event")
        assert 202 == server.change("/api/stop").status
        until(lambda: not server.view("live")["sampling"])
        detached = descriptors(server.pid, "perf_event")
        assert os.cpu_count() == attached - detached, "an event a CPU is gone; those of processes and mappings stay"
        # What was in the ring has come with the commit after; from then on there is nothing more.
        with events(server) as news:
            still = [next(news)["samples"] for _ in range(4)]
        assert 1 == len(set(still[2:]))
        assert 202 == server.change("/api/start").status
        until(lambda: server.view("live")["sampling"])
        assert attached == descriptors(server.pid, "perf_event")
        grown(server)


def test_the_page_is_nobody_and_holds_two_sockets(tmp_path: Path) -> None:
    with recording(tmp_path / "a.unspool") as server:
        page = page_of(server)
        state = dict(line.split(":\t", 1) for line in Path(f"/proc/{page}/status").read_text().splitlines() if ":\t" in line)
        assert {"65534"} == set(state["Uid"].split()) == set(state["Gid"].split())
        assert not state["Groups"].strip()
        assert 0 == int(state["CapEff"], 16) == int(state["CapPrm"], 16)
        assert "1" == state["NoNewPrivs"]
        assert 0 == descriptors(page, "bpf") == descriptors(page, "perf_event") == descriptors(page, ".unspool")


def test_a_killed_recorder_leaves_names_and_no_page(tmp_path: Path) -> None:
    with recording(tmp_path / "a.unspool") as server:
        page = page_of(server)
        seen = until(lambda: names(server))
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not is_alive(page))
    with open_recording(tmp_path / "a.unspool") as opened:
        profile = load(opened)
    assert profile.samples
    assert seen <= {function.name for function in profile.functions if function.named}
    assert not profile.about.finished


def test_a_recording_that_ended_by_itself_keeps_its_page(tmp_path: Path) -> None:
    with running("record", "--live", "--no-open", "-d", "3", "-o", str(tmp_path / "a.unspool"), "--", sys.executable, "-c", BUSY) as (
        server,
        process,
    ):
        until(lambda: server.view("live")["finished"])
        assert server.view("summary")["finished"]
        samples, named = counted(server), names(server)
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(PATIENCE)
    with open_recording(tmp_path / "a.unspool") as opened:
        profile = load(opened, timed=True)
    assert profile.about.finished
    assert samples == profile.samples
    assert named <= {function.name for function in profile.functions}


def test_ctrl_c_ends_recording_and_page(tmp_path: Path) -> None:
    with running("record", "--live", "--no-open", "-o", str(tmp_path / "a.unspool"), "-p", str(os.getpid())) as (server, process):
        page = page_of(server)
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(PATIENCE)
        assert not is_alive(page)


def test_a_page_that_dies_does_not_end_the_recording(tmp_path: Path) -> None:
    with running("record", "--live", "--no-open", "-o", str(tmp_path / "a.unspool"), "-p", str(os.getpid())) as (server, process):
        os.kill(page_of(server), signal.SIGKILL)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(PATIENCE)
    with open_recording(tmp_path / "a.unspool") as opened:
        assert opened.overview().finished
