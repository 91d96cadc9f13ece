"""Sampling that is stopped and started again, as the page of a live recording does it."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

import pytest
from guest_machines import PATIENCE, GuestMachine

from unspool.capture.guest_events import Counted, Ended, Event, Ready, Sample
from unspool.capture.guest_runner import How, SamplerProcess
from unspool.targets.guest.machines import machine_of


def until(sampler: SamplerProcess, wanted: Callable[[Event], bool]) -> list[Event]:
    found: list[Event] = []
    deadline = time.monotonic() + PATIENCE
    while not any(map(wanted, found)):
        assert time.monotonic() < deadline, found[-3:]
        select.select([sampler], [], [], 0.5)
        found += sampler.waiting()
    return found


@pytest.mark.live
def test_a_paused_sampler_takes_no_samples_until_it_is_started_again(guest_machine: GuestMachine) -> None:
    described = machine_of(guest_machine.pid)
    assert described is not None
    sampler = SamplerProcess(described, How())
    try:
        assert isinstance(sampler.first(PATIENCE), Ready)
        with guest_machine.workload("user"):
            sampler.start()
            until(sampler, lambda event: isinstance(event, Sample))
            sampler.pause()
            # A pause is a word in a stream: what is sent after it is only read when it is over, so that a second one shows the first.
            sampler.pause()
            sampler.start()
            until(sampler, lambda event: isinstance(event, Sample))
            sampler.stop()
            last = until(sampler, lambda event: isinstance(event, Ended))
        assert Ended("") == last[-1]
        assert isinstance(last[-2], Counted)
    finally:
        sampler.close()
