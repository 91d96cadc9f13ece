"""A guest's sampler is paused between two rounds, and goes on or ends from there."""

from __future__ import annotations

import pytest

from unspool.capture.guest_channel import Channel, Closed, pair
from unspool.capture.guest_runner import _told_to_stop


@pytest.mark.parametrize(
    ("said", "stops"),
    [
        ([], False),
        (["stop"], True),
        (["pause", "start"], False),
        (["pause", "stop"], True),
        (["pause", "pause", "start"], False),
        (["pause", "pause", "stop"], True),
        (["start"], False),
    ],
)
def test_what_the_recorder_says_between_two_rounds(said: list[str], *, stops: bool) -> None:
    ours, theirs = pair()
    recorder, sampler = Channel(ours), Channel(theirs)
    for word in said:
        recorder.send_value({"type": word})
    assert stops == _told_to_stop(sampler, 0.0)
    recorder.close()
    sampler.close()


def test_a_recorder_that_is_gone_ends_a_pause() -> None:
    ours, theirs = pair()
    recorder, sampler = Channel(ours), Channel(theirs)
    recorder.send_value({"type": "pause"})
    recorder.close()
    with pytest.raises(Closed):
        _told_to_stop(sampler, 0.0)
    sampler.close()
