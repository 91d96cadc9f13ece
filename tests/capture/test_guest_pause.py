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
        (["start", "stop"], True),
        (["pause", "start", "stop"], True),
        (["pause", "pause", "start", "stop"], True),
        (["pause", "start", "pause", "stop"], True),
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


def test_a_word_that_was_read_together_with_the_one_before_it_is_heard() -> None:
    """All of them come in one piece; the first is taken off it alone, as the sampler does before its first round."""
    ours, theirs = pair()
    recorder, sampler = Channel(ours), Channel(theirs)
    recorder.send_value({"type": "start"})
    recorder.send_value({"type": "stop"})
    assert sampler.receive().value() == {"type": "start"}
    assert _told_to_stop(sampler, 0.0)
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
