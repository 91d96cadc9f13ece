"""The guests of the tests themselves: they boot, answer, and can be kept busy."""

from __future__ import annotations

import pytest
from guest_machines import GuestMachine
from target_programs import wait_until


@pytest.mark.live
def test_a_guest_answers_in_its_shell(guest_machine: GuestMachine) -> None:
    """The shell's text is what the command printed, several lines and all."""
    assert "a\nb\n" == guest_machine.shell("echo a; echo b")
    assert guest_machine.release in guest_machine.shell("cat /proc/version")


@pytest.mark.live
def test_a_workload_runs_within_its_block(guest_machine: GuestMachine) -> None:
    """Pinned programs are there while the block runs, each on its vCPU, and gone afterwards."""
    with guest_machine.workload("dd") as pids:
        assert ["1", "2"] == [guest_machine.shell(f"taskset -p {pid}").split()[-1] for pid in pids]
    # A killed process may take a moment to go.
    wait_until(lambda: not guest_machine.shell("pidof dd").strip(), "dd to end")
