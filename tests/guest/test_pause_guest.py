"""Samplers that are stopped and started again, as the page of a live recording does it, and one that is killed."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

import pytest
from guest_machines import PATIENCE, GuestMachine
from target_programs import wait_until

from unspool.capture.guest_budget import Limits
from unspool.capture.guest_events import Counted, Ended, Event, Ready, Sample
from unspool.capture.guest_runner import How, SamplerProcess
from unspool.capture.guest_sampler import Settings
from unspool.targets.guest.machines import machine_of


def until(sampler: SamplerProcess, wanted: Callable[[Event], bool]) -> list[Event]:
    found: list[Event] = []
    deadline = time.monotonic() + PATIENCE
    while not any(map(wanted, found)):
        assert time.monotonic() < deadline, found[-3:]
        select.select([sampler], [], [], 0.5)
        found += sampler.waiting()
    return found


def until_silent(sampler: SamplerProcess) -> None:
    """Until nothing comes for a second, in which a sampler that goes on sends a hundred samples."""
    deadline = time.monotonic() + PATIENCE
    while select.select([sampler], [], [], 1.0)[0]:
        assert time.monotonic() < deadline, "it takes samples in its pause"
        assert not any(isinstance(event, Ended) for event in sampler.waiting())


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
            until_silent(sampler)
            sampler.start()
            until(sampler, lambda event: isinstance(event, Sample))
            # At once, so that the sampler may read both words together.
            sampler.start()
            sampler.stop()
            last = until(sampler, lambda event: isinstance(event, Ended))
        assert Ended("") == last[-1]
        assert isinstance(last[-2], Counted)
    finally:
        sampler.close()


@pytest.mark.live
def test_a_sampler_that_is_killed_ends_its_guest_alone(guest_machine: GuestMachine) -> None:
    """The recorder is told, and the machine, which may have been held at that moment, runs on."""
    described = machine_of(guest_machine.pid)
    assert described is not None
    sampler = SamplerProcess(described, How(Settings(2000, Limits(share=0.9))))
    try:
        assert isinstance(sampler.first(PATIENCE), Ready)
        with guest_machine.workload("user"):
            sampler.start()
            until(sampler, lambda event: isinstance(event, Sample))
            os.kill(sampler.pid, signal.SIGKILL)
            last = until(sampler, lambda event: isinstance(event, Ended))[-1]
            assert Ended("its sampler ended unexpectedly") == last
            assert "alive\n" == guest_machine.shell("echo alive")
    finally:
        sampler.close()
    # Its watchdog gives the gdb socket back; the next test wants it.
    wait_until(lambda: can_be_sampled(guest_machine), "the machine's gdb socket to be free")


def can_be_sampled(machine: GuestMachine) -> bool:
    described = machine_of(machine.pid)
    assert described is not None
    sampler = SamplerProcess(described, How())
    try:
        return isinstance(sampler.first(PATIENCE), Ready)
    finally:
        sampler.close()
