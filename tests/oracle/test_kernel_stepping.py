"""A real guest, stepped through its kernel: no stack that is called reliable lacks a function."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from guest_machines import GuestMachine
from oracle.kernel_oracle import attached
from oracle.kernel_stepper import Stepper

pytestmark = pytest.mark.live


def test_no_reliable_stack_lacks_a_function(boot_guest: Callable[..., GuestMachine]) -> None:
    """Some hundred instructions after one another, at each of which the walk was asked for the stack; then some of another moment."""
    machine = boot_guest(cpus=1)
    with machine.workload("kernel"), attached(machine) as oracle:
        stepper = Stepper(oracle.stub, oracle.kernel, interrupt_every=200)
        for _ in range(2):
            stepper.wander(0.05, tries=3)
            tally, _ = oracle.trace(stepper, 300)
            assert 0 == tally.false_reliable, [oracle.place(told.state.pc) for told in tally.noted["FALSE RELIABLE"]]
            assert tally.states > 0
            assert tally.exact > 0
