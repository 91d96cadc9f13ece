"""`unspool record --guest` on a real guest: whole stacks with plausible names, on the right vCPU, of the right task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from guest_machines import GuestMachine
from web.live import names, until
from web.serving import running

from unspool.cli.main import main
from unspool.store.reader import open_recording

# A machine that is busy with other tests makes each hold long, and the default budget would leave few samples.
_QUICK = ("-F", "199", "--guest-budget", "60")

_SAMPLES = """
    SELECT s.vcpu, p.pid, st.ending, st.verdict, st.reason, st.kernel_frames, st.frames
    FROM samples s JOIN processes p USING (process) JOIN stacks st USING (stack) WHERE p.guest IS NOT NULL
"""

ENTRIES = ("entry_SYSCALL_64", "asm_")
"""Where deep kernel stacks begin. (A stack of one or two frames may be within the entry code itself.)"""


def record(machine: GuestMachine, output: Path, *options: str) -> None:
    assert 0 == main(["record", "--guest", machine.name, "-o", str(output), *_QUICK, *options])


def samples(path: Path) -> list[dict[str, Any]]:
    """The guest's samples; `functions` are the outermost names of their frames, innermost frame first."""
    keys = ("vcpu", "pid", "ending", "verdict", "reason", "kernel", "functions")
    with open_recording(path) as recording:
        names = dict(recording.rows("SELECT frame, function FROM symbols ORDER BY depth"))
        rows = recording.rows(_SAMPLES)
    return [dict(zip(keys, (*row[:-1], [names.get(frame, "") for frame in row[-1]]), strict=True)) for row in rows]


@pytest.mark.live
def test_stacks_are_whole_from_the_kernel_to_start(guest_machine: GuestMachine, tmp_path: Path) -> None:
    """System calls of a program without frame pointers: kernel frames, then user frames, nine of ten whole, all names out of the guest."""
    path = tmp_path / "calls.unspool"
    with guest_machine.workload("calls") as (pid,):
        record(guest_machine, path, "-d", "3")
    found = samples(path)
    ours = [sample for sample in found if sample["pid"] == pid]
    assert len(ours) >= 10, [(sample["pid"], sample["vcpu"], sample["functions"][:3]) for sample in found]
    assert len([sample for sample in found if sample["ending"] == "whole"]) >= 0.9 * len(found)
    both = [sample for sample in ours if 0 < sample["kernel"] < len(sample["functions"]) and sample["ending"] == "whole"]
    assert both
    for sample in both:
        assert "_start" == sample["functions"][-1]
        assert {"main", "one_turn"} <= set(sample["functions"][sample["kernel"] :])
        assert sample["kernel"] < 4 or sample["functions"][sample["kernel"] - 1].startswith(ENTRIES), sample["functions"]
    # A busy machine may not get to read a stack before its vCPU must be let go.
    assert {"reliable"} >= {sample["verdict"] for sample in both if sample["reason"] != "guest-running"}
    with open_recording(path) as recording:
        ((release, generation, by),) = recording.rows("SELECT kernel_release, generation, registers_by FROM guests")
    assert (guest_machine.release, 1, "gdbstub") == (release, generation, by)


@pytest.mark.live
def test_a_pinned_program_is_on_its_vcpu(guest_machine: GuestMachine, tmp_path: Path) -> None:
    """Two programs pinned to a vCPU each: no sample shows one of them on the other's."""
    path = tmp_path / "dd.unspool"
    with guest_machine.workload("dd") as pids:
        where = {pid: int(guest_machine.shell(f"cat /proc/{pid}/stat").rpartition(")")[2].split()[36]) for pid in pids}
        record(guest_machine, path, "-d", "2")
    seen = {(sample["pid"], sample["vcpu"]) for sample in samples(path) if sample["pid"] in where}
    assert {0, 1} == set(where.values())
    assert set(where.items()) == seen


@pytest.mark.live
def test_registers_that_run_on_are_never_reliable(guest_machine: GuestMachine, tmp_path: Path) -> None:
    """Without a pause there are more samples, and no promise about any of them."""
    path = tmp_path / "racy.unspool"
    with guest_machine.workload("user") as (pid,):
        assert 0 == main(["record", "--guest", guest_machine.name, "-o", str(path), "--no-pause", "-d", "2"])
    ours = [sample for sample in samples(path) if sample["pid"] == pid]
    assert ours
    assert {"unreliable"} == {sample["verdict"] for sample in ours}
    # The program does nothing but spin, so that what was read of it is right all the same.
    assert any("spin_inner" in sample["functions"] for sample in ours)


@pytest.mark.live
def test_a_scan_is_marked_and_never_reliable(guest_machine: GuestMachine, tmp_path: Path) -> None:
    """The forerunner's method: what it found is said to be a guess, frame by frame, and the recording says how it was made."""
    path = tmp_path / "scan.unspool"
    with guest_machine.workload("calls"):
        record(guest_machine, path, "--guest-method", "scan", "-d", "2")
    with open_recording(path) as recording:
        trusts = {trust for (trust,) in recording.rows("SELECT DISTINCT trust FROM frames WHERE space = 'kernel'")}
        kernel = recording.rows("SELECT verdict, reason, kernel_ending FROM stacks WHERE kernel_frames > 1")
        assert [("scan",)] == list(recording.rows("SELECT value FROM machine WHERE key = 'guest-method'"))
    assert "scan" in trusts
    assert kernel
    assert {"unreliable"} == {verdict for verdict, _, _ in kernel}
    # The way out of a thunk is proved by its code; the guess begins behind it.
    assert {"heuristic-used"} <= {reason for _, reason, _ in kernel} <= {"heuristic-used", "no-unwind-info", "guest-running"}
    assert "whole" not in {ending for _, _, ending in kernel}


@pytest.mark.live
def test_the_live_page_has_names_of_the_guests_programs(guest_machine: GuestMachine, tmp_path: Path) -> None:
    """While it is recorded: the kernel's functions, and those of a program whose file comes out of the guest's memory."""
    options = ("record", "--live", "--no-open", "-o", str(tmp_path / "a.unspool"), *_QUICK, "--guest", guest_machine.name)
    with guest_machine.workload("calls"), running(*options) as (server, _):
        until(lambda: {"main", "one_turn", "do_syscall_64"} <= names(server))
        assert server.view("live")["sampling"]


@pytest.mark.live
def test_host_and_guests_are_recorded_together(guest_machine: GuestMachine, tmp_path: Path) -> None:
    path = tmp_path / "both.unspool"
    with guest_machine.workload("user"):
        assert 0 == main(["record", "-a", "--guest", str(guest_machine.pid), "-o", str(path), *_QUICK, "-d", "2"])
    with open_recording(path) as recording:
        rows = recording.rows("SELECT p.guest IS NULL, count(*) FROM samples JOIN processes p USING (process) GROUP BY 1")
    assert {True, False} == {host for host, count in rows if count}
