"""The walk of a live process gives the frames that gdb and eu-stack give, address by address; and both of our walks agree."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from peer_stacks import eu_stacks, gdb_stacks
from stack_targets import TARGETS, Target
from target_programs import Programs, running, wait_until

from unspool.model.stack import Stack
from unspool.model.verdict import Stop, Verdict
from unspool.session.stacks import ProcessStacks, stacks_of
from unspool.session.walking import Method, Walking
from unspool.targets import procfs

pytestmark = pytest.mark.live

LOST_ON_GDB = {TARGETS[name] for name in ("deleted", "replaced", "memfd", "no section headers")}
"""gdb 13 opens the program's file by its path and reads its sections: these stacks it cuts after three frames."""
LOST_ON_EU_STACK = {TARGETS["mount namespace"]}
"""elfutils 0.188 opens the path in its own mount namespace: it cuts this stack after two frames."""


def addresses(stacks: ProcessStacks) -> dict[int, list[int]]:
    return {thread.tid: [frame.ip for frame in thread.stack.frames] for thread in stacks.threads}


def walked(pid: int, method: Method) -> ProcessStacks:
    return stacks_of(pid, Walking(method), named=False)


def same(left: Stack, right: Stack) -> bool:
    """Whether two walks saw the same: frames, stop and judgement; the words of `detail` may differ."""
    judgements = [(one.judgement.verdict, one.judgement.reason, one.judgement.first_bad_frame) for one in (left, right)]
    return left.frames == right.frames and left.stop is right.stop and judgements[0] == judgements[1]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_frames_are_those_of_gdb_and_eu_stack(target: Target, programs: Programs, tmp_path: Path) -> None:
    with target(programs, tmp_path) as process:
        ours = walked(process.pid, "native")
        for thread in ours.threads:
            assert thread.stack.stop.is_end, thread
            assert Verdict.RELIABLE is thread.stack.judgement.verdict, thread.stack.judgement
        reference = walked(process.pid, "python")
        for one, other in zip(ours.threads, reference.threads, strict=True):
            assert same(one.stack, other.stack), (one.stack, other.stack)
        if target not in LOST_ON_EU_STACK:
            assert eu_stacks(process.pid) == addresses(ours)
        if target not in LOST_ON_GDB:
            assert gdb_stacks(process.pid) == addresses(ours)


def test_a_thread_in_the_vdso_is_unwound_from_the_vdsos_own_tables(programs: Programs) -> None:
    with running(programs.build("vdso.c", "-O2")) as process:
        ours = stopped_in_the_vdso(process.pid)
        assert Stop.END_PROCESS_ENTRY is ours.threads[0].stack.stop
        assert gdb_stacks(process.pid) == addresses(ours)


def stopped_in_the_vdso(pid: int) -> ProcessStacks:
    """Its stacks after a job-control stop that met it in the vDSO: tried until one does, as most of its time is spent there."""
    found: list[ProcessStacks] = []

    def stop_once() -> bool:
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: (state := procfs.thread_state(pid, pid)) is not None and state.state == "T", "the program to stop")
        found[:] = [walked(pid, "native")]
        mapping = found[0].space.find(found[0].threads[0].stack.frames[0].ip)
        return mapping is not None and mapping.kind == "vdso"

    wait_until(stop_once, "a stop within the vDSO")
    return found[0]
