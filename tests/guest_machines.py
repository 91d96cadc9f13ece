"""Real Debian guests under QEMU's emulation (TCG), killed at the session's end; their root shell is used as truth only."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from target_programs import Programs

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts" / "guest"
STABLE = ROOT / ".cache" / "guests" / "stable"
READY = b"GUEST-READY"
PATIENCE = 120.0
"""Seconds a guest may take to boot: four on a quiet machine, a minute on a busy one."""

WORKLOADS = {
    "kernel": "while :; do find /proc /sys -type f >/dev/null 2>&1; done & while :; do cat /proc/kallsyms >/dev/null; done & wait",
    "calls": "exec /bin/guest_calls",
    "dd": "taskset 1 dd if=/dev/zero of=/dev/null bs=64k & taskset 2 dd if=/dev/zero of=/dev/null bs=4k & wait",
    "user": "exec /bin/guest_user",
    "disk": "while :; do dd if=/dev/zero of=/dev/vda bs=64k count=16 conv=fsync; done",
}
"""What a guest can be kept busy with. The shared guest is idle between the tests, because an emulated CPU takes a real one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to boot a guest: `shared` is RAM in a memfd that another process can map, `gdb` and `qmp` are whether the sockets are there."""

    folder: Path = STABLE
    qemu: Sequence[str] = ("qemu-system-x86_64",)
    cpus: int = 2
    memory: int = 256
    machine: str = "pc"
    cpu: str = "qemu64"
    accel: str = "tcg"
    shared: bool = True
    gdb: bool = True
    qmp: bool = True
    append: str = ""
    more: Sequence[str] = ()
    nice: int = 5


@dataclass(slots=True)
class GuestMachine:
    """A running guest. `pid` is QEMU's; `qmp` and `gdb` are socket paths, of which each serves one client at a time."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]
    _shell: socket.socket | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self.process.pid

    @property
    def qmp(self) -> Path:
        """The QMP socket."""
        return self.folder / "qmp"

    @property
    def watch(self) -> Path:
        """A second QMP socket, by which a test sees what a back end does that keeps the first one for itself."""
        return self.folder / "watch"

    @property
    def gdb(self) -> Path:
        """The gdbstub's socket."""
        return self.folder / "gdb"

    @property
    def console(self) -> bytes:
        """What the guest has printed on its console until now."""
        return (self.folder / "console").read_bytes() if (self.folder / "console").exists() else b""

    @property
    def boots(self) -> int:
        """How often the guest has come up."""
        return self.console.count(READY)

    @property
    def release(self) -> str:
        """The kernel's release, as `uname -r` says."""
        return self.shell("uname -r").strip()

    @property
    def alive(self) -> bool:
        """Whether QEMU runs."""
        return self.process.poll() is None

    def wait_ready(self, boots: int = 1) -> None:
        """Wait until the guest has come up that often."""
        deadline = time.monotonic() + PATIENCE
        while self.boots < boots:
            assert self.alive, f"QEMU ended: {(self.folder / 'stderr').read_text(errors='replace')[-1000:]}"
            assert time.monotonic() < deadline, f"no {READY!r} after {PATIENCE} s; the console: {self.console[-1000:]!r}"
            time.sleep(0.02)

    def shell(self, command: str, patience: float = 60.0) -> str:
        """What the command prints in the guest (stdout and stderr). The port is slow: compare a hash of what is large."""
        if self._shell is None:
            self._shell = socket.socket(socket.AF_UNIX)
            self._shell.settimeout(patience)
            self._shell.connect(str(self.folder / "shell"))
        number = next(self._numbers)
        # The arithmetic is the shell's, so that an echo of the line is never taken for its output.
        self._shell.sendall(f"echo begin-$(({number}+0)); {command}\necho end-$(({number}+0))\n".encode())
        begin, end = f"begin-{number}\n".encode(), f"end-{number}\n".encode()
        seen = b""
        deadline = time.monotonic() + patience
        while end not in seen:
            self._shell.settimeout(max(0.01, deadline - time.monotonic()))
            piece = self._shell.recv(65536)
            assert piece, f"the guest's shell is gone; it said {seen!r}"
            seen += piece.replace(b"\r", b"")
        return seen.partition(begin)[2].rpartition(end)[0].decode(errors="replace")

    @contextlib.contextmanager
    def workload(self, name: str) -> Iterator[list[int]]:
        """Keep the guest busy within the block; gives the pids of the programs (of `dd`: on vCPU 0, on vCPU 1)."""
        script = WORKLOADS[name].replace("'", "'\\''")
        leader = int(self.shell(f"setsid sh -c '{script}' >/dev/null 2>&1 </dev/null & echo $!"))
        try:
            yield self._started(name, leader)
        finally:
            # After a reboot there is no such process, and nothing to do.
            if self.alive:
                # And wait, so that the next one is not taken for this one; four seconds at most.
                gone = f"kill -9 -{leader} 2>/dev/null; i=0; while kill -0 -{leader} 2>/dev/null && [ $i -lt 400 ]; do"
                self.shell(f"{gone} usleep 10000; i=$((i+1)); done")

    def _started(self, name: str, leader: int) -> list[int]:
        comm, number = {"dd": ("dd", 2), "user": ("guest_user", 1), "calls": ("guest_calls", 1)}.get(name, ("", 0))
        deadline = time.monotonic() + PATIENCE
        pids: list[int] = []
        while len(pids) < number:
            assert time.monotonic() < deadline, f"{name} did not start"
            # By comm: before it becomes dd, the program is a shell, then taskset.
            found = re.findall(r"^(\d+) \((\S+)\)", self.shell("cat /proc/[0-9]*/stat 2>/dev/null"), re.MULTILINE)
            pids = sorted(int(pid) for pid, found_comm in found if found_comm == comm)
        return pids or [leader]

    def send_sysrq(self, key: str) -> None:
        """Write to /proc/sysrq-trigger; `b` reboots at once, so that no answer comes."""
        self.shell("true")
        assert self._shell is not None
        # The port takes sixteen bytes at a time, and drops what waits when it is closed: so it stays open, also across a reboot.
        self._shell.sendall(f"echo {key} > /proc/sysrq-trigger\n".encode())

    def kill(self) -> None:
        """End QEMU; again is harmless."""
        self.process.kill()
        self.process.wait()
        if self._shell is not None:
            self._shell.close()
            self._shell = None
        shutil.rmtree(self.folder, ignore_errors=True)


def boot(initramfs: Path, wanted: Wanted = Wanted(), *, wait: bool = True) -> GuestMachine:
    """Start a guest; its sockets lie in a folder of its own, with a short path because a socket's may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="unspool-guest-"))
    name = folder.name.removeprefix("unspool-")
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            command_line(name, folder, initramfs, wanted),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    machine = GuestMachine(name, folder, process)
    if wait:
        try:
            machine.wait_ready()
        except BaseException:
            machine.kill()
            raise
    return machine


def command_line(name: str, folder: Path, initramfs: Path, wanted: Wanted) -> list[str]:
    """QEMU's command line, so that it dies with the tests."""
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(4 << 20)
    backend = ["-object", f"memory-backend-memfd,id=ram,size={wanted.memory}M,share=on"] if wanted.shared else []
    return [
        *("nice", "-n", str(wanted.nice), "setpriv", "--pdeathsig", "KILL", *wanted.qemu),
        *("-nodefaults", "-no-user-config", "-display", "none", "-name", f"guest={name},debug-threads=on"),
        *("-machine", f"{wanted.machine},accel={wanted.accel}{',memory-backend=ram' if wanted.shared else ''}"),
        *("-cpu", wanted.cpu, "-smp", str(wanted.cpus), "-m", f"{wanted.memory}M", *backend),
        *("-kernel", str(wanted.folder / "vmlinuz"), "-initrd", str(initramfs)),
        *("-append", f"console=ttyS0 quiet panic=-1 {wanted.append}".strip()),
        *("-chardev", f"file,id=c0,path={folder}/console", "-serial", "chardev:c0"),
        *("-chardev", f"socket,id=c1,path={folder}/shell,server=on,wait=off", "-serial", "chardev:c1"),
        *("-drive", f"if=none,id=d0,format=raw,file={disk}", "-device", "virtio-blk-pci,drive=d0"),
        *(["-qmp", f"unix:{folder}/qmp,server=on,wait=off"] if wanted.qmp else []),
        *(["-qmp", f"unix:{folder}/watch,server=on,wait=off"] if wanted.qmp else []),
        *(["-gdb", f"unix:{folder}/gdb,server=on,wait=off"] if wanted.gdb else []),
        *wanted.more,
    ]


@functools.cache
def fetched(folder: Path, *arguments: str) -> Path:
    """The folder with a kernel and busybox, fetched when it is not there; in CI it must come, elsewhere its absence skips the test."""
    done = subprocess.run(["bash", SCRIPTS / "fetch.sh", folder, *arguments], capture_output=True, text=True, check=False, timeout=600)
    missing = None if done.returncode == 0 else f"no guest kernel could be fetched: {done.stderr[-500:]}"
    if missing is None and shutil.which("qemu-system-x86_64") is None:
        missing = "qemu-system-x86_64 is missing"
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    return folder


def initramfs_of(folder: Path, programs: Programs, output: Path, *more: str) -> Path:
    """The initramfs for that kernel, with the programs of the workloads in it, and `more` of tests/programs."""
    names = ("guest_user", "guest_calls", *more)
    files = [f"/bin/{name}={programs.build(f'{name}.c', '-O2', '-static', '-fomit-frame-pointer', '-g0')}" for name in names]
    subprocess.run([sys.executable, SCRIPTS / "image.py", folder, output, *files], check=True, timeout=120)
    return output


@pytest.fixture(scope="session")
def guest_initramfs(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initramfs of the machine's own Debian kernel."""
    return initramfs_of(fetched(STABLE), programs, tmp_path_factory.mktemp("guest") / "initramfs")


@pytest.fixture(scope="session")
def guest_machine(guest_initramfs: Path) -> Iterator[GuestMachine]:
    """The guest that all tests share: two vCPUs, memfd RAM, QMP and gdbstub; idle, running, never rebooted."""
    machine = boot(guest_initramfs)
    try:
        yield machine
    finally:
        machine.kill()


@pytest.fixture
def boot_guest(guest_initramfs: Path) -> Iterator[Callable[..., GuestMachine]]:
    """Boots a guest of the test's own, `boot_guest(shared=False)`; all are killed when the test ends."""
    with contextlib.ExitStack() as held:

        def start(*, wait: bool = True, **options: object) -> GuestMachine:
            machine = boot(guest_initramfs, Wanted(**options), wait=wait)  # type: ignore[arg-type]
            held.callback(machine.kill)
            return machine

        yield start
