"""Busy programs, stopped wherever they happen to be: our two walks see the same, and what they call reliable is what eu-stack sees."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from peer_stacks import eu_stacks
from target_programs import Programs, running, wait_until

from unspool.model.stack import Stack
from unspool.model.verdict import Verdict
from unspool.session.stacks import stacks_of
from unspool.session.walking import Walking
from unspool.targets import procfs

pytestmark = pytest.mark.live

STOPS = 40
PYTHON = """
import json, re
print("ready", flush=True)
data = {"a": [1, 2, {"b": "c" * 30}]}
while True:
    json.loads(json.dumps(data)); re.sub("c+", "x", "abc" * 20); sorted(range(100), key=lambda n: -n)
"""
PERL = """
$| = 1; print "ready\\n";
sub f { my $n = shift; return $n < 2 ? 1 : f($n - 1) + f($n - 2); }
while (1) { f(10); my $s = join ",", sort { $b <=> $a } map { $_ * 2 } 1 .. 50; $s =~ s/(\\d+)/<$1>/g; }
"""
BASH = 'echo ready; f() { if [ "$1" -gt 0 ]; then f $(($1 - 1)); fi; }; while :; do f 10; x=${x//a/b}; done'


def judged(stack: Stack) -> tuple[object, ...]:
    """All that a walk says, but for the words."""
    verdict = stack.judgement
    return stack.frames, stack.stop, verdict.verdict, verdict.reason, verdict.first_bad_frame, verdict.scope


def stop(pid: int) -> None:
    """Stop the program wherever it is now, by job control: it stays there for every tool that looks."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: (state := procfs.thread_state(pid, pid)) is not None and state.state == "T", "the program to stop")


def look(pid: int) -> Stack:
    """What both walks say of the stopped program."""
    native, reference = (stacks_of(pid, Walking(method), named=False).threads[0].stack for method in ("native", "python"))
    assert judged(reference) == judged(native)
    return native


@pytest.mark.parametrize(
    "words",
    [["/usr/bin/python3", "-c", PYTHON], ["perl", "-e", PERL], ["bash", "-c", BASH]],
    ids=["python3", "perl", "bash"],
)
def test_a_busy_interpreter(words: list[str]) -> None:
    compared = 0
    with running(*words) as process:
        for turn in range(STOPS):
            stop(process.pid)
            stack = look(process.pid)
            if turn % 5 == 0 and stack.judgement.verdict is Verdict.RELIABLE:
                assert eu_stacks(process.pid)[process.pid] == [frame.ip for frame in stack.frames]
                compared += 1
            os.kill(process.pid, signal.SIGCONT)
    assert compared > 0


@pytest.mark.parametrize("flags", [("-O2",), ("-O0",), ("-O2", "-static-pie")], ids=" ".join)
def test_a_program_that_throws_jumps_and_is_interrupted(flags: tuple[str, ...], programs: Programs) -> None:
    verdicts = set()
    path: Path = programs.build("transfers.cc", *flags)
    with running(path) as process:
        for _ in range(STOPS):
            stop(process.pid)
            verdicts.add(look(process.pid).judgement.verdict)
            os.kill(process.pid, signal.SIGCONT)
    assert Verdict.RELIABLE in verdicts
