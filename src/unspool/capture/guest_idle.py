"""Idle vCPUs read all the same: for the one look that finds a kernel, and for the stacks that a user asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from unspool.targets.guest.registers import RefusalKind, VcpuSource, VcpuState


@contextmanager
def idle_too(source: VcpuSource) -> Iterator[None]:
    """Within the block holds take idle vCPUs, too: it wakes each of them for a moment."""
    before = source.skips_idle
    source.skips_idle = False
    try:
        yield
    finally:
        source.skips_idle = before


def any_state(source: VcpuSource) -> VcpuState | str | None:
    """The state of a vCPU, of a busy one if there is; None when there is none now, the reason when there never will be."""
    for vcpu in source.vcpus:
        with source.hold(vcpu) as state:
            if isinstance(state, VcpuState):
                return state
            if state.kind is RefusalKind.GONE:
                return state.reason
    with idle_too(source):
        for vcpu in source.vcpus:
            with source.hold(vcpu) as state:
                if isinstance(state, VcpuState):
                    return state
    return None
