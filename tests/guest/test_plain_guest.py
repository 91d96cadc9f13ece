"""A guest for which nothing was prepared: RAM that is not shared, and no gdb socket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from guest_machines import GuestMachine

from unspool.cli.main import main
from unspool.model.verdict import Verdict
from unspool.session.guest_stacks import stacks_of_guest
from unspool.session.guests import GuestPlan
from unspool.store.reader import open_recording


@pytest.mark.live
def test_an_unprepared_guest_is_read_out_of_its_process(boot_guest: Callable[..., GuestMachine], tmp_path: Path) -> None:
    """QEMU is given a gdb socket through QMP; memory is read by the parent of the decoder, which has no right to."""
    machine = boot_guest(shared=False, gdb=False, cpus=1)
    found = stacks_of_guest(GuestPlan(machine.name), 2)
    assert machine.release == found.kernel.release
    ((thread,),) = [process.threads for process in found.processes]
    assert ("kthreadd", Verdict.RELIABLE) == (thread.name, thread.stack.judgement.verdict)
    path = tmp_path / "plain.unspool"
    with machine.workload("user"):
        assert 0 == main(["record", "--guest", str(machine.pid), "-d", "2", "--guest-budget", "60", "-o", str(path)])
    with open_recording(path) as recording:
        assert [("gdbstub", "process")] == recording.rows("SELECT registers_by, memory_by FROM guests")
        ((samples, whole),) = recording.rows(
            "SELECT count(*), count(*) FILTER (ending = 'whole') FROM samples JOIN stacks USING (stack) WHERE ending != 'none'"
        )
    assert samples
    assert whole >= 0.9 * samples
