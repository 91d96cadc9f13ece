"""KVM hold on a toy machine over /dev/kvm: one vCPU stands still, the rest runs, and nothing stays stopped whatever happens to us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest.toy_kvm import BASE, CODE, COUNTER, F1, F2, F3, RAM_BYTES, ROOT, STACK_BYTES, STACKS

from unspool.targets import procfs
from unspool.targets.guest.kvm_hold import KvmHold
from unspool.targets.guest.layout import Extent
from unspool.targets.guest.machines import kvm_vcpus, machine_of, select
from unspool.targets.guest.opening import open_ram, open_source
from unspool.targets.guest.ram import Ram
from unspool.targets.guest.registers import RefusalKind, Refused, VcpuState

pytestmark = pytest.mark.live

PATIENCE = 60.0
TOY = Path(__file__).with_name("toy_kvm.py")


@pytest.fixture
def toy() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a toy machine, `toy("--vcpus", "2")`; all are killed when the test ends."""
    with contextlib.ExitStack() as held:

        def start(*arguments: str) -> subprocess.Popen[str]:
            try:
                os.close(os.open("/dev/kvm", os.O_RDWR))
            except OSError as error:
                pytest.skip(f"/dev/kvm does not open: {error.strerror}")
            process = subprocess.Popen([sys.executable, str(TOY), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            held.callback(process.communicate)
            held.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready")
            return process

        yield start


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def counter(ram: Ram) -> int:
    return int.from_bytes(ram.read(COUNTER, 8) or b"", "little")


def advances(ram: Ram) -> None:
    """Wait until vCPU 0 has counted on."""
    before = counter(ram)
    wait_for(lambda: counter(ram) != before)


def opened(process: subprocess.Popen[str]) -> contextlib.closing[KvmHold]:
    machine = machine_of(process.pid)
    assert machine is not None
    source = open_source(machine)
    assert isinstance(source, KvmHold)
    return contextlib.closing(source)


def memory(process: subprocess.Popen[str]) -> Ram:
    machine = machine_of(process.pid)
    assert machine is not None
    return open_ram(machine)


def held_state(source: KvmHold, vcpu: int) -> VcpuState:
    """The state of a hold that worked; a busy machine may refuse some."""
    found: list[VcpuState] = []

    def attempt() -> bool:
        with source.hold(vcpu) as state:
            found.extend([state] if isinstance(state, VcpuState) else [])
        return bool(found)

    wait_for(attempt)
    return found[0]


def test_the_machine_is_found_with_its_memory(toy: Callable[..., subprocess.Popen[str]]) -> None:
    """Any program that holds a KVM vCPU is a VMM."""
    process = toy("--vcpus", "2")
    machine = machine_of(process.pid)
    assert machine is not None
    assert ("kvm", 2, RAM_BYTES, ("kvm-hold",), "memfd") == (
        machine.accel, machine.vcpus, machine.ram_bytes, machine.registers_by, machine.memory_by,
    )  # fmt: skip
    assert () == machine.missing
    assert [machine] == select(str(process.pid), [machine])
    with contextlib.closing(memory(process)) as ram:
        assert (Extent(0, RAM_BYTES, 0),) == ram.extents()
        advances(ram)


def test_a_hold_gives_registers_and_memory_of_one_instant(toy: Callable[..., subprocess.Popen[str]]) -> None:
    """The frames of the three nested calls; the counter stands still inside the hold and goes on after it."""
    process = toy()
    with opened(process) as source, contextlib.closing(memory(process)) as ram:
        advances(ram)
        state = held_state(source, 0)
        assert BASE + CODE + F3 <= state.registers.pc < BASE + CODE + F3 + 0x40
        assert (ROOT, 0, 8, True, True, 4) == (state.cr3, state.cpl, state.cs, state.snapshot, state.long_mode, state.levels)
        with source.hold(0) as again:
            if isinstance(again, VcpuState):
                seen = {counter(ram) for _ in range(50)}
                assert 1 == len(seen)
        assert [BASE + CODE + F2 + 9, BASE + CODE + F1 + 9, BASE + CODE + 5] == returns(ram, state)
        advances(ram)


def returns(ram: Ram, state: VcpuState) -> list[int]:
    """The return addresses along the frame pointers: f3's, when it has set up its frame, down to the stack's top."""
    found = []
    frame = state.registers.values[6]
    while frame < BASE + STACKS + STACK_BYTES - 8:
        saved, back = (ram.read(frame - BASE + offset, 8) for offset in (0, 8))
        assert saved is not None
        assert back is not None
        found.append(int.from_bytes(back, "little"))
        frame = int.from_bytes(saved, "little") or (1 << 64)
    return found


def test_only_the_held_vcpu_stands_still(toy: Callable[..., subprocess.Popen[str]]) -> None:
    """VCPU 1 is stopped; vCPU 0 counts on meanwhile."""
    process = toy("--vcpus", "2")
    with opened(process) as source, contextlib.closing(memory(process)) as ram:
        held_state(source, 1)
        with source.hold(1):
            advances(ram)


def test_a_halted_vcpu_is_told_without_being_touched(toy: Callable[..., subprocess.Popen[str]]) -> None:
    process = toy("--vcpus", "2", "--halted-from", "1")
    with opened(process) as source:
        seen: list[Refused] = []

        def halted() -> bool:
            with source.hold(1) as state:
                seen.extend([state] if isinstance(state, Refused) and state.kind is RefusalKind.HALTED else [])
            return bool(seen)

        wait_for(halted)
        assert isinstance(held_state(source, 0), VcpuState)


def test_closing_takes_back_what_kvm_was_told(toy: Callable[..., subprocess.Popen[str]]) -> None:
    from unspool.targets.guest import kvm_hold

    process = toy()
    (descriptor,) = kvm_vcpus(process.pid).values()
    with contextlib.closing(kvm_hold._run_page(process.pid, descriptor)) as page:
        with opened(process):
            assert 3 == page[kvm_hold._VALID_AT]
        assert 0 == page[kvm_hold._VALID_AT]


SAMPLER = """
import sys
from unspool.targets.guest.kvm_hold import KvmHold
source = KvmHold.open(int(sys.argv[1]))
while True:
    with source.hold(0) as state:
        if type(state).__name__ == "VcpuState":
            print("held", flush=True)
            sys.stdin.read()
"""


def test_a_sampler_that_is_killed_in_mid_hold_leaves_the_vcpu_running(toy: Callable[..., subprocess.Popen[str]]) -> None:
    """The kernel lets the thread go on; a new sampler finds all as before."""
    process = toy()
    with contextlib.closing(memory(process)) as ram:
        sampler = subprocess.Popen([sys.executable, "-c", SAMPLER, str(process.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert sampler.stdout is not None
            assert b"held\n" == sampler.stdout.readline()
            tracers = {procfs.status_number(tid, "TracerPid") for tid in procfs.thread_ids(process.pid)}
            assert sampler.pid in tracers
            before = counter(ram)
            assert before == counter(ram)
            with opened(process) as source, source.hold(0) as state:
                assert isinstance(state, Refused)
                assert f"process {sampler.pid} traces" in state.reason
        finally:
            sampler.send_signal(signal.SIGKILL)
            sampler.communicate()
        advances(ram)
        with opened(process) as source:
            held_state(source, 0)


def test_a_vmm_that_is_killed_in_mid_hold_is_gone(toy: Callable[..., subprocess.Popen[str]]) -> None:
    """The hold ends without an error, and every later one says so."""
    process = toy()
    with opened(process) as source, contextlib.closing(memory(process)) as ram:
        held_state(source, 0)
        with source.hold(0):
            process.kill()
        process.wait(PATIENCE)
        with source.hold(0) as state:
            assert isinstance(state, Refused)
            assert RefusalKind.GONE is state.kind
        # The memfd is ours now.
        assert counter(ram) >= 0


def test_a_vcpu_that_is_not_there_is_refused(toy: Callable[..., subprocess.Popen[str]]) -> None:
    with opened(toy()) as source, source.hold(5) as state:
        assert isinstance(state, Refused)
        assert RefusalKind.IMPOSSIBLE is state.kind
