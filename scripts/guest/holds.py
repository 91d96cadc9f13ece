"""What one hold costs by each back end: get a vCPU's registers and let go, without reading a stack. A part of `make guests`."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from guest_machines import GuestMachine, boot, fetched, initramfs_of  # noqa: E402
from target_programs import Programs  # noqa: E402

from unspool.capture.guest_priority import at_once  # noqa: E402
from unspool.targets.guest.machines import Machine, machine_of  # noqa: E402
from unspool.targets.guest.opening import open_source  # noqa: E402
from unspool.targets.guest.registers import VcpuSource, VcpuState  # noqa: E402

ROUNDS, HOLDS = 9, 300
TOY = ROOT / "tests" / "guest" / "toy_kvm.py"
EMULATED = ("gdbstub", "qmp-live", "qmp-stop", "tcg-state")


def holds(machine: GuestMachine) -> Iterator[str]:
    """A table of all back ends; the guest is idle and emulated, and `kvm-hold` is measured on a toy machine that runs all the time."""
    yield f"Get the registers of a vCPU and let go, without reading a stack: {ROUNDS} rounds of {HOLDS} holds, a millisecond apart."
    yield "Of an idle guest of two vCPUs; `kvm-hold` of a toy machine under KVM that counts all the time. As in a recording, Unspool goes"
    yield "before other programs meanwhile; QEMU and the toy do not."
    yield ""
    yield "| back end | median, best round | median, middle round | 95 of 100, best round |"
    yield "|---|---|---|---|"
    with contextlib.suppress(OSError), toy() as small:
        yield measured(small, "kvm-hold")
    found = machine_of(machine.pid)
    assert found is not None
    for method in EMULATED:
        yield measured(found, method)


def measured(machine: Machine, method: str) -> str:
    """A row of the table."""
    with contextlib.closing(open_source(machine, method)) as source:
        # An idle vCPU would not be touched, which costs nothing.
        source.skips_idle = False
        rounds = [round_of(source) for _ in range(ROUNDS)]
    medians = sorted(statistics.median(one) for one in rounds)
    slow = min(statistics.quantiles(one, n=20)[-1] for one in rounds)
    return f"| {method} | {medians[0]:.0f} us | {medians[ROUNDS // 2]:.0f} us | {slow:.0f} us |"


def round_of(source: VcpuSource) -> list[float]:
    """Microseconds of each hold that worked."""
    found: list[float] = []
    for _ in range(10 * HOLDS):
        time.sleep(0.001)
        with at_once(0):
            began = time.perf_counter()
            with source.hold(0) as state:
                worked = isinstance(state, VcpuState)
            cost = time.perf_counter() - began
        # A vCPU that has not run yet has no registers.
        if worked:
            found.append(cost * 1e6)
        if len(found) == HOLDS:
            return found
    raise RuntimeError(f"{source.name}: most holds were refused")


@contextlib.contextmanager
def toy() -> Iterator[Machine]:
    """The toy machine; OSError where there is no KVM."""
    os.close(os.open("/dev/kvm", os.O_RDWR))
    with subprocess.Popen([sys.executable, str(TOY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            found = machine_of(process.pid)
            assert found is not None
            yield found
        finally:
            process.kill()


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="unspool-holds-") as folder:
        kernel = fetched(ROOT / ".cache" / "guests" / "stable")
        machine = boot(initramfs_of(kernel, Programs(Path(folder)), Path(folder) / "initramfs"))
        try:
            print(f"load average {os.getloadavg()[0]:.1f}", *holds(machine), sep="\n")
        finally:
            machine.kill()


if __name__ == "__main__":
    main()
