"""A real guest's memory, damaged on purpose where a look at it reads: every look ends, and none raises."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest.live_guest import looked_at
from guest_machines import GuestMachine

from unspool.capture.guest_user import GuestUsers, UserStack
from unspool.formats.paging import PAGE
from unspool.model.stack import Stack
from unspool.model.verdict import Trust, Verdict
from unspool.targets.guest.kernel import GuestKernel, discover
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.structs import TaskStructs
from unspool.targets.guest.tasks import Tasks
from unspool.unwind.kernel_walk import KernelUnwinder

pytestmark = pytest.mark.live
ROUNDS = 60


class Copy:
    """The guest's memory at one moment; `pages` are those that were read since it was last emptied."""

    def __init__(self, data: bytearray) -> None:
        """Take the bytes."""
        self.data = data
        self.pages: set[int] = set()

    def read(self, address: int, size: int) -> bytes | None:
        """A part of it."""
        if address < 0 or size < 0 or address + size > len(self.data):
            return None
        if size <= PAGE:
            self.pages.add(address // PAGE)
        return bytes(self.data[address : address + size])


def stacks(kernel: GuestKernel, states: list[VcpuState]) -> Iterator[Stack]:
    """Every stack there is: of the vCPUs, and of all tasks that sleep."""
    assert kernel.btf is not None
    structs = TaskStructs.of(kernel.btf)
    kernel.forget()
    tasks, users = Tasks(kernel, structs), GuestUsers(kernel, structs)
    unwinder = KernelUnwinder(kernel, {Trust.ORC, Trust.FRAME_POINTER, Trust.SCAN})
    found = []
    for vcpu, state in enumerate(states):
        task = tasks.on_vcpu(state, vcpu)
        stack = unwinder.unwind(tasks.running(state, task, vcpu)) if state.in_kernel else None
        found += [] if stack is None else [stack.stack]
        found += [] if task is None or not isinstance(user := users.on_vcpu(task, state, stack), UserStack) else [user.stack]
    for task in tasks.all():
        thread = tasks.sleeping(task, snapshot=True)
        if thread is not None:
            stack = unwinder.unwind(thread, exact=False)
            asleep = users.sleeping(task, stack, snapshot=True)
            found += [stack.stack, *([asleep.stack] if isinstance(asleep, UserStack) else [])]
    yield from found


def damage(copy: Copy, pages: list[int], chance: random.Random) -> list[tuple[int, bytes]]:
    """Change some words of those pages: bits, or what stands elsewhere; what was there."""
    was = []
    for _ in range(chance.choice([1, 3, 10, 100, 1000])):
        place = chance.choice(pages) * PAGE + 8 * chance.randrange(PAGE // 8)
        other = chance.choice(pages) * PAGE + 8 * chance.randrange(PAGE // 8)
        word = bytes(copy.data[place : place + 8])
        was.append((place, word))
        flipped = (int.from_bytes(word, "little") ^ 1 << chance.randrange(64)).to_bytes(8, "little")
        copy.data[place : place + 8] = chance.choice([flipped, flipped, bytes(copy.data[other : other + 8]), bytes(8), b"\xff" * 8])
    return was


def test_a_damaged_guest_never_breaks_a_look(guest_machine: GuestMachine) -> None:
    """Tasks, page tables, maple trees, stacks: whatever stands there, every stack has a stop, and those without an end are unreliable."""
    with looked_at(guest_machine) as guest, guest_machine.workload("user"), guest.stopped():
        states = []
        for vcpu in guest.stub.vcpus:
            with guest.stub.hold(vcpu) as state:
                states.append(state)
        shared = next(entry for entry in Path(f"/proc/{guest_machine.pid}/fd").iterdir() if "memfd:" in str(entry.readlink()))
        copy = Copy(bytearray(shared.read_bytes()))
    held = [state for state in states if isinstance(state, VcpuState)]
    kernel = discover(copy, held[0])
    assert isinstance(kernel, GuestKernel)
    copy.pages.clear()
    assert any(stack.judgement.verdict is Verdict.RELIABLE for stack in stacks(kernel, held))
    pages, chance = sorted(copy.pages), random.Random(3)
    for _ in range(ROUNDS):
        was = damage(copy, pages, chance)
        for stack in stacks(kernel, held):
            assert stack.stop.is_end or stack.judgement.verdict is not Verdict.RELIABLE
        for place, word in reversed(was):
            copy.data[place : place + 8] = word
