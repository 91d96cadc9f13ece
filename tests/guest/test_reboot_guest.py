"""A guest that reboots is a new generation; one whose QEMU is killed ends, and the recording with it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_machines import PATIENCE, GuestMachine, boot

from unspool.capture.guest_events import Ended, Event, Kernel, Ready, Sample
from unspool.capture.guest_runner import How, SamplerProcess
from unspool.store.reader import open_recording
from unspool.targets.guest.machines import machine_of

UNSPOOL = (sys.executable, "-c", "import sys; from unspool.cli.main import main; sys.exit(main())")


@pytest.fixture(scope="module")
def own_guest(guest_initramfs: Path) -> Iterator[GuestMachine]:
    """A guest that only these tests have: it is rebooted and killed."""
    machine = boot(guest_initramfs)
    try:
        yield machine
    finally:
        machine.kill()


@contextlib.contextmanager
def sampling(machine: GuestMachine) -> Iterator[SamplerProcess]:
    described = machine_of(machine.pid)
    assert described is not None
    sampler = SamplerProcess(described, How())
    try:
        first = sampler.first(60)
        assert isinstance(first, Ready), first
        sampler.start()
        yield sampler
    finally:
        sampler.close()


def events_until(sampler: SamplerProcess, last: Callable[[Event], bool]) -> list[Event]:
    """What the sampler tells up to the event that is waited for."""
    found: list[Event] = []
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        select.select([sampler], [], [], 0.5)
        for event in sampler.waiting():
            found.append(event)
            assert not isinstance(event, Ended), event
            if last(event):
                return found
    raise AssertionError(found[-5:])


def is_kernel(generation: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Kernel) and event.generation == generation


@pytest.mark.live
def test_a_reboot_is_a_new_generation(own_guest: GuestMachine) -> None:
    """The kernel is found anew, at another address, and samples go on."""
    boots = own_guest.boots
    with sampling(own_guest) as sampler, own_guest.workload("user"):
        before = events_until(sampler, lambda event: isinstance(event, Sample))
        own_guest.send_sysrq("b")
        between = events_until(sampler, is_kernel(2))
        own_guest.wait_ready(boots + 1)
        with own_guest.workload("user"):
            # Whatever the sampler had in hand when the old kernel went: the new one's first task is none of it.
            after = events_until(sampler, lambda event: isinstance(event, Sample) and event.stack.task.comm == "guest_user")
    kernels = [event.found for event in (*before, *between) if isinstance(event, Kernel)]
    assert 2 == len(kernels)
    assert [kernels[0].release] * 2 == [kernel.release for kernel in kernels]
    assert kernels[0].base != kernels[1].base or kernels[0].build_id == kernels[1].build_id
    assert any(isinstance(event, Sample) and event.stack.frames for event in after)


@pytest.mark.live
def test_a_recorder_that_is_killed_leaves_the_guest_running(own_guest: GuestMachine, tmp_path: Path) -> None:
    """SIGKILL for the recorder, its samplers and decoders while the guest is held most of the time: the guest answers, each time."""
    for turn in range(2):
        with own_guest.workload("user"):
            process = recorder_with_samples(own_guest, tmp_path / f"killed-{turn}.unspool")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert "alive\n" == own_guest.shell("echo alive")


def recorder_with_samples(machine: GuestMachine, path: Path) -> subprocess.Popen[bytes]:
    """A recorder that holds the guest nearly all the time, in a process group of its own.

    It is started again while the watchdog of the last one still has the gdb socket.
    """
    command = [*UNSPOOL, "record", "--guest", str(machine.pid), "-F", "2000", "--guest-budget", "90", "-o", str(path)]
    deadline = time.monotonic() + PATIENCE
    while True:
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        try:
            wait_for_samples(path, process)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            ended = process.wait() > 0
            if not ended or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return process


@pytest.mark.live
def test_a_machine_that_is_killed_ends_the_recording(boot_guest: Callable[..., GuestMachine], tmp_path: Path) -> None:
    """Guests are all that is recorded, so that the recording ends with the last of them; what was taken until then is there."""
    machine = boot_guest()
    path = tmp_path / "ended.unspool"
    with machine.workload("user"):
        command = [*UNSPOOL, "record", "--guest", machine.name, "-o", str(path)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            wait_for_samples(path, process)
            machine.kill()
            _, said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
    assert 0 == process.returncode, said
    assert "ended: " in said
    with open_recording(path) as recording:
        assert recording.rows("SELECT count(*) FROM samples")[0][0] > 0


def wait_for_samples(path: Path, process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Wait until the recording holds samples; a recording that is being written can be read."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, "the recorder ended"
        with contextlib.suppress(Exception), open_recording(path) as recording:
            if recording.rows("SELECT count(*) FROM samples")[0][0]:
                return
        time.sleep(0.1)
    raise AssertionError("no samples")
