"""A real guest's kernel out of its memory, against what the guest says of itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_machines import GuestMachine

from unspool.formats.kallsyms_tables import KernelSymbols
from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.gdbstub import GdbStub
from unspool.targets.guest.kernel import GuestKernel, discover
from unspool.targets.guest.kernel_cache import KernelCache
from unspool.targets.guest.layout import Extent
from unspool.targets.guest.ram import Ram
from unspool.targets.guest.registers import VcpuState

pytestmark = pytest.mark.live
RAM_SIZE = 256 << 20


@pytest.fixture
def ram(guest_machine: GuestMachine) -> Iterator[Ram]:
    """The guest's memory, which QEMU shares."""
    folder = Path(f"/proc/{guest_machine.pid}/fd")
    shared = next(entry for entry in folder.iterdir() if "memfd:" in str(entry.readlink()))
    ram = Ram.of_file(os.open(shared, os.O_RDONLY), [Extent(0, RAM_SIZE, 0)], "memfd")
    try:
        yield ram
    finally:
        ram.close()


@pytest.fixture
def stub(guest_machine: GuestMachine) -> Iterator[GdbStub]:
    """The registers of its vCPUs."""
    stub = GdbStub.open(Endpoint(path=str(guest_machine.gdb)))
    try:
        yield stub
    finally:
        stub.close()


def found(ram: Ram, stub: GdbStub, vcpu: int = 0, cache: KernelCache | None = None) -> tuple[GuestKernel, VcpuState]:
    """The kernel by one vCPU, which is held: the page tables of a process that ends meanwhile lead nowhere."""
    with stub.hold(vcpu) as state:
        assert isinstance(state, VcpuState), state
        kernel = discover(ram, state, cache=cache)
    assert isinstance(kernel, GuestKernel), kernel
    return kernel, state


@pytest.fixture
def kernel(ram: Ram, stub: GdbStub) -> GuestKernel:
    """The kernel of the guest, which runs on."""
    return found(ram, stub)[0]


def lines(symbols: KernelSymbols) -> bytes:
    """The symbols as /proc/kallsyms prints them."""
    return b"".join(f"{address:016x} {kind} {name}\n".encode() for address, kind, name in symbols)


def sha256(machine: GuestMachine, command: str) -> str:
    return machine.shell(f"{command} | sha256sum").split()[0]


def test_the_symbols_are_those_of_the_guest(guest_machine: GuestMachine, kernel: GuestKernel) -> None:
    """Every line of /proc/kallsyms that is not a module's, byte for byte."""
    assert len(kernel.symbols) > 50_000
    assert sha256(guest_machine, "grep -v '\\[' /proc/kallsyms") == hashlib.sha256(lines(kernel.symbols)).hexdigest()


def test_the_modules_are_those_of_the_guest(guest_machine: GuestMachine, kernel: GuestKernel) -> None:
    said = [line.split() for line in guest_machine.shell("cat /proc/modules").splitlines()]
    assert said
    assert [(fields[0], int(fields[5], 16)) for fields in said] == [(module.name, module.start) for module in kernel.modules]
    symbols = {
        (int(fields[0], 16), fields[2], fields[3].strip("[]"))
        for fields in (line.split() for line in guest_machine.shell("grep '\\[' /proc/kallsyms").splitlines())
    }
    found = {(address, name, module.name) for module in kernel.modules for address, _, name in module.symbols or ()}
    # Programs of BPF and trampolines of ftrace are listed like modules, and are none.
    assert {entry for entry in symbols if entry[2] in {fields[0] for fields in said}} == found
    for module in kernel.modules:
        start, end = module.place.text[0]
        named = [address for address, kind, _ in module.symbols or () if kind in "tT" and start <= address < end]
        assert named
        assert all(kernel.orc(address) is not None for address in named)


def test_identity_and_types_are_those_of_the_guest(guest_machine: GuestMachine, kernel: GuestKernel) -> None:
    assert guest_machine.release == kernel.release
    assert guest_machine.shell("cat /proc/version").strip() == kernel.version
    assert sha256(guest_machine, "cat /sys/kernel/notes") == hashlib.sha256(kernel.tables.notes).hexdigest()
    assert kernel.build_id
    start, stop = kernel.address("__start_BTF"), kernel.address("__stop_BTF")
    assert start is not None
    assert stop is not None
    types = kernel.memory.read(start, stop - start)
    assert types is not None
    assert sha256(guest_machine, "cat /sys/kernel/btf/vmlinux") == hashlib.sha256(types).hexdigest()
    assert () == kernel.missing


def test_every_vcpu_leads_to_the_same_kernel(ram: Ram, stub: GdbStub) -> None:
    cache = KernelCache()
    kernels = [found(ram, stub, vcpu, cache) for vcpu in stub.vcpus]
    assert len(kernels) == 2
    assert 1 == len({id(kernel.tables) for kernel, _ in kernels})
    for vcpu, (kernel, state) in enumerate(kernels):
        # In user mode GS is the program's, and the other one may not be known.
        assert kernel.cpu_of(state) in {None, vcpu}
        kernel.forget()
        assert kernel.same_boot()
