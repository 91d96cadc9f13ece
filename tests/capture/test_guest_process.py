"""The decoder's process: asked, given memory, timed out, killed, and never believed."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from unspool.capture.guest_channel import Kind, TimedOut
from unspool.capture.guest_process import LONGEST_READ, MAX_READ, MOST_AHEAD, READ, AskedMemory, Decoder, DecoderDied, Handler
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


class Changing:
    """Memory whose pages say how often they were read; the one at 0x3000 is not there. `asked` are the reads, in order."""

    def __init__(self) -> None:
        """Nothing was read."""
        self.asked: list[int] = []

    def read(self, address: int, size: int) -> bytes | None:
        """How often, in every byte."""
        self.asked.append(address)
        return None if address == 0x3000 else bytes([self.asked.count(address)]) * size


def first_bytes(memory: Memory, request: dict[str, object]) -> object:
    found = [memory.read(address, 4096) for address in request["places"]]  # type: ignore[attr-defined]
    assert {4096} >= {len(data) for data in found if data is not None}
    return [None if data is None else data[0] for data in found]


def test_what_the_last_sample_needed_is_asked_for_together(start: Start) -> None:
    """Its bytes are of this sample, and given once: a page that is read again is asked for again. Other vCPUs need other pages."""
    memory = Changing()
    decoder = start(first_bytes, memory)

    def sample(vcpu: int, *places: int) -> object:
        return decoder.ask({"op": "sample", "vcpu": vcpu, "places": places}, 60)

    assert [1, 1, None] == sample(0, 0x1000, 0x2000, 0x3000)
    assert [2, None, 1, 3] == sample(0, 0x2000, 0x3000, 0x5000, 0x2000)
    assert [0x1000, 0x2000, 0x3000, 0x1000, 0x2000, 0x3000, 0x5000, 0x2000] == memory.asked
    memory.asked.clear()
    assert [1] == sample(1, 0x2000)
    assert [0x2000] == memory.asked
    # Each is there once more in the next sample, whoever has asked meanwhile.
    memory.asked.clear()
    assert [1] == sample(0, 0x5000)
    assert [0x2000, 0x3000, 0x5000] == memory.asked


def test_nothing_is_asked_ahead_for_other_requests(start: Start) -> None:
    """A task that sleeps is looked at twice, and the second look must be a look."""
    memory = Changing()
    decoder = start(first_bytes, memory)
    for count in (1, 2):
        assert [count] == decoder.ask({"op": "task", "places": [0x1000]}, 60)
    assert [0x1000, 0x1000] == memory.asked


@pytest.mark.parametrize("body", [b"x", READ.pack(0, 8) + READ.pack(0, 4096), READ.pack(0, 4096) * (MOST_AHEAD + 1), b""])
def test_a_read_that_is_none_ends_it(start: Start, body: bytes) -> None:
    def asks(memory: Memory, _: dict[str, object]) -> object:
        assert isinstance(memory, AskedMemory)
        memory._channel.send(Kind.READ, body)
        return memory._channel.receive().kind

    with pytest.raises(DecoderDied):
        start(asks).ask({}, 60)


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
