"""What the kernel oracle runs, and the page it writes of it."""

from __future__ import annotations

from collections import Counter

from oracle.kernel_plan import KERNELS, MACHINES, SEEN_MACHINES, SETUP, TIDY, UNSEEN, WORKLOADS, cells
from oracle.kernel_report import Row, document
from oracle.kernel_score import Tally

EVERY = 4


def test_every_fourth_combination_leaves_no_machine_and_no_workload_out() -> None:
    chosen = list(cells(list(KERNELS), EVERY))
    machines = Counter(cell[:2] for cell in chosen)
    assert len(KERNELS) * len(MACHINES) == len(machines)
    assert set(machines.values()) <= {len(WORKLOADS) // EVERY, len(WORKLOADS) // EVERY + 1}
    workloads = Counter((cell.kernel, cell.workload) for cell in chosen)
    assert len(KERNELS) * len(WORKLOADS) == len(workloads)
    assert len(KERNELS) * len(MACHINES) * len(WORKLOADS) == len(list(cells(list(KERNELS), 1)))


def test_what_is_set_up_and_tidied_are_workloads() -> None:
    assert set(SETUP) < set(TIDY) < set(WORKLOADS)
    assert set(UNSEEN) < set(WORKLOADS)
    assert set(SEEN_MACHINES) < set(MACHINES)


def row(kernel: str, machine: str, workload: str, tally: Tally, failure: str = "") -> Row:
    release = {"stable": "6.1.0-1", "sid": "7.2.0-1"}[kernel]
    return Row(kernel, machine, workload, "" if failure else release, 1.0, tally, Counter(), Counter(), failure=failure)


def test_the_page_counts_a_row_under_each_thing_that_is_new_in_it() -> None:
    old = row("stable", "mitigations on", "files", Tally(steps=10, states=5, exact=5, reliable=5))
    new = row("sid", "AMD Zen 2", "bpf", Tally(steps=20, states=8, exact=8, reliable=4, false_reliable=1))
    lost = row("sid", "AMD Zen 3", "bpf", Tally(), "EOFError: the guest ended")
    lines = document([old, new, lost], 2).splitlines()
    assert "| what the rules were made on | 10 | 5 | 100.00 % | 0 | 100.00 % |" in lines
    for name in ("kernel 7.2.0-1", "machine: AMD Zen 2", "workload: bpf"):
        assert f"| {name} | 20 | 8 | 100.00 % | 1 | 50.00 % |" in lines
    assert "| **false reliable** | **1** |" in lines
    assert "Not measured: sid, AMD Zen 3, bpf: EOFError: the guest ended" in lines
