"""The kernel inside a machine, for a list of machines: one look at one vCPU, decoded in a process without privileges."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from unspool.capture.guest_decoder import preparation
from unspool.capture.guest_idle import any_state
from unspool.capture.guest_process import Decoder, DecoderDied
from unspool.capture.guest_wire import BadAnswer, Failed, KernelFound, checked_kernel, state_to_wire
from unspool.errors import UnspoolError
from unspool.targets.guest.machines import Machine
from unspool.targets.guest.opening import open_ram, open_source
from unspool.targets.guest.registers import VcpuState

SECONDS = 20.0
"""How long the search may take; it needs half a second on a quiet host."""
_PREFERRED = ("kvm-hold", "qmp-live", "gdbstub")
"""The gdbstub comes last, because it stops the whole machine."""
_TRIES = 3


def kernel_inside(machine: Machine) -> KernelFound | Failed:
    """The kernel that the machine runs, or why it is not known; never an exception."""
    try:
        return _look(machine)
    except UnspoolError as error:
        return Failed(str(error))
    except (DecoderDied, BadAnswer, OSError) as error:
        return Failed(f"its memory could not be decoded: {error}")


def _look(machine: Machine) -> KernelFound | Failed:
    method = next((name for name in _PREFERRED if name in machine.registers_by), "")
    # QEMU's control sockets serve one client at a time, so the states come first; the memory's place must not be asked for by stopping.
    states = list(_states(machine, method))
    found: KernelFound | Failed = Failed("none of its vCPUs could be read")
    asked = machine if method == "gdbstub" else dataclasses.replace(machine, gdb=None)
    with contextlib.closing(open_ram(asked)) as ram:
        descriptors = [] if ram.fd is None else [ram.fd]
        decoder = Decoder(preparation(ram.extents()), ram, descriptors)
        try:
            for state in states:
                found = checked_kernel(decoder.ask({"op": "discover", "state": state_to_wire(state)}, SECONDS))
                if isinstance(found, KernelFound):
                    break
        finally:
            decoder.close()
    return found


def _states(machine: Machine, method: str) -> Iterator[VcpuState]:
    """A few looks at its vCPUs, idle ones too: each is over before it is used."""
    if not method:
        return
    with contextlib.closing(open_source(machine, method)) as source:
        for _ in range(_TRIES):
            state = any_state(source)
            if isinstance(state, VcpuState):
                yield state
