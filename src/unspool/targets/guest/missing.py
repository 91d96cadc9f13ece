"""What stands between us and a machine, each with the command that mends it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.targets import procfs
from unspool.targets.guest import sockets
from unspool.targets.guest.qemu_options import is_qemu, is_x86

if TYPE_CHECKING:
    from unspool.targets.guest.machines import Machine
    from unspool.targets.guest.qemu_options import QemuOptions

_PLAIN = re.compile(r"/[\w./+-]{1,80}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hint:
    """What is missing, and what mends it ("" when nothing does)."""

    what: str
    mend: str = ""


def hints(machine: Machine, program: str, options: QemuOptions | None, *, busy: bool, encrypted: str) -> Iterator[Hint]:
    """Everything that is missing, the gravest first."""
    if is_qemu(program) and not is_x86(program):
        yield Hint(f"{program} emulates another machine than x86-64")
        return
    if encrypted:
        yield Hint(f"its memory is encrypted ({encrypted}): nothing can be read from outside")
        return
    if not readable(machine.pid):
        yield Hint("its memory is not ours to see", "sudo unspool guest list   (or grant CAP_SYS_PTRACE)")
        return
    state = procfs.thread_state(machine.pid, machine.pid)
    if state and state.state == "T":
        yield Hint("its process is stopped (SIGSTOP), so that it answers nothing", f"kill -CONT {machine.pid}")
    tracer = procfs.status_number(machine.pid, "TracerPid")
    if tracer and machine.accel == "kvm":
        yield Hint(f"process {tracer} traces it, and a thread has one tracer at a time", f"end it, or let it detach: ps -p {tracer}")
    if options:
        yield from _qemu(machine, options, busy=busy)
    elif not machine.memory_by:
        yield Hint("where its memory lies in its process is not known", "give it: --guest-memory 0xGUEST:0xSIZE@0xADDRESS,...")


def _qemu(machine: Machine, options: QemuOptions, *, busy: bool) -> Iterator[Hint]:
    name = shlex.quote(machine.name)
    gdb = shlex.quote(f"gdbserver unix:{_gdb_path(machine.pid)},server=on,wait=off")
    if busy:
        yield Hint("its QMP socket serves another client (one at a time)", "end that client; libvirt's own: see docs/guest-back-ends.md")
    for endpoint in (machine.qmp, machine.gdb):
        if endpoint and endpoint.port and not sockets.listens(machine.pid, endpoint.port):
            yield Hint(
                f"it does not listen on port {endpoint.port} of this network namespace", f"nsenter -t {machine.pid} -n unspool guest list"
            )
    if machine.gdb and sockets.busy(machine.pid, machine.gdb.path, machine.gdb.port):
        yield Hint("its gdb socket serves another client (one at a time)", "end that client, or take --guest-registers qmp-live")
    if machine.accel == "tcg" and machine.gdb is None:
        if options.qmp_inherited:
            yield Hint("no gdb socket", f"virsh qemu-monitor-command {name} --hmp {gdb}")
        elif machine.qmp and not busy:
            yield Hint("no gdb socket: registers only live (racy), or by stopping through QMP", f"unspool guest gdb {machine.pid}")
        elif not machine.qmp:
            yield Hint(
                "no QMP socket and no gdb socket: its registers cannot be read",
                "start it with -qmp unix:/run/NAME.qmp,server=on,wait=off -gdb unix:/run/NAME.gdb,server=on,wait=off",
            )
    if not machine.memory_by:
        yield Hint("where its memory lies in its process is not known", _layout_by_hand(name, options))


def _layout_by_hand(name: str, options: QemuOptions) -> str:
    """How a user finds the layout, and what is left to fill in."""
    parts = options.plan.extents([number << 56 for number in range(len(options.plan.blocks))])[:8]
    given = ",".join(f"{part.start:#x}:{part.size:#x}@0xADDRESS" for part in parts) or "0xGUEST:0xSIZE@0xADDRESS,..."
    if not options.qmp_inherited:
        return f"start it with -qmp unix:/run/NAME.qmp,server=on,wait=off, or give it: --guest-memory {given}"
    asked = [f"gpa2hva {part.start:#x}" for part in parts] or ["info mtree -f", "gpa2hva 0x0"]
    commands = "; ".join(f"virsh qemu-monitor-command {name} --hmp '{command}'" for command in asked)
    return f"{commands}   and give it: --guest-memory {given}"


def _gdb_path(pid: int) -> str:
    """Where QEMU may make a socket: beside libvirt's own, which AppArmor's and SELinux's rules for that machine allow; else in /tmp."""
    for path in sockets.listening_paths(pid):
        folder, _, name = path.rpartition("/")
        # A path with blanks or commas would need quotes within quotes; a socket's has 107 bytes at most (unix(7)).
        if name == "monitor.sock" and _PLAIN.fullmatch(folder):
            return f"{folder}/gdb.sock"
    return f"/tmp/{pid}.gdb"  # noqa: S108 QEMU refuses a path that is there


def readable(pid: int) -> bool:
    """Whether the process's mappings are ours to see: the same right that reading its memory needs (ptrace(2), PTRACE_MODE_READ)."""
    try:
        os.close(os.open(f"/proc/{pid}/maps", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
