"""What the kernel oracle steps through: kernels, machines, workloads, and which of them the rules of the walk were not made on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from guest_machines import Wanted

KERNELS = {"stable": "", "trixie": "trixie", "sid": "sid"}
"""Kernels by the folder that keeps them: the suite they come from, "" for that of this machine. The others get a newer QEMU."""

MACHINES = {
    "mitigations on": Wanted(cpus=1),
    "mitigations off": Wanted(cpus=1, append="mitigations=off"),
    "page table isolation": Wanted(cpus=1, cpu="Nehalem", append="pti=on"),
    "every feature": Wanted(cpus=1, cpu="max"),
    # Untrained return thunks; safe returns (srso) in its two kinds; return thunks that count calls, from Linux 6.2 on.
    "AMD Zen 2": Wanted(cpus=1, cpu="EPYC-Rome"),
    "AMD Zen 3": Wanted(cpus=1, cpu="EPYC-Milan"),
    "call depth tracking": Wanted(cpus=1, cpu="Skylake-Server-noTSX-IBRS,-spec-ctrl", append="spectre_v2=retpoline retbleed=stuff"),
}

_SEEN = {
    "files": "while :; do find /proc /sys -type f; cat /proc/kallsyms /proc/*/maps; done",
    "processes": "while :; do ls -l /bin | cat; sh -c 'echo $(date)'; done",
    "pipes": "dd if=/dev/zero bs=1 | dd bs=1 of=/dev/null",
    "disk": "while :; do dd if=/dev/zero of=/dev/vda bs=16k count=16 conv=fsync; dd if=/dev/vda of=/dev/null bs=4k count=32; done",
    "sleepers": "for i in 1 2 3 4; do (while :; do usleep 300$i; done) & done; wait",
    "nmi": "echo 1 >/proc/sys/kernel/printk; while :; do cat /proc/uptime; done",
    "calls": "exec dd if=/dev/zero of=/dev/null bs=1",
    "signals": "trap : USR1; while :; do kill -USR1 $$; /bin/guest_calls & kill -9 $!; wait; done",
}
# On each instruction of some functions: what lies between two instructions is refused.
_PROBES = (
    "for f in vfs_read ksys_read vfs_write; do i=4; while [ $i -lt 90 ]; do echo p:p$f$i $f+$i >>kprobe_events; i=$((i+1)); done; done"
    " 2>/dev/null; echo 1 >events/kprobes/enable"
)
_FILTER = "echo 'vfs_* ksys_* *_zero *_null' >set_ftrace_filter; echo "
_RETURNS = "for f in vfs_read ksys_read read_zero vfs_write; do echo r:r$f $f >>kprobe_events; done; echo 1 >events/kprobes/enable"
_TRACED = {
    "function tracer": _FILTER + "function >current_tracer",
    "graph tracer": _FILTER + "function_graph >current_tracer",
    "return probes": _RETURNS,
    "optimised kprobes": _PROBES,
    "kprobes": "echo 0 >/proc/sys/debug/kprobes-optimization; " + _PROBES,
}
UNSEEN = {
    "faults": "exec /bin/guest_work faults",
    "threads": "exec /bin/guest_work threads",
    "sockets": "busybox ip link set lo up; exec /bin/guest_work sockets",
    "ptrace": "exec /bin/guest_work ptrace",
    "bpf": "exec /bin/guest_work bpf",
    "io_uring": "exec /bin/guest_work uring",
    "perf events": "exec /bin/guest_work perf",
    "modules": "while :; do busybox rmmod virtio_blk; insmod /virtio_blk.ko; done",
    **dict.fromkeys(_TRACED, _SEEN["calls"]),
}
"""Workloads that no rule of the walk was made on when they were first run (docs/oracle.md has that score)."""
WORKLOADS = _SEEN | UNSEEN
_CD = "mount -t tracefs t /sys/kernel/tracing 2>/dev/null; cd /sys/kernel/tracing; "
SETUP = {name: _CD + text for name, text in _TRACED.items()}
"""What is done before a workload begins."""
_STOP = "echo 0 >events/kprobes/enable; echo >kprobe_events; echo nop >current_tracer; echo 1 >/proc/sys/debug/kprobes-optimization"
TIDY = {"modules": "insmod /virtio_blk.ko"} | dict.fromkeys(_TRACED, _CD + _STOP)
"""What is done after it has ended."""

SEEN_KERNEL, SEEN_MACHINES = "stable", ("mitigations on", "mitigations off", "page table isolation", "every feature")
"""The kernel and the machines that the rules were made on, with the other workloads."""


class Cell(NamedTuple):
    """One thing to run."""

    kernel: str
    machine: str
    workload: str


def cells(kernels: list[str], every: int) -> Iterator[Cell]:
    """All combinations, or every so many: so chosen that each pair of kernel and machine has as many workloads."""
    for first, kernel in enumerate(kernels):
        for second, machine in enumerate(MACHINES):
            for third, workload in enumerate(WORKLOADS):
                if (first + second + third) % every == 0:
                    yield Cell(kernel, machine, workload)
