"""What the decoder of a guest's memory costs for one vCPU: CPU time of its answer, from registers to frames, at moments that are held.

    .venv/bin/python bench/guest_decoder.py PID GDB-SOCKET [MOMENTS]

PID is QEMU's, whose guest has its RAM in a memfd (memory-backend-memfd, share=on) and does something. Every moment is decoded 25 times and
the best counts: the guest's pages are read anew each time, what was learned of code is remembered, as it is while a guest is sampled.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

from unspool.capture.guest_decoder import GuestDecoder
from unspool.capture.guest_wire import state_to_wire
from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.gdbstub import GdbStub
from unspool.targets.guest.layout import Extent
from unspool.targets.guest.ram import Ram
from unspool.targets.guest.registers import VcpuState

TIMES = 25


def main() -> None:
    """Print a line for moments in the kernel, and one for those in user mode."""
    pid, socket, *rest = sys.argv[1:]
    shared = next(entry for entry in Path(f"/proc/{pid}/fd").iterdir() if "memfd:" in str(entry.readlink()))
    fd = os.open(shared, os.O_RDONLY)
    ram = Ram.of_file(fd, [Extent(0, os.fstat(fd).st_size, 0)], "memfd")
    stub = GdbStub.open(Endpoint(path=socket))
    gc.disable()
    try:
        for mode, costs in measured(GuestDecoder(ram), stub, int(rest[0]) if rest else 100).items():
            if costs:
                print(f"{mode:6} {len(costs):4} moments, ms: mean {mean(costs):.3f}, median {median(costs):.3f}, most {max(costs):.3f}")
    finally:
        stub.close()
        ram.close()


def measured(decoder: GuestDecoder, stub: GdbStub, wanted: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time by mode."""
    found: dict[str, list[float]] = {"kernel": [], "user": []}
    ready = False
    while sum(map(len, found.values())) < wanted:
        for vcpu in stub.vcpus:
            with stub.hold(vcpu) as state:
                if not isinstance(state, VcpuState):
                    continue
                request = {"op": "sample", "state": state_to_wire(state), "vcpu": vcpu}
                if not ready:
                    decoder(request | {"op": "discover"})
                    decoder(request | {"op": "warm"})
                    ready = True
                answer, cost = decoded(decoder, request)
                if "failed" not in answer:
                    found["kernel" if answer["in_kernel"] else "user"].append(cost)
    return found


def decoded(decoder: GuestDecoder, request: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The answer, and the best time that it took."""
    best, answer = float("inf"), {}
    for _ in range(TIMES):
        began = time.thread_time_ns()
        answer = decoder(request)
        best = min(best, (time.thread_time_ns() - began) / 1e6)
    assert isinstance(answer, dict)
    return answer, best


if __name__ == "__main__":
    main()
