"""The decoder's process: asked, given memory, timed out, killed, and never believed."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from unspool.capture.guest_channel import TimedOut
from unspool.capture.guest_process import LONGEST_READ, MAX_READ, Decoder, DecoderDied, Handler
from unspool.model.memory import Bytes, Memory

Start = Callable[..., Decoder]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a decoder with that handler; it is gone at the test's end."""
    started: list[Decoder] = []

    def start_one(handle: Callable[[Memory, dict[str, object]], object], memory: Memory | None = None) -> Decoder:
        def prepare(asked: Memory, _: list[int]) -> Handler:
            return lambda request: handle(asked, request)

        started.append(Decoder(prepare, memory or Bytes(0x1000, bytes(range(256)))))
        return started[-1]

    yield start_one
    for decoder in started:
        decoder.close()


def test_it_answers_values_bytes_and_nothing(start: Start) -> None:
    decoder = start(lambda _, request: {"value": request["ask"], "bytes": b"\0\1", "nothing": None}[str(request["ask"])])
    assert "value" == decoder.ask({"ask": "value"}, 60)
    assert b"\0\1" == decoder.ask({"ask": "bytes"}, 60)
    assert None is decoder.ask({"ask": "nothing"}, 60)


def test_it_reads_memory_through_its_parent(start: Start) -> None:
    """Absent memory is None, and a read that is too long is not even asked for; a long one comes in pieces."""
    decoder = start(lambda memory, request: [list(memory.read(*place) or b"") for place in request["places"]])  # type: ignore[misc]
    assert [[1, 2], [], []] == decoder.ask({"places": [[0x1001, 2], [0x9000, 1], [0x1000, LONGEST_READ + 1]]}, 60)
    long = start(lambda memory, _: len(memory.read(0, 2 * MAX_READ + 1) or b""), Bytes(0, bytes(3 * MAX_READ)))
    assert 2 * MAX_READ + 1 == long.ask({}, 60)


def test_it_has_no_privileges(start: Start) -> None:
    """No file opens, and a socket is its end."""

    def opens(_: Memory, request: dict[str, object]) -> object:
        if request["what"] == "socket":
            socket.socket(socket.AF_UNIX)
        try:
            os.close(os.open("/etc/passwd", os.O_RDONLY))
        except OSError as error:
            return error.errno
        return 0

    decoder = start(opens)
    assert 0 != decoder.ask({"what": "file"}, 60)
    with pytest.raises(DecoderDied):
        decoder.ask({"what": "socket"}, 60)


def test_an_exception_ends_it(start: Start) -> None:
    decoder = start(lambda _, request: request["not there"])
    with pytest.raises(DecoderDied):
        decoder.ask({}, 60)
    assert 0 == decoder.pid
    with pytest.raises(DecoderDied):
        decoder.ask({}, 60)


def test_one_that_hangs_is_killed(start: Start) -> None:
    def hang(_: Memory, __: dict[str, object]) -> object:
        while True:
            pass

    decoder = start(hang)
    pid = decoder.pid
    with pytest.raises(DecoderDied, match="too long"):
        decoder.ask({}, 0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_late_answer_can_be_waited_for(start: Start) -> None:
    """The vCPU is let go after the first wait; the answer, which is of two moments by then, still comes."""

    def slow(_: Memory, __: dict[str, object]) -> object:
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            pass
        return "late"

    decoder = start(slow)
    decoder.begin({})
    with pytest.raises(TimedOut):
        decoder.wait(0.0)
    assert "late" == decoder.wait(60)


def test_one_that_is_killed_from_outside_is_noticed(start: Start) -> None:
    decoder = start(lambda _, __: os.getpid())
    assert isinstance(decoder.ask({}, 60), int)
    os.kill(decoder.pid, signal.SIGKILL)
    with pytest.raises(DecoderDied):
        decoder.ask({}, 60)
