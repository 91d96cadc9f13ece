"""The walk in the kernel and the walk in user space give the same frames, stop and verdict of the same thread."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_samples import addresses, samples_of_blocked
from stack_targets import TARGETS, Target, built
from target_programs import Programs

from unspool.model.stack import Stack
from unspool.model.thread import Thread
from unspool.model.verdict import Stop
from unspool.native import walk
from unspool.targets.process import Process
from unspool.targets.stopping import Visited, visit

pytestmark = pytest.mark.live


def looked_at(visited: Visited) -> tuple[int, Stack]:
    """The thread's number and its stack, walked by the library while it is stopped."""
    assert isinstance(visited.thread, Thread)
    return visited.tid, walk(visited.thread)


ODD_LAYOUTS: dict[str, Target] = {
    "code far from the header": built("deep.c", "-O2", "-no-pie", "-Wl,-Ttext=0x900000"),
    "code and header in one mapping": built("deep.c", "-O2", "-Wl,-z,noseparate-code"),
    "pages of 2 MB": built("deep.c", "-O2", "-Wl,-z,max-page-size=0x200000"),
}
"""Files whose ELF header does not lie as many bytes below the code as it does in the file, or lies in the code's own mapping."""


@pytest.mark.parametrize("target", ODD_LAYOUTS.values(), ids=ODD_LAYOUTS)
def test_the_elf_header_is_found_wherever_it_is_mapped(target: Target, programs: Programs, tmp_path: Path) -> None:
    with target(programs, tmp_path) as process:
        for sample in samples_of_blocked(process.pid)[process.pid]:
            assert Stop.END_PROCESS_ENTRY is sample.stop


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_both_homes_walk_a_blocked_thread_alike(target: Target, programs: Programs, tmp_path: Path) -> None:
    with target(programs, tmp_path) as process:
        in_kernel = samples_of_blocked(process.pid)
        for tid, stack in visit(Process(process.pid), looked_at):
            for sample in in_kernel[tid]:
                assert [frame.ip for frame in stack.frames] == addresses(sample)
                assert [frame.exact for frame in stack.frames] == [frame.exact for frame in sample.user]
                assert (stack.stop, stack.judgement.verdict, stack.judgement.reason) == (
                    sample.stop,
                    sample.judgement.verdict,
                    sample.judgement.reason,
                )
