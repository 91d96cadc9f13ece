"""The children of posix_spawn end where they begin: at the code and the stack pointer of the system call in which their creator waits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from formats.dwarf.cfi_builder import RA, def_cfa_offset, undefined
from unwind.process_builder import CALL, INITIAL_SP, NOP, RET, STACK, Program, sp_of

from unspool import native
from unspool.model.stack import Stack
from unspool.model.thread import Birth, EntryPoints, Thread
from unspool.model.verdict import Stop, Verdict
from unspool.unwind.api import unwind_user

SYSCALL = b"\x0f\x05"
ABOVE = STACK + 0x3FF8
"""A creator whose stack lies above the child's."""


class Spawned:
    """A child in a function that clone's code called; as in glibc, no FDE holds the code from the system call to the child's first row."""

    def __init__(self, taken: int = 0) -> None:
        """`taken`: what the first instructions take off the stack before they call."""
        self.program = Program()
        self.program.entry = 0
        self.program.function(NOP * 14 + SYSCALL)
        self.gap = self.program.function(NOP * 16, frames=False)
        self.first = self.program.function(NOP * 4 + CALL + NOP * 7, undefined(RA))
        self.leaf = self.program.function(NOP * 8 + RET)
        self.thread = self.at(self.leaf, [self.first + 9])
        self.birth = Birth(self.gap, INITIAL_SP - taken, ABOVE)

    def at(self, pc: int, words: list[int]) -> Thread:
        """The child there, with these words on its stack, where no process begins."""
        return self.program.thread(pc, words, ends=EntryPoints())

    def ends(self, thread: Thread | None = None, **changes: int | None) -> Stop:
        """The end of the child whose birth is changed so, by both walks."""
        registers = replace(self.thread.registers, thread_pointer=changes.pop("thread_pointer", None))
        birth = replace(self.birth, **changes)  # type: ignore[arg-type]
        if thread is None:
            thread = replace(self.thread, registers=registers)
        return both(replace(thread, birth=birth)).stop


def both(thread: Thread) -> Stack:
    """The stack, on which both walks agree."""
    ours, theirs = unwind_user(thread), native.walk(thread)
    assert ours.frames == theirs.frames
    assert (ours.stop, ours.judgement.verdict, ours.judgement.reason) == (theirs.stop, theirs.judgement.verdict, theirs.judgement.reason)
    assert ours.stop.is_end == (ours.judgement.verdict == Verdict.RELIABLE)
    return ours


@pytest.mark.parametrize("taken", [0, 8, 16])
def test_a_childs_first_frame_is_an_end(taken: int) -> None:
    """clone3 takes nothing off the stack, clone the function and its argument."""
    assert Stop.END_THREAD_ENTRY is Spawned(taken).ends()


def test_it_is_none_when_nobody_waits() -> None:
    """The same stack, and nothing that says where it began."""
    assert Stop.END_UNEXPECTED is both(Spawned().thread).stop


def test_the_first_instruction_is_an_end_without_unwind_data() -> None:
    """Where the kernel prepares the child, and where its first page fault is."""
    spawned = Spawned()
    for pc in (spawned.gap, spawned.gap + 15):
        assert Stop.END_THREAD_ENTRY is spawned.ends(spawned.at(pc, []))
        assert Stop.NO_UNWIND_INFO is both(spawned.at(pc, [])).stop
        assert Stop.NO_UNWIND_INFO is spawned.ends(spawned.at(pc, [spawned.first + 9]))
        assert Stop.NO_UNWIND_INFO is spawned.ends(spawned.at(pc, []), creator_sp=INITIAL_SP)


def test_a_caller_without_unwind_data_is_no_end() -> None:
    """Only an exact address can be the first instruction."""
    spawned = Spawned()
    gap = spawned.program.function(NOP * 4 + CALL + NOP * 7, frames=False)
    assert Stop.NO_UNWIND_INFO is spawned.ends(spawned.at(spawned.leaf, [gap + 9]), ip=gap)


def test_another_stack_pointer_is_no_end() -> None:
    """A frame that is deeper may have callers; one that is higher is on another stack."""
    spawned = Spawned()
    for distance in (-24, 16, 24, 0x1000):
        assert Stop.END_UNEXPECTED is spawned.ends(sp=INITIAL_SP + distance)


def test_the_stack_pointer_may_be_aligned_first() -> None:
    """clone3 does so: `and $-16, %rsp`."""
    spawned = Spawned()
    at = spawned.at(spawned.leaf, [spawned.first + 9, 0])
    assert sp_of(at, 1) % 16 == 8
    assert Stop.END_UNEXPECTED is spawned.ends(at, sp=INITIAL_SP)
    at = spawned.at(spawned.leaf, [spawned.first + 9])
    assert Stop.END_THREAD_ENTRY is spawned.ends(at, sp=INITIAL_SP + 8)


def test_other_code_is_no_end() -> None:
    """What lies far behind the system call, or before it, did not begin the child: assembly that only says that it has no caller."""
    spawned = Spawned()
    for ip in (spawned.first + 9, spawned.first + 8 - 64, 0):
        assert Stop.END_UNEXPECTED is spawned.ends(ip=ip)
    assert Stop.END_THREAD_ENTRY is spawned.ends(ip=spawned.first + 8)
    assert Stop.END_THREAD_ENTRY is spawned.ends(ip=spawned.first + 8 - 63)


def test_assembly_that_hides_its_caller_is_no_end() -> None:
    """`.cfi_undefined rip` in a function that the child called: the child's first frame would be missing."""
    spawned = Spawned()
    liar = spawned.program.function(NOP * 8 + CALL + NOP * 3, def_cfa_offset(8), undefined(RA))
    assert Stop.END_UNEXPECTED is spawned.ends(spawned.at(spawned.leaf, [liar + 13, spawned.first + 9]))


@pytest.mark.parametrize(
    ("distance", "stop"), [(0, Stop.END_THREAD_ENTRY), (8, Stop.END_THREAD_ENTRY), (54, Stop.END_THREAD_ENTRY), (55, Stop.END_UNEXPECTED)]
)
def test_a_thread_begins_behind_a_system_call(distance: int, stop: Stop) -> None:
    """Below the thread pointer too, code that only says that it has no caller is not believed: 64 bytes behind `syscall` at most."""
    program = Program(text=bytearray(NOP * 14 + SYSCALL))
    program.entry = 0
    first = program.function(NOP * (distance + 4) + CALL + NOP * 7, undefined(RA))
    leaf = program.function(NOP * 8 + RET)
    # The lookup address lies `distance` + 8 bytes behind the system call, which has 2.
    thread = program.thread(leaf, [first + distance + 9], ends=EntryPoints())
    assert stop is both(replace(thread, registers=replace(thread.registers, thread_pointer=INITIAL_SP + 64))).stop


def test_a_stack_among_the_creators_frames_is_no_end() -> None:
    """Those may be what the child returns to. A creator whose stack ends between the two stands on another one."""
    spawned = Spawned()
    for creator_sp in (INITIAL_SP, INITIAL_SP - 64, STACK):
        assert Stop.END_UNEXPECTED is spawned.ends(creator_sp=creator_sp)
    assert Stop.END_THREAD_ENTRY is spawned.ends(creator_sp=INITIAL_SP + 8)
    assert Stop.END_THREAD_ENTRY is spawned.ends(creator_sp=STACK, thread_pointer=STACK + 64)
    # Right at the stack's end: the thread pointer is the first word behind it.
    assert Stop.END_THREAD_ENTRY is spawned.ends(creator_sp=INITIAL_SP - 64, thread_pointer=INITIAL_SP - 56)
    for thread_pointer in (STACK - 8, STACK):
        assert Stop.END_UNEXPECTED is spawned.ends(creator_sp=STACK, thread_pointer=thread_pointer)
