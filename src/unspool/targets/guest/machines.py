"""The virtual machines of this host, found in /proc alone: nothing is stopped, traced or connected to.

A process is a VMM when it holds a virtual CPU of KVM (`anon_inode:kvm-vcpu:N`), or when its program is QEMU (then it emulates: TCG).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from unspool.errors import NoSuchTarget, UnspoolError
from unspool.model.module import Mapping
from unspool.targets import procfs
from unspool.targets.guest import layout, ram, ram_blocks, sockets
from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.missing import Hint, hints, readable
from unspool.targets.guest.qemu_options import QemuOptions, is_qemu, is_x86, parse, program_name
from unspool.targets.guest.vcpu_threads import named_threads

VCPU_LINK = "anon_inode:kvm-vcpu:"
_TICKS = os.sysconf("SC_CLK_TCK")
_MOST_TEXT = 1 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """One virtual machine.

    `start_ns` is the start of its process, in nanoseconds since boot; `vmm` is the program ("qemu", "firecracker"), `accel` "kvm" or "tcg".
    `ram_bytes` is 0 when it is not known. `registers_by` are the back ends that can be tried, best first; `memory_by` is "memfd", "file",
    "process", or "" when the memory cannot be reached. `missing` says what stands in the way of more. Names come from the VMM's command
    line: they are to be escaped.
    """

    name: str
    uuid: str
    pid: int
    start_ns: int
    vmm: str
    accel: str
    vcpus: int
    ram_bytes: int
    qmp: Endpoint | None = None
    gdb: Endpoint | None = None
    registers_by: tuple[str, ...] = ()
    memory_by: str = ""
    missing: tuple[Hint, ...] = ()
    plan: layout.Plan | None = field(default=None, repr=False)


def find_machines() -> list[Machine]:
    """Every virtual machine of this host that /proc shows us, by pid."""
    found = [machine_of(pid) for pid in _pids()]
    return [machine for machine in found if machine]


def machine_of(pid: int) -> Machine | None:
    """The machine that the process runs, None when it runs none or is gone."""
    state = procfs.thread_state(pid, pid)
    if state is None or state.ended or state.kernel:
        return None
    program = _program(pid, state.name)
    vcpus = kvm_vcpus(pid)
    if not vcpus and not is_qemu(program):
        return None
    start_ns = state.start_ticks * 1_000_000_000 // _TICKS
    if is_qemu(program):
        return _qemu(pid, start_ns, program, len(vcpus))
    return _other(pid, start_ns, program, len(vcpus))


def select(wanted: str, machines: Sequence[Machine]) -> list[Machine]:
    """The machines that a user means by `all` or a list of names, UUIDs and pids; NoSuchTarget names the first that is not there."""
    if wanted == "all":
        return list(machines)
    chosen: dict[int, Machine] = {}
    for word in wanted.split(","):
        found = [machine for machine in machines if word and word in {machine.name, machine.uuid, str(machine.pid)}]
        if len(found) != 1:
            what = "is no machine of this host" if not found else "names more than one machine"
            raise NoSuchTarget(f"{word!r} {what}", hint="`unspool guest list` shows them; a pid names exactly one.")
        chosen[found[0].pid] = found[0]
    return list(chosen.values())


def kvm_vcpus(pid: int) -> dict[int, int]:
    """The descriptors of the process's KVM vCPUs by vCPU number; empty also when they are not ours to see."""
    found: dict[int, int] = {}
    for descriptor, link in sockets.descriptors(pid):
        # The number is missing before Linux 4.18, and is then unknown.
        if link.startswith(VCPU_LINK) and link[len(VCPU_LINK) :].isdigit():
            found.setdefault(int(link[len(VCPU_LINK) :]), descriptor)
    return found


def encrypted_by(pid: int) -> str:
    """What says that the process's machine is encrypted (SEV, TDX), "" when nothing does."""
    for _, link in sockets.descriptors(pid):
        if link == "/dev/sev" or link.startswith("anon_inode:[kvm-gmem"):
            return link
    return ""


def _qemu(pid: int, start_ns: int, program: str, kvm: int) -> Machine:
    options = parse(_arguments(pid), pid)
    gdb = options.gdb or _gdb_opened_later(pid)
    mappings, memory_by = _memory(pid, lambda found: planned_extents(pid, found, options.plan))
    machine = Machine(
        name=options.name or f"qemu-{pid}",
        uuid=options.uuid,
        pid=pid,
        start_ns=start_ns,
        vmm="qemu",
        # Where the descriptors are not ours to see, the command line is believed.
        accel="kvm" if kvm or (options.wants_kvm and not any(sockets.descriptors(pid))) else "tcg",
        vcpus=kvm or len(named_threads(pid).tids) or options.vcpus,
        ram_bytes=options.plan.size,
        qmp=options.qmp,
        gdb=gdb,
        memory_by=memory_by or ("process" if mappings and (options.qmp or gdb) else ""),
        plan=options.plan,
    )
    return _judged(machine, program, options)


def _other(pid: int, start_ns: int, program: str, kvm: int) -> Machine:
    mappings, memory_by = _memory(pid, layout.guessed)
    size = sum(extent.size for extent in layout.guessed(mappings))
    machine = Machine(f"{program}-{pid}", "", pid, start_ns, program, "kvm", kvm, size, memory_by=memory_by)
    return _judged(machine, program, None)


def _judged(machine: Machine, program: str, options: QemuOptions | None) -> Machine:
    """The machine with the back ends that can be tried, and with what is missing."""
    encrypted = (options.encrypted if options else "") or encrypted_by(machine.pid)
    busy = machine.qmp is not None and sockets.busy(machine.pid, machine.qmp.path, machine.qmp.port)
    by = []
    if machine.accel == "kvm" and not encrypted:
        by.append("kvm-hold")
    if machine.gdb:
        by.append("gdbstub")
    if machine.qmp and not busy:
        by += (["tcg-state"] if machine.accel == "tcg" else []) + ["qmp-live", "qmp-stop"]
    elif machine.gdb and machine.accel == "tcg":
        by.append("tcg-state")
    foreign = is_qemu(program) and not is_x86(program)
    values = {name: getattr(machine, name) for name in Machine.__slots__}
    # A socket is looked up in its process's root directory, so that nothing can be had without that right.
    if foreign or encrypted or not readable(machine.pid):
        values |= {"registers_by": (), "memory_by": ""}
    else:
        values["registers_by"] = tuple(by)
    values["missing"] = tuple(hints(Machine(**values), program, options, busy=busy, encrypted=encrypted))
    return Machine(**values)


def _memory(pid: int, find: Callable[[Sequence[Mapping]], tuple[layout.Extent, ...]]) -> tuple[Sequence[Mapping], str]:
    """The process's mappings, and how the memory that `find` sees in them can be read."""
    with suppress(UnspoolError):
        mappings = ram.mappings_of(pid)
        extents = find(mappings)
        if extents:
            return mappings, ram.kind_at(mappings, extents)
        return mappings, ""
    return (), ""


def planned_extents(pid: int, mappings: Sequence[Mapping], plan: layout.Plan) -> tuple[layout.Extent, ...]:
    """The memory of a QEMU machine that cannot be asked, laid out as its command line says; () when a block is not found."""
    alone = layout.by_size(mappings, plan.size) if len(plan.blocks) == 1 else None
    positions = (alone.start,) if alone else ram_blocks.addresses(pid, mappings, plan.blocks)
    return plan.extents(positions) if positions else ()


def _gdb_opened_later(pid: int) -> Endpoint | None:
    """A gdb socket that was opened on a running machine (monitor command `gdbserver`): one with "gdb" in its file's name."""
    for path in sockets.listening_paths(pid):
        if "gdb" in path.rpartition("/")[2]:
            return Endpoint(path=path, pid=pid)
    return None


def _pids() -> Iterator[int]:
    own = os.getpid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != own:
            yield int(entry.name)


def _program(pid: int, name: str) -> str:
    """The program's file name; of a process that is not ours to look into, what its command line begins with, when it fits `name`."""
    with suppress(OSError):
        return program_name(str(Path(f"/proc/{pid}/exe").readlink()))
    claimed = program_name(next(iter(_words(pid)), ""))
    # The kernel keeps 15 bytes of the name (TASK_COMM_LEN).
    return claimed if claimed.startswith(name) else name


def _arguments(pid: int) -> list[str]:
    return _words(pid)[1:]


def _words(pid: int) -> list[str]:
    with suppress(OSError):
        text = procfs.read_file(f"/proc/{pid}/cmdline")[:_MOST_TEXT]
        return [os.fsdecode(word) for word in text.split(b"\0")]
    return []
