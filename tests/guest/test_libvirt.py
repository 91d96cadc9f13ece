"""QEMU as libvirt starts it: its QMP socket is handed over by a descriptor, and libvirt is its one client for as long as it runs."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from target_programs import wait_until

from unspool.errors import Unsupported
from unspool.targets.guest.channel import Channel
from unspool.targets.guest.machines import Machine, machine_of
from unspool.targets.guest.opening import open_ram, open_source
from unspool.targets.guest.qmp import Qmp
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.vcpu_threads import named_threads

pytestmark = pytest.mark.live


@dataclass(frozen=True, slots=True)
class Domain:
    """A machine, the folder that libvirt makes for it, and libvirt's own connection."""

    pid: int
    folder: Path
    libvirt: Qmp

    def found(self) -> Machine:
        """What is seen of it."""
        machine = machine_of(self.pid)
        assert machine is not None
        return machine


@pytest.fixture
def domain() -> Iterator[Domain]:
    """A machine that runs its BIOS: two nodes of one size, and nothing that is shared."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is missing")
    with contextlib.ExitStack() as held:
        # Short, because a socket's path may have 107 bytes.
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="u", dir="/tmp")), "domain-1-web")
        folder.mkdir()
        listener = held.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(folder / "monitor.sock"))
        listener.listen(1)
        client = held.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(str(folder / "monitor.sock"))
        process = subprocess.Popen(command(listener.fileno()), pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)
        held.callback(process.wait)
        held.callback(process.kill)
        libvirt = Qmp(Channel(client))
        libvirt.channel.patience = 60.0
        libvirt.greet()
        libvirt.execute("cont")
        # A thread gives itself its name.
        wait_until(lambda: len(named_threads(process.pid).tids) == 2, "the threads of two vCPUs")
        yield Domain(process.pid, folder, libvirt)


def command(monitor: int) -> list[str]:
    """The part of libvirt 9.0's command line that matters here."""
    nodes = [
        word
        for number in (0, 1)
        for word in (
            *("-object", f'{{"qom-type":"memory-backend-ram","id":"ram-node{number}","size":67108864}}'),
            *("-numa", f"node,nodeid={number},cpus={number},memdev=ram-node{number}"),
        )
    ]
    return [
        *("nice", "-n", "5", "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"),
        *("-name", "guest=web,debug-threads=on", "-S", "-machine", "pc-i440fx-7.2,usb=off,dump-guest-core=off", "-accel", "tcg"),
        *("-m", "size=131072k", "-smp", "2,sockets=2,cores=1,threads=1", *nodes, "-uuid", "a49e8207-23e2-4b45-8d5a-e61735bd0511"),
        *("-display", "none", "-no-user-config", "-nodefaults"),
        *("-chardev", f"socket,id=charmonitor,fd={monitor},server=on,wait=off", "-mon", "chardev=charmonitor,id=monitor,mode=control"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    ]


def test_libvirts_machine_is_read_once_the_hint_was_followed(domain: Domain) -> None:
    """Its one hint is a command for virsh, whose last word is passed to the monitor as it is."""
    machine = domain.found()
    assert ("web", "a49e8207-23e2-4b45-8d5a-e61735bd0511", 2, 128 << 20, None, ()) == (
        machine.name, machine.uuid, machine.vcpus, machine.ram_bytes, machine.qmp, machine.registers_by,
    )  # fmt: skip
    (hint,) = machine.missing
    words = shlex.split(hint.mend)
    assert ["virsh", "qemu-monitor-command", "web", "--hmp"] == words[:4]
    domain.libvirt.hmp(words[4])
    machine = domain.found()
    assert () == machine.missing
    assert machine.gdb is not None
    assert str(domain.folder / "gdb.sock") == machine.gdb.path
    with contextlib.closing(open_source(machine)) as source:
        assert "gdbstub" == source.name
        source.skips_idle = False
        with source.hold(0) as state:
            assert isinstance(state, VcpuState)
    wait_until(domain.libvirt.running, "the machine to run")


def test_libvirts_memory_is_where_its_monitor_says(domain: Domain) -> None:
    """Nobody else can ask the monitor: which block is which stands in QEMU's own lists."""
    with contextlib.closing(open_ram(domain.found())) as ram:
        assert 128 << 20 == ram.size
        for extent in ram.extents():
            told = re.search(r"is (0x[0-9a-f]+)", domain.libvirt.hmp(f"gpa2hva {extent.start:#x}"))
            assert told is not None
            assert int(told[1], 16) == extent.position
        assert {0, 64 << 20} == {extent.start for extent in ram.extents()}


def test_libvirts_suspended_machine_stays_so(domain: Domain) -> None:
    """Also when its gdb socket is asked."""
    domain.libvirt.hmp(f"gdbserver unix:{domain.folder}/gdb.sock,server=on,wait=off")
    domain.libvirt.execute("stop")
    with pytest.raises(Unsupported, match="the machine is paused"):
        open_source(domain.found())
    assert not domain.libvirt.running()
