"""The walk in the kernel and the walk in user space give the same frames, stop and verdict of the same thread."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_samples import addresses, samples_of_blocked
from stack_targets import TARGETS, Target
from target_programs import Programs

from unspool.session.stacks import stacks_of

pytestmark = pytest.mark.live


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_both_homes_walk_a_blocked_thread_alike(target: Target, programs: Programs, tmp_path: Path) -> None:
    with target(programs, tmp_path) as process:
        in_kernel = samples_of_blocked(process.pid)
        for thread in stacks_of(process.pid, named=False).threads:
            for sample in in_kernel[thread.tid]:
                assert [frame.ip for frame in thread.stack.frames] == addresses(sample)
                assert (thread.stack.stop, thread.stack.judgement) == (sample.stop, sample.judgement)
