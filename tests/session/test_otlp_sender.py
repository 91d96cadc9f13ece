"""Samples on their way to a collector: each is counted once, whatever the collector does."""

from __future__ import annotations

import functools
import gzip
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from collectors import counted, samples_of
from export.test_otlp import check_rules
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service
from store.recordings import big, small

from unspool.profile.columns import Profile
from unspool.profile.slices import piece, slices
from unspool.session import otlp_sender
from unspool.session.otlp_http import Answer
from unspool.session.otlp_sender import PATIENCE, Parcel, Sender, parcels
from unspool.store.load import load
from unspool.store.reader import open_recording


@dataclass
class FakeClock:
    """Time that passes only by waiting."""

    time: float = 0.0
    waits: list[float] = field(default_factory=list)

    def now(self) -> float:
        """Seconds."""
        return self.time

    def wait(self, seconds: float) -> bool:
        """Let them pass."""
        self.time += seconds
        self.waits.append(seconds)
        return False


class Fake:
    """A collector that answers by a rule."""

    def __init__(self, rule: Callable[[int, int], Answer]) -> None:
        """Answer what the rule says of the request's number and samples."""
        self.rule = rule
        self.requests = 0
        self.taken = 0

    def post(self, body: bytes) -> Answer:
        """Answer."""
        samples = samples_of(service.ExportProfilesServiceRequest.FromString(gzip.decompress(body)))
        answer = self.rule(self.requests, samples)
        self.requests += 1
        self.taken += samples if answer.meaning == "taken" else 0
        return answer


def profile_of(path: Path) -> Profile:
    with open_recording(path) as recording:
        return load(recording, timed=True)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return profile_of(big(tmp_path_factory.mktemp("otlp") / "big.unspool", samples=2000, stacks=150))


def sent(profile: Profile, rule: Callable[[int, int], Answer], **options: float) -> tuple[Sender, Fake, FakeClock]:
    fake, clock = Fake(rule), FakeClock()
    sender = Sender(fake, clock=clock, **options)
    for part in slices(profile, 600):
        for parcel in parcels(part):
            sender.deliver(parcel)
    return sender, fake, clock


def test_slices_hold_every_sample_once_and_follow_each_other(profile: Profile) -> None:
    whole = [service.ExportProfilesServiceRequest.FromString(otlp_sender.message(profile))]
    parts = [service.ExportProfilesServiceRequest.FromString(otlp_sender.message(part)) for part in slices(profile, 77)]
    assert 26 == len(parts)
    for part in parts:
        check_rules(part)
    assert counted(whole) == counted(parts)
    profiles = [part.resource_profiles[0].scope_profiles[0].profiles[0] for part in parts]
    ends = [found.time_unix_nano + found.duration_nano for found in profiles]
    assert all(abs(end - after.time_unix_nano) <= 1 for end, after in zip(ends, profiles[1:], strict=False))
    assert 26 == len({found.profile_id for found in profiles})
    assert all(len(found.profile_id) == 16 for found in profiles)


def test_lost_samples_are_told_once(tmp_path: Path) -> None:
    """The small recording has ten samples and three that were lost."""
    told = []
    for part in slices(profile_of(small(tmp_path / "a.unspool")), 4):
        message = service.ExportProfilesServiceRequest.FromString(otlp_sender.message(part))
        found = message.resource_profiles[0].scope_profiles[0].profiles[0]
        keys = message.dictionary.string_table
        values = [message.dictionary.attribute_table[index] for index in found.attribute_indices]
        told += [value.value.int_value for value in values if keys[value.key_strindex] == "unspool.lost"]
    assert [3] == told


def test_the_same_samples_have_the_same_profile_id(profile: Profile) -> None:
    """A receiver can know a message again that came twice."""
    assert otlp_sender.message(profile) == otlp_sender.message(profile)


def test_what_is_too_large_is_cut_until_it_fits(profile: Profile) -> None:
    sender, fake, _ = sent(profile, lambda _, samples: Answer("too-large" if samples > 100 else "taken"))
    assert (2000, 0, 2000) == (sender.delivery.taken, sender.delivery.dropped, fake.taken)


def test_one_sample_that_is_too_large_is_refused(profile: Profile) -> None:
    sender, fake, _ = sent(piece(profile, 0, 20), lambda _n, _s: Answer("too-large", "413"))
    assert (0, 20, 0) == (sender.delivery.taken, sender.delivery.refused, fake.taken)


def test_long_messages_are_cut_before_they_are_sent(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_sender, "MOST_BYTES", 5000)
    made = parcels(profile)
    assert 2000 == sum(parcel.samples for parcel in made)
    assert all(len(gzip.decompress(parcel.body)) <= 5000 or parcel.samples == 1 for parcel in made)
    assert len(made) > 10


def test_pauses_grow_and_end(profile: Profile) -> None:
    """Each message is tried for PATIENCE seconds, with pauses that double up to half a minute."""
    sender, fake, clock = sent(profile, lambda _n, _s: Answer("again", "it answers 503"))
    assert (2000, 2000) == (sender.delivery.given_up, sender.delivery.samples)
    assert {"it answers 503": 2000} == sender.delivery.reasons
    assert 4 * (PATIENCE - 40) < clock.time < 4 * PATIENCE
    assert 4 * 10 < fake.requests < 4 * 20


def test_it_waits_as_long_as_the_collector_asks(profile: Profile) -> None:
    sender, _, clock = sent(profile, lambda number, _: Answer("taken") if number % 2 else Answer("again", "429", after=20.0))
    assert (2000, 4, 80.0) == (sender.delivery.taken, sender.delivery.again, clock.time)


def test_it_does_not_wait_longer_than_its_patience(profile: Profile) -> None:
    sender, fake, clock = sent(profile, lambda _n, _s: Answer("again", "429", after=900.0))
    assert (2000, 4, 0.0) == (sender.delivery.given_up, fake.requests, clock.time)


def test_hurry_ends_everything(profile: Profile) -> None:
    fake, clock = Fake(lambda _n, _s: Answer("again", "503")), FakeClock()
    sender = Sender(fake, clock=clock)
    sender.hurry(10)
    for part in slices(profile, 600):
        for parcel in parcels(part):
            sender.deliver(parcel)
    assert 2000 == sender.delivery.given_up
    assert clock.time <= 10


def test_when_it_is_hopeless_nothing_more_is_sent(profile: Profile) -> None:
    sender, fake, _ = sent(profile, lambda _n, _s: Answer("hopeless", "it answers 401"))
    assert (1, 2000) == (fake.requests, sender.delivery.refused)


MEANINGS = ["taken", "rejected", "again", "too-large", "refused"]


@given(st.lists(st.sampled_from(MEANINGS), min_size=1, max_size=30))
def test_every_sample_is_in_one_number(answers: list[str]) -> None:
    """Whatever the collector answers, and in whatever order."""
    fake = Fake(lambda number, _: Answer(answers[number % len(answers)], "words"))  # type: ignore[arg-type]
    sender = Sender(fake, clock=FakeClock(), patience=20)
    for parcel in some_parcels():
        sender.deliver(parcel)
    delivery = sender.delivery
    assert 40 == delivery.samples == delivery.taken + delivery.rejected + delivery.refused + delivery.given_up
    assert fake.taken == delivery.taken
    assert delivery.dropped == sum(delivery.reasons.values())


@functools.cache
def some_parcels() -> list[Parcel]:
    """Forty samples in all; made once for all examples."""
    with tempfile.TemporaryDirectory() as folder:
        whole = profile_of(big(Path(folder) / "a.unspool", samples=40, stacks=9))
    return [parcel for part in slices(whole, 15) for parcel in parcels(part)]
