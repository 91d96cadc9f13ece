"""Find the virtual machines of this host, and what it takes to look into them (docs/guest-back-ends.md)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from unspool.capture.guest_wire import Failed, KernelFound
from unspool.cli.output import write_lines
from unspool.cli.printable import printable
from unspool.errors import BadRequest
from unspool.targets.guest.machines import Machine, find_machines, select

EXAMPLES = """examples:
  unspool guest list            every machine of this host, and what is missing with the command that mends it
  unspool guest list --json     the same for programs
  unspool guest gdb NAME        give a running QEMU a gdb socket, through its QMP socket
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the virtual machines of this host", description="List the virtual machines of this host.")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.add_argument("--no-kernel", action="store_true", help="do not look for the kernels inside: no vCPU is read")
    gdb = actions.add_parser("gdb", help="open a gdb socket", description="Give a running QEMU a gdb socket; the machine runs on.")
    gdb.add_argument("machine", metavar="NAME|PID", help="the machine")
    gdb.add_argument("--path", help="the socket's path as QEMU will see it (default: beside its QMP socket)")


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    machines = find_machines()
    if arguments.action == "gdb":
        return _open_gdb(select(arguments.machine, machines), arguments.path)
    kernels = {} if arguments.no_kernel else _kernels(machines)
    if arguments.json:
        json.dump([as_json(machine, kernels.get(machine.pid)) for machine in machines], sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        write_lines(lines(machines, kernels))
    return 0


def _kernels(machines: Sequence[Machine]) -> dict[int, KernelFound | Failed]:
    """The kernel of each machine that can be read, by pid."""
    from unspool.session.guest_kernels import kernel_inside

    return {machine.pid: kernel_inside(machine) for machine in machines if machine.registers_by and machine.memory_by}


def as_json(machine: Machine, kernel: KernelFound | Failed | None = None) -> dict[str, Any]:
    """One machine as JSON shows it; what is not known is null."""
    found = kernel if isinstance(kernel, KernelFound) else None
    return {
        "name": machine.name,
        "uuid": machine.uuid or None,
        "pid": machine.pid,
        "start_ns": machine.start_ns,
        "vmm": machine.vmm,
        "accel": machine.accel,
        "vcpus": machine.vcpus,
        "ram_bytes": machine.ram_bytes or None,
        "qmp": str(machine.qmp) if machine.qmp else None,
        "gdb": str(machine.gdb) if machine.gdb else None,
        "registers_by": list(machine.registers_by),
        "memory_by": machine.memory_by or None,
        "kernel": {"release": found.release, "version": found.version, "build_id": found.build_id or None} if found else None,
        "no_kernel": kernel.reason if isinstance(kernel, Failed) else None,
        "missing": [{"what": hint.what, "mend": hint.mend or None} for hint in machine.missing],
    }


def lines(machines: Sequence[Machine], kernels: Mapping[int, KernelFound | Failed] = MappingProxyType({})) -> Iterator[str]:
    """The machines as text: one line for what each is, some for how it can be reached, and two for everything that is missing."""
    if not machines:
        yield "No virtual machine runs on this host, or none that is ours to see."
    for machine in machines:
        memory = f"{machine.ram_bytes / (1 << 20):.0f} MiB" if machine.ram_bytes else "memory of unknown size"
        cpus = "1 vCPU" if machine.vcpus == 1 else f"{machine.vcpus} vCPUs"
        yield f"{printable(machine.name)}  pid {machine.pid}, {printable(machine.vmm)} ({machine.accel}), {cpus}, {memory}"
        yield f"  registers  {', '.join(machine.registers_by) or 'not to be had'}"
        yield f"  memory     {machine.memory_by or 'not to be had'}"
        kernel = kernels.get(machine.pid)
        if isinstance(kernel, KernelFound):
            yield f"  kernel     {printable(kernel.release)}  {printable(kernel.build_id)}"
            if kernel.missing:
                yield f"             {printable(kernel.missing)}"
        elif kernel:
            yield f"  kernel     not known: {printable(kernel.reason)}"
        for hint in machine.missing:
            yield f"  MISSING    {printable(hint.what)}"
            if hint.mend:
                yield f"          -> {printable(hint.mend)}"


def _open_gdb(machines: Sequence[Machine], path: str | None) -> int:
    from unspool.targets.guest.opening import open_gdb

    if len(machines) != 1:
        raise BadRequest("name one machine", hint="`unspool guest list` shows them.")
    if machines[0].gdb:
        raise BadRequest(f"machine {machines[0].name!r} has a gdb socket: {machines[0].gdb}")
    write_lines([f"{printable(machines[0].name)} has a gdb socket now: {printable(str(open_gdb(machines[0], path or '')))}"])
    return 0
