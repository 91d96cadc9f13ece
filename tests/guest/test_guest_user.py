"""The walk of a guest's user threads: with whose registers, with which mappings, and what a moving guest does to the verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from guest.fake_kernel import MEMORY_STRUCTS, TASK_STRUCTS, THREAD_SIZE
from guest.test_user import CODE, STACK, Scene, on_cpu, saved, scene

from unspool.capture.guest_user import GuestUsers, UserStack
from unspool.formats.btf import Btf
from unspool.formats.paging import PAGE
from unspool.model.stack import Frame, Stack
from unspool.model.verdict import Judgement, Stop, Trust, Verdict
from unspool.targets.guest.kernel import GuestKernel
from unspool.targets.guest.structs import MemoryStructs
from unspool.unwind.kernel_walk import KernelStack

WHOLE = Stack((), Stop.END_KERNEL_ENTRY, Judgement(Verdict.RELIABLE))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> tuple[Scene, GuestUsers]:
    """The process of the other tests, and what walks its threads."""
    there = scene()
    there.kernel.btf = cast("Btf", object())
    monkeypatch.setattr(MemoryStructs, "of", lambda _: MEMORY_STRUCTS)
    return there, GuestUsers(cast("GuestKernel", there.kernel), TASK_STRUCTS)


def walked(found: UserStack | Stop) -> UserStack:
    assert isinstance(found, UserStack)
    return found


def test_in_user_mode_the_registers_are_the_vcpus(here: tuple[Scene, GuestUsers]) -> None:
    there, users = here
    found = walked(users.on_vcpu(there.task, on_cpu(), None))
    assert [(CODE + 4, STACK + 8)] == [(frame.ip, frame.sp) for frame in found.stack.frames]
    assert "/prog" == found.process.space.mappings[0].path


def test_in_the_kernel_they_are_where_its_stack_leads_to(here: tuple[Scene, GuestUsers]) -> None:
    there, users = here
    place = there.kernel.take(168)
    there.kernel.put(place, *saved(CODE + 8))
    full = walked(users.on_vcpu(there.task, on_cpu(), KernelStack(WHOLE, place)))
    assert CODE + 8 == full.stack.frames[0].ip
    there.kernel.put(place, *saved(CODE + 12)[16:])
    partial = walked(users.sleeping(there.task, KernelStack(WHOLE, place, partial=True, values={6: 1}), snapshot=True))
    assert CODE + 12 == partial.stack.frames[0].ip


def test_where_it_leads_nowhere_they_are_at_the_base_of_the_stack(here: tuple[Scene, GuestUsers]) -> None:
    there, users = here
    assert Stop.NO_USER_STACK is users.sleeping(there.task, KernelStack(WHOLE), snapshot=True)
    there.kernel.put(there.task.stack + THREAD_SIZE - 168, *saved(CODE + 16))
    found = walked(users.sleeping(there.task, KernelStack(WHOLE), snapshot=True))
    assert CODE + 16 == found.stack.frames[0].ip
    assert Stop.NO_USER_STACK is users.sleeping(replace(there.task, kernel_thread=True), KernelStack(WHOLE), snapshot=True)


def test_in_entry_code_old_registers_are_not_taken_for_new_ones(here: tuple[Scene, GuestUsers]) -> None:
    there, users = here
    there.kernel.put(there.task.stack + THREAD_SIZE - 168, *saved(CODE + 16))
    frame = Frame(there.kernel.base, 0, Trust.REGISTERS, exact=True)
    for frames in ((frame,), (frame, frame)):
        kernel = KernelStack(replace(WHOLE, frames=frames), in_entry=True)
        assert Stop.REG_UNAVAILABLE is users.on_vcpu(there.task, replace(on_cpu(), cpl=0), kernel)


def test_a_kernel_stack_that_is_cut_leads_to_no_registers(here: tuple[Scene, GuestUsers]) -> None:
    """It may be cut in the code that saves them. A task that sleeps has long saved its own."""
    there, users = here
    there.kernel.put(there.task.stack + THREAD_SIZE - 168, *saved(CODE + 16))
    cut = KernelStack(replace(WHOLE, stop=Stop.NO_UNWIND_INFO))
    assert Stop.REG_UNAVAILABLE is users.on_vcpu(there.task, replace(on_cpu(), cpl=0), cut)
    assert CODE + 16 == walked(users.sleeping(there.task, cut, snapshot=True)).stack.frames[0].ip


def test_a_guest_that_runs_on_has_a_reason_of_its_own(here: tuple[Scene, GuestUsers]) -> None:
    there, users = here
    judgement = walked(users.on_vcpu(there.task, replace(on_cpu(), snapshot=False), None)).stack.judgement
    assert (Stop.GUEST_RUNNING, 0) == (judgement.reason, judgement.first_bad_frame)
    assert "The virtual machine ran on" in judgement.detail


def test_a_mapping_that_took_the_place_of_another_is_walked_anew(here: tuple[Scene, GuestUsers]) -> None:
    there, users = here
    before = walked(users.on_vcpu(there.task, on_cpu(), None))
    root = there.kernel.memory.word(there.mm + MEMORY_STRUCTS.tree + MEMORY_STRUCTS.tree_root)
    assert root is not None
    there.kernel.put((root & ~0xFF) + 128, there.kernel.vma(CODE, CODE + 2 * PAGE, flags=1))
    users.forget()
    after = walked(users.on_vcpu(there.task, on_cpu(), None))
    assert before.process is not after.process
    assert Stop.NOT_EXECUTABLE is after.stack.stop
