"""A sampler that is killed while it holds its guest, at an instant at which that is proved."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_machines import PATIENCE, GuestMachine
from target_programs import wait_until

from unspool.capture.guest_budget import Limits
from unspool.capture.guest_events import Ready, Sample
from unspool.capture.guest_runner import How, SamplerProcess
from unspool.capture.guest_sampler import Settings
from unspool.targets import procfs
from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.machines import Machine, machine_of
from unspool.targets.guest.qmp import Qmp


def described(guest: GuestMachine) -> Machine:
    machine = machine_of(guest.pid)
    assert machine is not None
    return machine


def runs(guest: GuestMachine) -> bool:
    """What QEMU says."""
    client = Qmp.open(Endpoint(path=str(guest.watch)))
    try:
        return client.running()
    finally:
        client.close()


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) == "T", "a process to stop")


def state_of(pid: int) -> str:
    state = procfs.thread_state(pid, pid)
    assert state is not None
    return state.state


def decoder_of(sampler: SamplerProcess) -> int:
    """The sampler's child that is not the watchdog."""
    children = Path(f"/proc/{sampler.pid}/task/{sampler.pid}/children").read_text().split()
    (decoder,) = (int(child) for child in children if b"watchdog" not in Path(f"/proc/{child}/cmdline").read_bytes())
    return decoder


@contextlib.contextmanager
def sampling(machine: Machine, method: str) -> Iterator[SamplerProcess]:
    """A sampler that has taken a sample; its guest may be held for as long as it wants."""
    sampler = SamplerProcess(machine, How(Settings(100, Limits(share=0.9, longest=600)), method))
    try:
        assert isinstance(sampler.first(PATIENCE), Ready)
        sampler.start()
        wait_until(lambda: any(isinstance(event, Sample) for event in sampler.waiting()), "a sample")
        yield sampler
    finally:
        sampler.close()


def frozen_in_a_hold(sampler: SamplerProcess, guest: GuestMachine) -> bool:
    """Stop the sampler; it goes on when the machine runs at that instant."""
    stop(sampler.pid)
    if not runs(guest):
        return True
    os.kill(sampler.pid, signal.SIGCONT)
    time.sleep(0.05)
    return False


@pytest.mark.live
@pytest.mark.parametrize("method", ["gdbstub", "qmp-stop"])
def test_a_guest_whose_sampler_is_killed_in_mid_hold_runs_on(guest_machine: GuestMachine, method: str) -> None:
    """Its decoder answers no more, so that a hold lasts; it is killed when it is stopped and the machine stands still."""
    with guest_machine.workload("user"), sampling(described(guest_machine), method) as sampler:
        decoder = decoder_of(sampler)
        try:
            stop(decoder)
            wait_until(lambda: frozen_in_a_hold(sampler, guest_machine), "the machine to be held")
            os.kill(sampler.pid, signal.SIGKILL)
            wait_until(lambda: runs(guest_machine), "the machine to run")
            assert "alive\n" == guest_machine.shell("echo alive")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(decoder, signal.SIGKILL)
