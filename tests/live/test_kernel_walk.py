"""The walk in the kernel and the walk in user space give the same frames, stop and verdict of the same thread."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_samples import addresses, samples_of_blocked
from stack_targets import TARGETS, Target
from target_programs import Programs

from unspool.model.stack import Stack
from unspool.model.thread import Thread
from unspool.native import walk
from unspool.targets.process import Process
from unspool.targets.stopping import Visited, visit

pytestmark = pytest.mark.live


def looked_at(visited: Visited) -> tuple[int, Stack]:
    """The thread's number and its stack, walked by the library while it is stopped."""
    assert isinstance(visited.thread, Thread)
    return visited.tid, walk(visited.thread)


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
