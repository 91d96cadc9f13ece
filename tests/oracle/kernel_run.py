#!/usr/bin/env python3
"""Single-step a Debian guest through its kernel, and hold the kernel walk against the truth before every instruction."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from guest_machines import STABLE, GuestMachine, Wanted, boot, fetched, initramfs_of
from oracle.kernel_oracle import Oracle, attached
from oracle.kernel_report import Row, document, line
from oracle.kernel_score import Tally, Told
from oracle.kernel_stepper import Stepper
from target_programs import Programs

from unspool.targets.guest.channel import Endpoint
from unspool.targets.guest.qmp import Qmp

WORKLOADS = {
    "files": "while :; do find /proc /sys -type f; cat /proc/kallsyms /proc/*/maps; done",
    "processes": "while :; do ls -l /bin | cat; sh -c 'echo $(date)'; done",
    "pipes": "dd if=/dev/zero bs=1 | dd bs=1 of=/dev/null",
    "disk": "while :; do dd if=/dev/zero of=/dev/vda bs=16k count=16 conv=fsync; dd if=/dev/vda of=/dev/null bs=4k count=32; done",
    "sleepers": "for i in 1 2 3 4; do (while :; do usleep 300$i; done) & done; wait",
    "nmi": "echo 1 >/proc/sys/kernel/printk; while :; do cat /proc/uptime; done",
    "calls": "exec dd if=/dev/zero of=/dev/null bs=1",
    "signals": "trap : USR1; while :; do kill -USR1 $$; /bin/guest_calls & kill -9 $!; wait; done",
}
MACHINES = {
    "mitigations on": Wanted(cpus=1),
    "mitigations off": Wanted(cpus=1, append="mitigations=off"),
    "page table isolation": Wanted(cpus=1, cpu="Nehalem", append="pti=on"),
    "every feature": Wanted(cpus=1, cpu="max"),
}
_SEGMENTS = (1000, 2000, 4000, 8000)
_SEED = 1
_WANDER = 0.03
_INTERRUPT_EVERY = 1000


@dataclass(slots=True)
class Options:
    """What the command line asks for."""

    steps: int
    seconds: float
    per_pc: int
    only: str
    folder: Path = field(default_factory=lambda: STABLE)


def main() -> int:
    """Run all machines with all workloads; 1 when a stack was called reliable that lacked a function."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60_000, help="steps for each machine and workload")
    parser.add_argument("--seconds", type=float, default=30.0, help="and about so long at most")
    parser.add_argument("-k", "--per-pc", type=int, default=2, help="states for each instruction, machine and workload")
    parser.add_argument("--only", default="", help="machines and workloads ('machine: workload') whose name holds the text")
    parser.add_argument("--write", type=Path, help="the page to write")
    arguments = parser.parse_args()
    options = Options(arguments.steps, arguments.seconds, arguments.per_pc, arguments.only)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        initramfs = initramfs_of(fetched(options.folder), Programs(Path(scratch)), Path(scratch) / "initramfs")
        for machine, workload in wanted(options):
            rows.append(score(machine, workload, initramfs, options))
            print(line(rows[-1]), flush=True)
            if arguments.write:
                arguments.write.write_text(document(rows, options.per_pc))
    return int(any(row.tally.false_reliable for row in rows))


def wanted(options: Options) -> Iterator[tuple[str, str]]:
    """The machines and workloads."""
    return ((machine, work) for machine in MACHINES for work in WORKLOADS if options.only in f"{machine}: {work}")


def score(machine: str, workload: str, initramfs: Path, options: Options) -> Row:
    """Boot that guest, keep it busy, step it."""
    guest = boot(initramfs, MACHINES[machine])
    try:
        _hurry(guest)
        script = WORKLOADS[workload].replace("'", "'\\''")
        guest.shell(f"setsid sh -c '{script}' >/dev/null 2>&1 </dev/null &")
        begin = time.monotonic()
        with attached(guest) as oracle, contextlib.closing(Qmp.open(Endpoint(path=str(guest.qmp)))) as qmp:
            oracle.per_pc = options.per_pc
            nmi = partial(qmp.execute, "inject-nmi") if workload == "nmi" else lambda: None
            stepper = Stepper(oracle.stub, oracle.kernel, interrupt_every=_INTERRUPT_EVERY, seed=_SEED, interrupt=nmi)
            tally, events, anomalies = follow(oracle, stepper, options, begin + options.seconds)
            shown = {what: [_shown(oracle, told) for told in states] for what, states in tally.noted.items()}
            return Row(machine, workload, oracle.kernel.release, time.monotonic() - begin, tally, events, anomalies, shown)
    finally:
        guest.kill()


def follow(oracle: Oracle, stepper: Stepper, options: Options, until: float) -> tuple[Tally, Counter[str], Counter[str]]:
    """Traces of some thousand steps from different moments."""
    total, events, anomalies = Tally(), Counter[str](), Counter[str]()
    while total.steps < options.steps and time.monotonic() < until:
        stepper.wander(_WANDER)
        tally, tracker = oracle.trace(stepper, stepper.random.choice(_SEGMENTS))
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
