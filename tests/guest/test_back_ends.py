"""The back ends on a real QEMU with a real kernel: they agree, the machine runs on, and a machine that cannot be asked is understood."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from guest_machines import GuestMachine

from unspool.cli import guest as listing
from unspool.cli.main import main
from unspool.errors import Unsupported
from unspool.formats.paging import PageTables
from unspool.session.guest_kernels import kernel_inside
from unspool.targets.guest.channel import Channel
from unspool.targets.guest.hmp_text import host_address, vcpu_state
from unspool.targets.guest.machines import Machine, find_machines, machine_of, select
from unspool.targets.guest.opening import METHODS, monitor, open_ram, open_source, threads_of
from unspool.targets.guest.qmp import Qmp
from unspool.targets.guest.registers import RefusalKind, Refused, VcpuSource, VcpuState

pytestmark = pytest.mark.live

PATIENCE = 60.0
EMULATED = [method for method in METHODS if method != "kvm-hold"]


def found(guest: GuestMachine) -> Machine:
    machine = machine_of(guest.pid)
    assert machine is not None
    return machine


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


@contextlib.contextmanager
def held(source: VcpuSource, vcpu: int) -> Iterator[VcpuState]:
    """A hold that worked: a vCPU may be idle, and a busy machine late."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with source.hold(vcpu) as state:
            if isinstance(state, VcpuState):
                yield state
                return
            assert state.kind in {RefusalKind.HALTED, RefusalKind.BUSY}, state
        assert time.monotonic() < deadline, state
        time.sleep(0.01)


def runs(guest: GuestMachine) -> None:
    """The machine runs, and its kernel answers."""
    machine = found(guest)
    assert machine.qmp is not None
    client = Qmp.open(machine.qmp)
    assert client.running()
    client.close()
    assert "alive" == guest.shell("echo alive").strip()


def test_a_machine_is_found_with_all_that_can_be_told_from_outside(guest_machine: GuestMachine) -> None:
    machine = found(guest_machine)
    assert (guest_machine.name, "qemu", "tcg", 2, 256 << 20, "memfd", ()) == (
        machine.name, machine.vmm, machine.accel, machine.vcpus, machine.ram_bytes, machine.memory_by, machine.missing,
    )  # fmt: skip
    assert set(EMULATED) == set(machine.registers_by)
    assert "gdbstub" == machine.registers_by[0]
    assert [machine] == select(guest_machine.name, find_machines())


@pytest.mark.parametrize("method", EMULATED)
def test_every_back_end_reads_a_kernel_that_runs(guest_machine: GuestMachine, method: str) -> None:
    """Its page tables are in memory and its code is where the program counter points; the machine runs on."""
    machine = found(guest_machine)
    with (
        guest_machine.workload("dd"),
        contextlib.closing(open_ram(machine)) as ram,
        contextlib.closing(open_source(machine, method)) as source,
    ):
        assert (0, 1) == source.vcpus
        assert (method, method in {"gdbstub", "qmp-stop"}) == (source.name, source.snapshot)
        for vcpu in source.vcpus:
            with held(source, vcpu) as state:
                assert source.snapshot is state.snapshot
                assert state.long_mode
                assert ram.read(state.root, 4096) is not None
                if state.snapshot:
                    where = PageTables(ram, state.root, state.levels).translate(state.registers.pc)
                    assert where is not None
                    assert where.executable
    runs(guest_machine)


def test_emulated_registers_are_found_where_qemu_keeps_them(guest_machine: GuestMachine) -> None:
    """While the gdbstub holds the machine, QEMU's own memory shows the same registers."""
    machine = found(guest_machine)
    with (
        guest_machine.workload("dd"),
        contextlib.closing(open_source(machine, "tcg-state")) as racy,
        contextlib.closing(open_source(machine, "gdbstub")) as stopping,
    ):
        # Their threads wait while the machine is stopped; that is not to be taken for idle here.
        racy.skips_idle = False
        for vcpu in (0, 1):
            with held(stopping, vcpu) as expected, racy.hold(vcpu) as state:
                assert isinstance(state, VcpuState)
                same = dataclasses.replace(state, snapshot=True, rflags=expected.rflags, kernel_gs_base=expected.kernel_gs_base)
                assert expected == same
    runs(guest_machine)


def test_an_idle_vcpu_is_told_without_stopping_the_machine(guest_machine: GuestMachine) -> None:
    machine = found(guest_machine)
    threads = threads_of(machine)
    assert threads is not None
    wait_for(lambda: threads.halted(0) and threads.halted(1))
    with contextlib.closing(open_source(machine, "gdbstub")) as source:
        seen: list[Refused] = []

        def idle() -> bool:
            with source.hold(1) as state:
                seen.extend([state] if isinstance(state, Refused) else [])
            return bool(seen)

        wait_for(idle)
        assert RefusalKind.HALTED is seen[0].kind


def test_the_kernel_inside_is_named(guest_machine: GuestMachine, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of an idle machine; with the release that the guest itself says."""
    assert 0 == main(["guest", "list", "--json"])
    (row,) = (row for row in json.loads(capsys.readouterr().out) if row["pid"] == guest_machine.pid)
    assert row["kernel"], row["no_kernel"]
    assert guest_machine.release == row["kernel"]["release"]
    assert 40 == len(row["kernel"]["build_id"])
    assert guest_machine.release in "\n".join(
        listing.lines([found(guest_machine)], {guest_machine.pid: kernel_inside(found(guest_machine))})
    )
    runs(guest_machine)


def test_kvm_hold_agrees_with_qemu(boot_guest: Callable[..., GuestMachine]) -> None:
    """While QEMU has the machine paused, both show the registers with which its vCPUs left the guest last."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"/dev/kvm does not open: {error.strerror}")
    guest = boot_guest(wait=False, accel="kvm", cpu="qemu64,-cx16,-xsave", gdb=False)
    # Its vCPUs are made one after the other.
    wait_for(lambda: guest.qmp.exists() and (found(guest).accel, found(guest).vcpus) == ("kvm", 2))
    machine = found(guest)
    assert ("kvm", 2) == (machine.accel, machine.vcpus)
    assert machine.qmp is not None
    with contextlib.closing(open_source(machine)) as source:
        assert "kvm-hold" == source.name
        # A vCPU that is paused sleeps as an idle one does.
        source.skips_idle = False
        for vcpu in source.vcpus:
            with held(source, vcpu):
                pass
        client = Qmp.open(machine.qmp)
        client.execute("stop")
        for vcpu in source.vcpus:
            expected = vcpu_state(client.hmp("info registers", vcpu), snapshot=True)
            with held(source, vcpu) as state:
                assert expected.registers.pc == state.registers.pc
                # QEMU prints no r8 to r15 of a vCPU in 32-bit code.
                assert expected.registers.values.items() <= state.registers.values.items()
                names = ("cr0", "cr3", "cr4", "efer", "cs", "cpl", "rflags", "fs_base", "gs_base")
                assert [getattr(expected, name) for name in names] == [getattr(state, name) for name in names]
        client.execute("cont")
        assert client.running()
        client.close()


SAMPLER = """
import sys
from unspool.targets.guest.machines import machine_of
from unspool.targets.guest.opening import open_source
source = open_source(machine_of(int(sys.argv[1])), sys.argv[2])
source.skips_idle = False
with source.hold(0) as state:
    print(type(state).__name__, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("method", ["gdbstub", "qmp-stop"])
def test_a_sampler_that_is_killed_in_mid_hold_leaves_the_machine_running(guest_machine: GuestMachine, method: str) -> None:
    sampler = subprocess.Popen(
        [sys.executable, "-c", SAMPLER, str(guest_machine.pid), method],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert sampler.stdout is not None
        assert b"VcpuState\n" == sampler.stdout.readline()
        sampler.send_signal(signal.SIGKILL)
    finally:
        sampler.kill()
        sampler.communicate()
    # A QMP session ends when the watchdog has ended; until then the socket serves it.
    wait_for(lambda: "alive" in guest_machine.shell("echo alive"))
    runs(guest_machine)
    with guest_machine.workload("dd"), contextlib.closing(open_source(found(guest_machine), method)) as source, held(source, 0):
        pass


@pytest.mark.parametrize(("method", "again"), [("gdbstub", False), ("gdbstub", True), ("qmp-stop", True)])
def test_a_machine_that_obeys_late_runs_on(
    boot_guest: Callable[..., GuestMachine], method: str, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    """We give up while it does not answer, in a hold or at the end; the watchdog stays until it has obeyed, and tells it only once."""
    guest = boot_guest(wait=False)
    wait_for(lambda: guest.qmp.exists() and guest.gdb.exists() and machine_of(guest.pid) is not None)
    with contextlib.closing(open_source(found(guest), method)) as source:
        source.skips_idle = False
        with held(source, 0):
            os.kill(guest.pid, signal.SIGSTOP)
            monkeypatch.setattr(Channel, "patience", 0.3)
        if again:
            with source.hold(0) as state:
                assert isinstance(state, Refused)
    monkeypatch.undo()
    os.kill(guest.pid, signal.SIGCONT)
    endpoint = found(guest).qmp
    assert endpoint is not None
    client = Qmp.open(endpoint)
    wait_for(client.running)
    client.close()
    assert guest.alive


def test_a_machine_that_somebody_else_pauses_stays_paused(guest_machine: GuestMachine) -> None:
    """The session ends and leaves it so; it can be attached to again when the machine runs."""
    machine = found(guest_machine)
    assert machine.qmp is not None
    with contextlib.closing(open_source(machine, "gdbstub")) as source:
        source.skips_idle = False
        other = Qmp.open(machine.qmp)
        try:
            other.execute("stop")
            with source.hold(0) as state:
                assert isinstance(state, Refused)
                assert RefusalKind.GONE is state.kind
            assert not other.running()
            source.close()
            assert not other.running()
        finally:
            other.execute("cont")
            other.close()
    runs(guest_machine)
    with contextlib.closing(open_source(machine, "gdbstub")) as source:
        source.skips_idle = False
        with held(source, 0):
            pass
    runs(guest_machine)


def test_a_machine_that_is_paused_is_not_let_run(guest_machine: GuestMachine) -> None:
    """Neither by a look at it, nor by a question to its monitor; QMP tells that it is paused, or the gdbstub where QMP is taken."""
    release = guest_machine.release
    endpoint = found(guest_machine).qmp
    assert endpoint is not None
    other = Qmp.open(endpoint)
    other.execute("stop")
    try:
        machine = found(guest_machine)
        assert "qmp-live" not in machine.registers_by
        with pytest.raises(Unsupported, match="the machine is paused"):
            open_source(machine, "gdbstub")
        with monitor(dataclasses.replace(machine, qmp=None)) as hmp:
            assert hmp is not None
            assert "paused" in hmp("info status")
        assert not other.running()
        other.close()
        for method in ("gdbstub", "qmp-stop"):
            with pytest.raises(Unsupported, match="the machine is paused"):
                open_source(found(guest_machine), method)
        assert release == getattr(kernel_inside(found(guest_machine)), "release", None)
    finally:
        other.close()
        other = Qmp.open(endpoint)
        still = not other.running()
        other.execute("cont")
        other.close()
    assert still
    runs(guest_machine)


def test_a_client_on_the_qmp_socket_is_told(guest_machine: GuestMachine) -> None:
    """The gdb socket serves as monitor then."""
    machine = found(guest_machine)
    assert machine.qmp is not None
    client = Qmp.open(machine.qmp)
    try:
        busy = found(guest_machine)
        assert ("gdbstub", "tcg-state") == busy.registers_by
        assert any("serves another client" in hint.what for hint in busy.missing)
        with monitor(dataclasses.replace(busy, qmp=None)) as hmp:
            assert hmp is not None
            assert "paused" in hmp("info status")
        assert client.running()
    finally:
        client.close()
    runs(guest_machine)


NODES = [
    *("-object", "memory-backend-ram,id=n0,size=2304M", "-object", '{"qom-type":"memory-backend-memfd","id":"n1","size":2415919104}'),
    *("-numa", "node,nodeid=1,cpus=1,memdev=n1", "-numa", "node,nodeid=0,cpus=0,memdev=n0"),
]
"""Two nodes with as much memory: which of the two mappings is which, only QEMU's own lists say."""


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("pc", []),
        ("q35", []),
        ("pc", NODES),
        # A file that is not shared, as `-mem-path` makes it, and another block of the same size.
        ("q35", ["-mem-path", tempfile.gettempdir(), "-object", "memory-backend-ram,id=dimm,size=4608M"]),
    ],
)
def test_the_memory_of_a_machine_that_cannot_be_asked_is_found(
    boot_guest: Callable[..., GuestMachine], kind: str, more: Sequence[str]
) -> None:
    """Out of its mappings, its command line and its own lists: the same as QEMU tells, with memory on both sides of 4 GiB."""
    guest = boot_guest(wait=False, shared=False, machine=kind, memory=4608, gdb=False, more=more)
    wait_for(lambda: guest.qmp.exists() and machine_of(guest.pid) is not None)
    machine = found(guest)
    with contextlib.closing(open_ram(machine)) as told:
        assert "process" == told.kind
        silent = dataclasses.replace(machine, qmp=None, gdb=None)
        with contextlib.closing(open_ram(silent)) as derived:
            high = [(extent.start, extent.position) for extent in derived.extents()]
            assert {(extent.start, extent.position) for extent in told.extents()} & set(high)
            assert 4608 << 20 == derived.size
            # What QEMU tells has holes (VGA memory) in it; what lies outside of them is the same.
            for extent in told.extents():
                assert any(
                    other.start <= extent.start
                    and extent.end <= other.end
                    and other.position - other.start == extent.position - extent.start
                    for other in derived.extents()
                )


def test_memory_is_where_the_user_says(guest_machine: GuestMachine) -> None:
    """In the words of `--guest-memory`, and the same bytes as where QEMU says."""
    machine = found(guest_machine)
    with monitor(machine) as hmp:
        assert hmp is not None
        address = host_address(hmp("gpa2hva 0x0"))
    layout = f"0x0:{machine.ram_bytes:#x}@{address:#x}"
    with contextlib.closing(open_ram(machine, layout)) as given, contextlib.closing(open_ram(machine)) as told:
        assert ("memfd", machine.ram_bytes) == (given.kind, given.size)
        start, size = next((start, size) for start, size in told.touched(0x100000) if size >= 4096)
        assert told.read(start, 4096) is not None, size
        assert given.read(start, 4096) is not None
    runs(guest_machine)


def test_a_running_machine_is_given_a_gdb_socket(boot_guest: Callable[..., GuestMachine], capsys: pytest.CaptureFixture[str]) -> None:
    guest = boot_guest(wait=False, gdb=False)
    wait_for(lambda: guest.qmp.exists() and machine_of(guest.pid) is not None)
    machine = found(guest)
    assert any("no gdb socket" in hint.what for hint in machine.missing)
    assert 0 == main(["guest", "gdb", str(guest.pid)])
    assert capsys.readouterr().out
    machine = found(guest)
    assert machine.gdb is not None
    assert "gdbstub" == machine.registers_by[0]
    with contextlib.closing(open_source(machine, "gdbstub")) as source, held(source, 0):
        pass


def test_a_machine_that_is_killed_in_mid_hold_is_gone(boot_guest: Callable[..., GuestMachine]) -> None:
    guest = boot_guest(wait=False)
    wait_for(lambda: guest.gdb.exists() and machine_of(guest.pid) is not None)
    with contextlib.closing(open_source(found(guest), "gdbstub")) as source, contextlib.closing(open_ram(found(guest))) as ram:
        with source.hold(0):
            os.kill(guest.pid, signal.SIGKILL)
            guest.process.wait(PATIENCE)
        with source.hold(0) as state:
            assert isinstance(state, Refused)
            assert RefusalKind.GONE is state.kind
        ram.read(0x100000, 8)
