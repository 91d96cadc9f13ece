#!/usr/bin/env python3
"""Single-step a Debian guest through its kernel, and hold the kernel walk against the truth before every instruction."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from guest_machines import SCRIPTS, STABLE, GuestMachine, boot, fetched, initramfs_of
from oracle.kernel_oracle import Oracle, attached
from oracle.kernel_plan import KERNELS, MACHINES, SETUP, TIDY, WORKLOADS, Cell, cells
from oracle.kernel_report import Row, document, line
from oracle.kernel_score import Tally, Told
from oracle.kernel_stepper import Stepper
from target_programs import Programs

from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.qmp import Qmp

_SEGMENTS = (1000, 2000, 4000, 8000)
_SEED = 1
_WANDER = 0.03
_INTERRUPT_EVERY = 1000
# An instruction is 256 ns of the guest's time: the clock's interrupt is done before the next one comes, however slow the steps are.
_CLOCK = ("-icount", "shift=8,sleep=off")


@dataclass(slots=True)
class Options:
    """What the command line asks for."""

    steps: int
    seconds: float
    per_pc: int


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that can be booted: its name and folder, its initramfs, and the QEMU that runs it."""

    name: str
    folder: Path
    initramfs: Path
    qemu: tuple[str, ...]


def main() -> int:
    """Run the machines with the workloads; 1 when a stack was called reliable that lacked a function."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60_000, help="steps for each kernel, machine and workload")
    parser.add_argument("--seconds", type=float, default=8.0, help="and about so long at most")
    parser.add_argument("-k", "--per-pc", type=int, default=2, help="states for each instruction, machine and workload")
    parser.add_argument("--kernels", default=",".join(KERNELS), help="comma separated")
    parser.add_argument("--every", type=int, default=4, help="of the combinations of kernel, machine and workload every so many")
    parser.add_argument("--only", default="", help="those whose 'kernel: machine: workload' this regular expression finds")
    parser.add_argument("--write", type=Path, help="the page to write")
    arguments = parser.parse_args()
    options = Options(arguments.steps, arguments.seconds, arguments.per_pc)
    chosen = [cell for cell in cells(arguments.kernels.split(","), arguments.every) if re.search(arguments.only, ": ".join(cell))]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for (kernel, machine), group in groupby(chosen, key=lambda cell: cell[:2]):
            for row in scores(prepared(kernel, Path(scratch)), machine, [cell.workload for cell in group], options):
                rows.append(row)
                print(line(row), flush=True)
                if arguments.write:
                    arguments.write.write_text(document(rows, options.per_pc))
    return int(any(row.tally.false_reliable for row in rows))


@cache
def prepared(name: str, scratch: Path) -> Kernel:
    """The kernel of that name, fetched when it is not there."""
    suite = KERNELS[name]
    folder = fetched(STABLE.parent / name, *([suite] if suite else []))
    initramfs = initramfs_of(folder, Programs(scratch), scratch / f"{name}.initramfs", "guest_work")
    return Kernel(name, folder, initramfs, newer_qemu() if suite else ("qemu-system-x86_64",))


def newer_qemu() -> tuple[str, ...]:
    """The QEMU of the backports: Linux 6.12 does not run reliably under that of Debian 12."""
    folder = STABLE.parent / "qemu"
    subprocess.run(["bash", SCRIPTS / "fetch-qemu.sh", folder], check=True, timeout=600)
    return (str(folder / "qemu"),)


def scores(kernel: Kernel, machine: str, workloads: list[str], options: Options) -> Iterator[Row]:
    """Boot that guest and step it through one workload after the other; one that fails is told of, and the next has a new guest."""
    wanted = replace(MACHINES[machine], folder=kernel.folder, qemu=(*kernel.qemu, *_CLOCK))
    guest: GuestMachine | None = None
    try:
        for workload in workloads:
            try:
                if guest is None:
                    guest = boot(kernel.initramfs, wanted)
                    _hurry(guest)
                with busy(guest, workload):
                    row = score(guest, Cell(kernel.name, machine, workload), options)
            except (OSError, EOFError, AssertionError, ValueError) as error:
                row = Row(
                    kernel.name, machine, workload, "", 0.0, Tally(), Counter(), Counter(), failure=f"{type(error).__name__}: {error}"
                )
                if guest is not None:
                    guest.kill()
                guest = None
            yield row
    finally:
        if guest is not None:
            guest.kill()


@contextlib.contextmanager
def busy(guest: GuestMachine, workload: str) -> Iterator[None]:
    """Keep the guest busy within the block, and leave it as it was."""
    guest.shell(SETUP.get(workload, "true"), patience=120)
    script = WORKLOADS[workload].replace("'", "'\\''")
    leader = int(guest.shell(f"setsid sh -c '{script}' >/dev/null 2>&1 </dev/null & echo $!"))
    yield
    guest.shell(f"kill -9 -{leader}; {TIDY.get(workload, 'true')}", patience=120)


def score(guest: GuestMachine, cell: Cell, options: Options) -> Row:
    """Step the busy guest."""
    begin = time.monotonic()
    with attached(guest) as oracle, contextlib.closing(Qmp.open(Endpoint(path=str(guest.qmp)))) as qmp:
        oracle.per_pc = options.per_pc
        nmi = partial(qmp.execute, "inject-nmi") if cell.workload == "nmi" else lambda: None
        stepper = Stepper(oracle.stub, oracle.kernel, interrupt_every=_INTERRUPT_EVERY, seed=_SEED, interrupt=nmi)
        tally, events, anomalies = follow(oracle, stepper, options, begin + options.seconds)
        shown = {what: [_shown(oracle, told) for told in states] for what, states in tally.noted.items()}
        return Row(*cell, oracle.kernel.release, time.monotonic() - begin, tally, events, anomalies, shown)


def follow(oracle: Oracle, stepper: Stepper, options: Options, until: float) -> tuple[Tally, Counter[str], Counter[str]]:
    """Traces of some thousand steps from different moments."""
    total, events, anomalies = Tally(), Counter[str](), Counter[str]()
    while total.steps < options.steps and time.monotonic() < until:
        stepper.wander(_WANDER)
        tally, tracker = oracle.trace(stepper, stepper.random.choice(_SEGMENTS), until + options.seconds / 2)
        total.plus(tally)
        events += tracker.events
        anomalies += tracker.anomalies
    return total, events, anomalies


def _shown(oracle: Oracle, told: Told) -> tuple[str, str]:
    place = oracle.place(told.state.pc)
    truth = " < ".join(oracle.place(entry.ra) for entry in told.state.truth())
    said = " < ".join(oracle.place(ip) for ip in told.ips[1:])
    return place, f"{place}: true {truth or 'nothing'}; said {said or 'nothing'} ({told.reason.name.lower().replace('_', '-')})"


def _hurry(guest: GuestMachine) -> None:
    """The guest and we wait for each other at every step: neither must wait for other programs as well."""
    for thread in Path(f"/proc/{guest.pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), 0)


if __name__ == "__main__":
    sys.exit(main())
