"""The back end that a guest is sampled with when the user names none."""

from __future__ import annotations

from contextlib import suppress

from unspool.errors import UnspoolError
from unspool.targets.guest.machines import Machine
from unspool.targets.guest.opening import open_source
from unspool.targets.guest.registers import VcpuSource


def open_registers(machine: Machine, method: str | None = None) -> VcpuSource:
    """The vCPUs of the machine by that method; without one, a way that stops them comes before one that reads them as they run.

    So an emulated machine without a gdb socket is given one, through QMP. An UnspoolError when nothing works.
    """
    if method is None and machine.accel == "tcg" and machine.gdb is None and "qmp-live" in machine.registers_by:
        with suppress(UnspoolError):
            return open_source(machine, "gdbstub")
    return open_source(machine, method)
