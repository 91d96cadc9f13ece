"""From a guest's stack to the recording: the kernel's part has its own quality, whatever becomes of the user's part."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from store.recordings import HEADER, MONOTONIC

from unspool.capture.guest_events import File, Kernel, Names, Sample
from unspool.capture.guest_stacks import GuestStacks
from unspool.capture.guest_user import UserStack
from unspool.capture.guest_wire import (
    GuestFrame,
    GuestModule,
    GuestStack,
    GuestTask,
    KernelFound,
    checked_kernel,
    checked_stack,
    stack_to_wire,
)
from unspool.cli.recording_summary import guest_line, summary
from unspool.model.stack import Frame, Stack
from unspool.model.verdict import Judgement, Stop, Trust, Verdict
from unspool.profile.columns import About
from unspool.profile.rows import machines
from unspool.session.guest_feed import GuestFeed, GuestTotals
from unspool.session.recording import Progress
from unspool.session.windows import Windows
from unspool.store.load import load
from unspool.store.reader import open_recording
from unspool.store.writer import Writer
from unspool.symbols.symbolizer import Symbolizer
from unspool.targets.guest.kernel import GuestKernel
from unspool.targets.guest.machines import Machine
from unspool.targets.guest.user import Process
from unspool.unwind.kernel_walk import KernelStack

RELIABLE = Judgement(Verdict.RELIABLE)
CUT = Judgement(Verdict.UNRELIABLE, Stop.NO_UNWIND_INFO, 0)
KERNEL_FRAME = GuestFrame(0xFFFF_8000_0000_1000, Trust.REGISTERS, exact=True, module=0, offset=0x1000)
USER_FRAME = GuestFrame(0x40_1000, Trust.REGISTERS, exact=True, module=1, offset=0x1000)
MODULES = {0: GuestModule("[guest.kernel]", "aa" * 20, "kernel"), 1: GuestModule("/bin/busybox", "bb" * 20, "file")}
MACHINE = cast("Machine", SimpleNamespace(name="web", pid=1, start_ns=2, uuid="", accel="kvm"))
TASK = GuestTask(7, 7, "busybox", 1, "busybox")
NO_UNWIND_DATA = replace(CUT, first_bad_frame=1)
BUSYBOX = GuestStack(
    *(TASK, (KERNEL_FRAME, USER_FRAME), 1, Stop.NO_UNWIND_INFO, NO_UNWIND_DATA, "", MODULES), in_kernel=True, kernel_whole=True
)
TORN = GuestStack(TASK, (KERNEL_FRAME,), 1, Stop.MEM_FAULT, CUT, "", {}, in_kernel=True)
IN_USER_MODE = GuestStack(TASK, (USER_FRAME,), 0, Stop.NO_UNWIND_INFO, CUT, "", {})


def kernel_stack(stop: Stop) -> KernelStack:
    return KernelStack(Stack((Frame(0xFFFF_8000_0000_1000, 0, Trust.REGISTERS, exact=True),), stop, RELIABLE))


@pytest.mark.parametrize(
    ("kernel", "user", "expected"),
    [
        (kernel_stack(Stop.END_KERNEL_ENTRY), UserStack(Stack((), Stop.NO_UNWIND_INFO, CUT), cast("Process", None)), True),
        (kernel_stack(Stop.END_KERNEL_ENTRY), Stop.NO_USER_STACK, True),
        (kernel_stack(Stop.END_KERNEL_ENTRY), Stop.MEM_FAULT, True),
        (kernel_stack(Stop.MEM_FAULT), Stop.MEM_FAULT, False),
        (None, Stop.MEM_FAULT, False),
    ],
)
def test_the_kernels_part_is_judged_by_its_own_end(kernel: KernelStack | None, user: UserStack | Stop, *, expected: bool) -> None:
    image = SimpleNamespace(btf=None, is_text=lambda _: False, is_init_text=lambda _: False)
    found = GuestStacks(cast("GuestKernel", image))._joined(None, kernel, user)
    assert (kernel is not None, expected) == (found.in_kernel, found.kernel_whole)


@pytest.mark.parametrize("stack", [BUSYBOX, TORN, IN_USER_MODE])
def test_it_comes_out_of_the_decoder_as_it_went_in(stack: GuestStack) -> None:
    assert stack == checked_stack(json.loads(json.dumps(stack_to_wire(stack))))


def test_a_program_without_unwind_data_does_not_hide_the_kernels_quality(tmp_path: Path) -> None:
    """Three of four kernel parts lead to the kernel's entry, and no stack is whole."""
    with Writer(tmp_path / "a.unspool", HEADER) as writer:
        feed = GuestFeed(MACHINE, writer)
        feed.take(Kernel(1, KernelFound("6.1.0", "#1", "aa" * 20, 0xFFFF_8000_0000_0000, 5)))
        for index, stack in enumerate([BUSYBOX, *[replace(BUSYBOX, modules={})] * 2, TORN, IN_USER_MODE]):
            feed.take(Sample(MONOTONIC + index, 0, stack))
    with open_recording(tmp_path / "a.unspool") as recording:
        endings = recording.rows("SELECT kernel_ending, count(*) FROM samples JOIN stacks USING (stack) GROUP BY ALL ORDER BY ALL")
        (row,) = machines(load(recording))
    assert [("cut", 1), ("whole", 3), (None, 1)] == endings
    assert (5, 0, 4, 4, 3) == (row.samples, row.whole, row.kernel, row.kernel_known, row.kernel_whole)
    assert "4 in its kernel, 75.0 % of them whole to the kernel's entry" in guest_line(feed.totals, 1.0)


def test_a_frame_is_looked_up_once_when_its_file_is_there(tmp_path: Path) -> None:
    """While it is recorded only what the guest has handed over; at the end all the rest."""
    modules = {0: GuestModule("/bin/app", "", "file", 5), 1: GuestModule("/bin/big", "", "file", 9)}
    frames = [GuestFrame(0x40_1000 + number, Trust.REGISTERS, exact=True, module=number % 2, offset=number) for number in range(4)]
    stacks = [
        GuestStack(TASK, tuple(some), 0, Stop.NO_UNWIND_INFO, CUT, "", told) for some, told in ((frames[:2], modules), (frames[2:], {}))
    ]
    with Writer(tmp_path / "a.unspool", HEADER) as writer, Symbolizer() as symbolizer:
        feed = GuestFeed(MACHINE, writer)
        feed.take(Kernel(1, KernelFound("6.1.0", "#1", "aa" * 20, 0xFFFF_8000_0000_0000, 5)))
        feed.take(Sample(MONOTONIC, 0, stacks[0]))
        assert [] == feed.unnamed(symbolizer)
        feed.take(File(0, os.memfd_create("app"), whole=True))
        (place,) = feed.unnamed(symbolizer)
        assert ("/bin/app", 0) == (place.path, place.offset)
        assert place.file in symbolizer
        for stack in (replace(stacks[0], modules={}), stacks[1]):
            feed.take(Sample(MONOTONIC, 0, stack))
        (later,) = feed.unnamed(symbolizer)
        assert (place.file, 2) == (later.file, later.offset)
        rest = feed.unnamed(symbolizer, last=True)
        assert [("/bin/big", 1), ("/bin/big", 3)] == [(one.path, one.offset) for one in rest]
        assert 4 == len({place.frame, later.frame, *(one.frame for one in rest)})
        assert [] == feed.unnamed(symbolizer, last=True)
        feed.close()


def test_after_a_renewal_everything_is_told_again() -> None:
    """A live view that begins anew knows nothing of modules that the guest told of before."""
    first, second = Windows(), Windows()
    with Symbolizer() as symbolizer:
        feed = GuestFeed(MACHINE, first)
        feed.take(Kernel(1, KernelFound("6.1.0", "#1", "aa" * 20, 0xFFFF_8000_0000_0000, 5)))
        feed.take(Sample(MONOTONIC, 0, BUSYBOX))
        feed.take(Names([(KERNEL_FRAME.ip, "schedule", 0)]))
        (asked,) = feed.unnamed(symbolizer)
        second.module("/something/else")
        feed.renew(second)
        assert [] == feed.unnamed(symbolizer)
        feed.take(Sample(MONOTONIC, 1, replace(BUSYBOX, modules={})))
        (again,) = feed.unnamed(symbolizer)
        assert asked.file == again.file
        feed.close()
    profile = second.profile([second.take()], About())
    assert {"[guest.kernel]", "/bin/busybox"} < {module.path for module in profile.modules}
    assert "schedule" in {function.name for function in profile.functions}
    (task,) = profile.tasks
    assert ("web", "6.1.0", 7) == (profile.machine_name(task), profile.kernel_of(task), task.pid)
    assert profile.timed is not None
    assert [1] == profile.timed.vcpu.tolist()


def test_the_summary_tells_guests_of_one_name_apart() -> None:
    progress = Progress(Path("a.unspool"), guests=[GuestTotals("web", 1), GuestTotals("web", 2), GuestTotals("db", 3)])
    names = [line.partition(":")[0].strip() for line in summary(progress) if line.startswith("  guest ")]
    assert ["guest web@1", "guest web@2", "guest db"] == names


def test_what_a_kernel_does_not_have_is_said_with_what_helps() -> None:
    """Nothing is guessed unasked; once it was asked for, that is said instead."""
    missing = "No unwind tables (ORC): the kernel has no symbol __start_orc_unwind."
    assert f"{missing}; --guest-method frame-pointer guesses" in guest_line(GuestTotals("web", missing=missing), 1.0)
    guessed = guest_line(GuestTotals("web", missing=missing, method=Trust.FRAME_POINTER), 1.0)
    assert guessed.endswith(f"kernel stacks guessed by frame-pointer; {missing}")
    assert "guess" not in guest_line(GuestTotals("web", missing="No type information (BTF): it is damaged."), 1.0)


def test_a_kernel_that_misses_something_comes_out_of_the_decoder_with_it() -> None:
    answer = {"release": "6.1.0", "version": "#1", "build_id": "aa", "base": 1, "symbols": 2, "missing": "No unwind tables (ORC)."}
    assert KernelFound("6.1.0", "#1", "aa", 1, 2, missing="No unwind tables (ORC).") == checked_kernel(answer)
