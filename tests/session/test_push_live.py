"""Between the sampling and the sending thread: what does not fit is counted, and nothing is counted twice."""

from __future__ import annotations

import threading

import pytest
from store.recordings import big
from target_programs import wait_until

from unspool.profile.slices import slices
from unspool.session.otlp_http import Answer
from unspool.session.otlp_sender import Parcel, Sender, parcels
from unspool.session.push_live import Courier
from unspool.store.load import load
from unspool.store.reader import open_recording


class Gate:
    """A collector that answers when it is let."""

    def __init__(self, answer: str = "taken") -> None:
        """Closed."""
        self.open = threading.Event()
        self.asked = threading.Event()
        self.answer = Answer(answer, "words")  # type: ignore[arg-type]

    def post(self, body: bytes) -> Answer:
        """Wait, and answer."""
        assert body
        self.asked.set()
        assert self.open.wait(60)
        return self.answer


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> list[Parcel]:
    """Ten parcels of ten samples."""
    with open_recording(big(tmp_path_factory.mktemp("push") / "a.unspool", samples=100, stacks=5)) as recording:
        profile = load(recording, timed=True)
    return [parcel for part in slices(profile, 10) for parcel in parcels(part)]


def test_what_waits_is_sent_before_the_end(ten: list[Parcel]) -> None:
    gate = Gate()
    courier = Courier(Sender(gate))
    for parcel in ten:
        courier.put(parcel)
    gate.open.set()
    delivery = courier.close()
    assert (100, 0) == (delivery.taken, delivery.dropped)


def test_what_does_not_fit_is_counted(ten: list[Parcel]) -> None:
    gate = Gate()
    courier = Courier(Sender(gate), room=3)
    courier.put(ten[0])
    assert gate.asked.wait(60)
    for parcel in ten[1:]:
        courier.put(parcel)
    assert 3 == courier.waiting
    gate.open.set()
    delivery = courier.close()
    assert (40, 60, 100) == (delivery.taken, delivery.overflowed, delivery.samples)


def test_a_collector_that_never_answers_is_left(ten: list[Parcel]) -> None:
    gate = Gate()
    courier = Courier(Sender(gate), room=3)
    courier.grace = 0.1
    for parcel in ten[:3]:
        courier.put(parcel)
    delivery = courier.close(seconds=0.1)
    assert (0, 30) == (delivery.taken, delivery.given_up)
    gate.open.set()


def test_hopeless_is_seen_at_once(ten: list[Parcel]) -> None:
    gate = Gate("hopeless")
    gate.open.set()
    courier = Courier(Sender(gate))
    courier.put(ten[0])
    wait_until(lambda: courier.over, "the answer")
    courier.put(ten[1])
    assert 20 == courier.close().refused


def test_a_fault_of_ours_is_raised_and_all_is_counted(ten: list[Parcel]) -> None:
    class Broken(Gate):
        def post(self, body: bytes) -> Answer:
            """Fail as no collector does."""
            raise ZeroDivisionError(body[:4].hex())

    sender = Sender(Broken())
    courier = Courier(sender)
    courier.put(ten[0])
    wait_until(lambda: courier.over, "the fault")
    courier.put(ten[1])
    with pytest.raises(ZeroDivisionError):
        courier.close()
    assert (20, 20) == (sender.delivery.given_up, sender.delivery.samples)
