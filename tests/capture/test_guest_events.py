"""What comes from a sampler's process is an event or `Closed`, whatever it says."""

from __future__ import annotations

import json

import pytest

from unspool.capture.guest_channel import Closed, Kind, Message
from unspool.capture.guest_events import Ended, events


def said(value: object) -> list[Message]:
    return [Message(Kind.JSON, json.dumps(value).encode(), [])]


def test_an_end_is_an_event() -> None:
    assert [Ended("gone")] == list(events(said({"type": "ended", "reason": "gone"})))


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"type": "nothing known"},
        {"type": "ended"},
        {"type": "names", "names": [[1, "f"]]},
        {"type": "sample", "time": 1, "vcpu": 0, "stack": {}},
        {"type": "sample", "time": 1, "vcpu": 0, "stack": {"frames": 7}},
        {"type": "kernel", "generation": 1, "kernel": {"release": 7}},
        {"type": "kernel", "generation": 1, "kernel": 7},
    ],
)
def test_what_is_no_event_is_as_if_the_sampler_were_gone(value: object) -> None:
    with pytest.raises(Closed, match="none of a sampler's"):
        list(events(said(value)))
