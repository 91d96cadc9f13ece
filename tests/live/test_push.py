"""`unspool push` of what runs now: real samples over real HTTP, and numbers that add up also when the collector is away."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator

import pytest
from collectors import TAKEN, FakeCollector, Reply, collector, counted
from export.test_otlp import check_rules
from live.recorded import PATIENCE, PROGRAM
from target_programs import Programs, wait_until

pytestmark = pytest.mark.live

ARRIVED = re.compile(r"^([\d,]+) of ([\d,]+) samples arrived", re.MULTILINE)


@pytest.fixture
def busy(programs: Programs) -> Iterator[int]:
    """A program that spends its time in the function `inner`."""
    with programs.running(programs.build("burn.c", "-O1", "-g"), "0") as process:
        yield process.pid


def pushing(there: FakeCollector, pid: int, *options: str) -> list[str]:
    return [*PROGRAM, "push", "--otlp", there.url, "-p", str(pid), "-F", "499", "--interval", "500ms", *options]


def numbers(said: str) -> tuple[int, int]:
    """The samples that arrived, and all of them."""
    found = ARRIVED.search(said)
    assert found, said
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


def test_samples_arrive_while_it_runs(busy: int) -> None:
    """Ctrl-C ends it in order, with its last window sent."""
    with collector() as there, subprocess.Popen(pushing(there, busy), stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(there.taken) >= 3, "three messages", PATIENCE)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert 0 == process.returncode, said
    assert (there.samples, there.samples) == numbers(said)
    for message in there.taken:
        check_rules(message)
    stacks = counted(there.taken)
    assert any(names[:3] == ("inner", "middle", "outer") and "main" in names for _, _, names in stacks)
    [service] = {
        attribute.value.string_value
        for message in there.taken
        for attribute in message.resource_profiles[0].resource.attributes
        if attribute.key == "service.name"
    }
    assert service.startswith("burn")


def test_a_collector_that_comes_back_gets_everything(busy: int) -> None:
    with collector(lambda number, _: Reply(503, {"Retry-After": "0"}) if number < 3 else TAKEN) as there:
        done = subprocess.run(pushing(there, busy, "-d", "3"), check=False, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert 0 == done.returncode, done.stderr
    assert there.samples > 0
    assert (there.samples, there.samples) == numbers(done.stderr)
    assert "it answers 503" in done.stderr


def test_what_a_dead_collector_did_not_get_is_told(busy: int) -> None:
    with collector(lambda _n, _m: Reply(503)) as there:
        command = pushing(there, busy, "-d", "2", "--retry", "100ms")
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert 1 == done.returncode
    arrived, every = numbers(done.stderr)
    assert 0 == arrived
    assert every > 0
    assert f"  {every:,} did not arrive: it answers 503" in done.stderr


def test_it_ends_with_the_process(programs: Programs) -> None:
    with collector() as there, programs.running(programs.build("burn.c", "-O1", "-g"), "0") as process:
        command = pushing(there, process.pid)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as pusher:
            wait_until(lambda: len(there.taken) >= 1, "a message", PATIENCE)
            process.kill()
            _, said = pusher.communicate(timeout=PATIENCE)
    assert 0 == pusher.returncode, said
    assert (there.samples, there.samples) == numbers(said)
