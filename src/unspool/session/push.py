"""A finished recording sent to a collector, in messages of a size that collectors take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unspool.profile.filters import EVERYTHING, Filter
from unspool.profile.slices import slices
from unspool.session.otlp_sender import Delivery, Sender, parcels
from unspool.store.load import load
from unspool.store.reader import open_recording

MOST_SAMPLES = 50_000
"""Samples of one message: some 3 MB before compression."""


def push_recording(path: Path, sender: Sender, only: Filter = EVERYTHING, show: Callable[[int, int], None] | None = None) -> Delivery:
    """What became of the recording's samples. `show` is called with the samples dealt with and all of them.

    When it becomes hopeless the rest is counted, and not sent.
    """
    with open_recording(path) as recording:
        profile = load(recording, only, timed=True)
    total = 0 if profile.timed is None else len(profile.timed)
    for part in slices(profile, MOST_SAMPLES):
        if sender.hopeless:
            sender.delivery.drop("refused", part.samples, sender.hopeless)
            continue
        for parcel in parcels(part):
            sender.deliver(parcel)
        if show is not None:
            show(sender.delivery.samples, total)
    return sender.delivery
