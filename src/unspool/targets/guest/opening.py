"""Open a machine: its memory, and the registers of its vCPUs, by the way that was asked for or the best that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from unspool.errors import BadInput, BadRequest, UnspoolError, Unsupported
from unspool.targets import procfs
from unspool.targets.guest import gdbstub, layout, ram, sockets
from unspool.targets.guest.channel import Endpoint, as_request, refuse_paused
from unspool.targets.guest.kvm_hold import KvmHold
from unspool.targets.guest.layout import Hmp
from unspool.targets.guest.machines import Machine, planned_extents
from unspool.targets.guest.qmp import Qmp, QmpRegisters
from unspool.targets.guest.ram import Ram
from unspool.targets.guest.registers import VcpuSource
from unspool.targets.guest.tcg_state import TcgState
from unspool.targets.guest.vcpu_threads import VcpuThreads, named_threads

METHODS = ("kvm-hold", "gdbstub", "qmp-live", "qmp-stop", "tcg-state")
"""The back ends by name. Without a wish, the first of `automatic` is taken; `qmp-stop` and `tcg-state` are taken on request only."""
_ON_REQUEST = {"qmp-stop", "tcg-state"}


def automatic(machine: Machine) -> str:
    """The back end that is taken without a wish; Unsupported, with what mends it, when there is none."""
    for method in machine.registers_by:
        if method not in _ON_REQUEST and not (method == "gdbstub" and machine.accel == "kvm"):
            return method
    hint = next((f"{one.what}: {one.mend}" for one in machine.missing), "")
    raise Unsupported(
        f"the registers of machine {machine.name!r} cannot be read", hint=hint or "`unspool guest list` says what is missing."
    )


def open_source(machine: Machine, method: str | None = None) -> VcpuSource:
    """The machine's vCPUs by that back end; an UnspoolError when it cannot be had."""
    method = method or automatic(machine)
    if method not in METHODS:
        raise BadRequest(f"there is no back end {method!r}", hint=f"There are {', '.join(METHODS)}.")
    if method == "gdbstub" and machine.gdb is None and machine.qmp:
        _refuse_paused(machine)
        return gdbstub.GdbStub.open(open_gdb(machine), threads_of(machine))
    if method not in machine.registers_by:
        there = ", ".join(machine.registers_by) or "none"
        raise Unsupported(f"machine {machine.name!r} cannot be read by {method}", hint=f"It has: {there}.")
    if method == "kvm-hold":
        return KvmHold.open(machine.pid)
    state = procfs.thread_state(machine.pid, machine.pid)
    if state and state.state == "T":
        raise Unsupported(f"process {machine.pid} is stopped (SIGSTOP), and answers nothing", hint=f"kill -CONT {machine.pid}")
    if method == "gdbstub" and machine.gdb:
        _refuse_paused(machine)
        return gdbstub.GdbStub.open(machine.gdb, threads_of(machine))
    if method == "tcg-state":
        with monitor(machine) as hmp:
            if hmp is None:
                raise Unsupported("QEMU's state is found with the help of QMP or of its gdb socket, and neither answers")
            return TcgState.open(machine.pid, hmp, threads_of(machine))
    assert machine.qmp is not None
    return QmpRegisters.open(machine.qmp, machine.pid, stopping=method == "qmp-stop")


def _refuse_paused(machine: Machine) -> None:
    """Refuse a machine of which QMP says that it is paused: after a gdb session it would run. Without QMP, see `Gdb.greet`."""
    running = True
    if machine.qmp and "qmp-live" in machine.registers_by:
        with suppress(UnspoolError), as_request("the QMP socket"):
            qmp = Qmp.open(machine.qmp)
            try:
                running = qmp.running()
            finally:
                qmp.close()
    if not running:
        refuse_paused()


def open_gdb(machine: Machine, path: str = "") -> Endpoint:
    """A gdb socket that QEMU opens at that path (as it sees it; beside its QMP socket without one), through QMP; the machine runs on."""
    if machine.qmp is None:
        raise Unsupported(f"machine {machine.name!r} has no QMP socket", hint="`unspool guest list` says what to do.")
    path = path or f"{machine.qmp.path or f'/tmp/{machine.pid}'}.gdb"  # noqa: S108 QEMU refuses a path that is there
    if not path.isprintable():
        raise BadRequest(f"{path!r} is no path that QEMU's monitor can be told")
    qmp = Qmp.open(machine.qmp)
    try:
        with as_request("the QMP socket"):
            answer = qmp.hmp(f"gdbserver unix:{path.replace(',', ',,')},server=on,wait=off")
    finally:
        qmp.close()
    if path not in sockets.listening_paths(machine.pid):
        raise Unsupported(f"QEMU opens no gdb socket at {path!r}: {answer.strip()!r}", hint="Choose a --path that QEMU may write.")
    return Endpoint(path=path, pid=machine.pid)


def open_ram(machine: Machine, given: str | None = None) -> Ram:
    """The machine's memory; `given` is a layout in the user's words (see `layout.parse`). An UnspoolError when it cannot be reached."""
    if given:
        return ram.open_at(machine.pid, layout.parse(given))
    with monitor(machine) as hmp:
        if hmp:
            with suppress(BadInput, TimeoutError, ConnectionError):
                return ram.open_at(machine.pid, layout.from_monitor(hmp))
    mappings = ram.mappings_of(machine.pid)
    extents = planned_extents(machine.pid, mappings, machine.plan) if machine.plan else layout.guessed(mappings)
    if not extents:
        raise Unsupported(
            f"where the memory of machine {machine.name!r} lies is not known",
            hint="Give it: --guest-memory 0xGUEST:0xSIZE@0xADDRESS,... (docs/guest-back-ends.md).",
        )
    return ram.open_at(machine.pid, extents)


@contextmanager
def monitor(machine: Machine) -> Iterator[Hmp | None]:
    """QEMU's human monitor, by QMP, else by the gdb socket (the machine stands still in the block then); None when neither is to be had."""
    close: Callable[[], None] = lambda: None  # noqa: E731
    hmp: Hmp | None = None
    if machine.qmp:
        with suppress(UnspoolError):
            qmp = Qmp.open(machine.qmp)
            hmp, close = qmp.hmp, qmp.close
    if hmp is None and machine.gdb:
        with suppress(UnspoolError):
            gdb = gdbstub.attach(machine.gdb)
            hmp, close = gdb.hmp, gdb.detach
    try:
        yield hmp
    finally:
        close()


def threads_of(machine: Machine) -> VcpuThreads | None:
    """The threads of the vCPUs, by their names or by QMP; None when they are not to be known."""
    threads = named_threads(machine.pid)
    if len(threads.tids) >= machine.vcpus:
        return threads
    if machine.qmp:
        with suppress(UnspoolError), as_request("the QMP socket"):
            qmp = Qmp.open(machine.qmp)
            try:
                return qmp.vcpu_threads(machine.pid)
            finally:
                qmp.close()
    return None
