"""Children of posix_spawn before their execve have whole stacks, in the kernel and from outside, where no thread would have one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_samples import addresses, samples_of_blocked
from target_programs import Programs, running, wait_asleep, wait_until

from unspool.model.stack import Stack
from unspool.model.thread import Birth, Thread
from unspool.model.verdict import Stop, Verdict
from unspool.native import walk
from unspool.targets import procfs
from unspool.targets.process import Process
from unspool.targets.stopping import Visited, visit
from unspool.unwind.api import unwind_user

pytestmark = pytest.mark.live


@contextlib.contextmanager
def child_of(how: str, programs: Programs, folder: Path) -> Iterator[int]:
    """A child that sleeps in the opening of a FIFO; its number."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    with running(programs.build("spawned.c", "-O2", "-pthread"), how, str(fifo)) as process:
        wait_until(lambda: bool(children_of(process.pid)), "the child")
        [child] = children_of(process.pid)
        wait_asleep(child)
        yield child


def children_of(pid: int) -> list[int]:
    """The children of a process."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [number for number in numbers if procfs.status_number(number, "PPid") == pid]


def looked_at(visited: Visited) -> tuple[Stack, Stack, Birth | None]:
    """The stack by both walks, and where the thread began."""
    assert isinstance(visited.thread, Thread)
    return walk(visited.thread), unwind_user(visited.thread), visited.thread.birth


def said(stack: Stack) -> tuple[object, ...]:
    """What is compared of a stack."""
    return [frame.ip for frame in stack.frames], stack.stop, stack.judgement.verdict, stack.judgement.reason


@pytest.mark.parametrize("how", ["spawn", "thread", "clone"])
def test_a_child_that_has_not_called_execve_has_a_whole_stack(how: str, programs: Programs, tmp_path: Path) -> None:
    """Its thread pointer is its creator's, and its stack is nobody's: what is known is the system call in which its creator waits."""
    with child_of(how, programs, tmp_path) as pid:
        [(stack, same, birth)] = visit(Process(pid), looked_at)
        samples = samples_of_blocked(pid)[pid]
    assert said(stack) == said(same)
    assert (Stop.END_THREAD_ENTRY, Verdict.RELIABLE) == (stack.stop, stack.judgement.verdict)
    assert birth is not None
    assert birth.sp <= stack.frames[-1].sp <= birth.sp + 16
    for sample in samples:
        assert ([frame.ip for frame in stack.frames], Stop.END_THREAD_ENTRY) == (addresses(sample), sample.stop)
        assert Verdict.RELIABLE == sample.judgement.verdict


def test_assembly_that_hides_its_caller_is_no_end_in_a_child(programs: Programs, tmp_path: Path) -> None:
    """`.cfi_undefined rip` on that same stack: two functions are missing above it."""
    with child_of("liar", programs, tmp_path) as pid:
        [(stack, same, birth)] = visit(Process(pid), looked_at)
        samples = samples_of_blocked(pid)[pid]
    assert birth is not None
    assert said(stack) == said(same)
    assert (Stop.END_UNEXPECTED, Verdict.UNRELIABLE) == (stack.stop, stack.judgement.verdict)
    for sample in samples:
        assert (Stop.END_UNEXPECTED, Verdict.UNRELIABLE) == (sample.stop, sample.judgement.verdict)


def test_a_process_with_memory_of_its_own_has_no_birth(programs: Programs) -> None:
    """Its parent waits for nothing."""
    with running(programs.build("deep.c", "-O2"), "3") as process:
        wait_asleep(process.pid)
        [(stack, _, birth)] = visit(Process(process.pid), looked_at)
    assert birth is None
    assert Stop.END_PROCESS_ENTRY is stack.stop
