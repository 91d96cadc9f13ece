"""`unspool stack --guest` against the guest's own /proc/PID/stack."""

from __future__ import annotations

import json
import re

import pytest
from guest_machines import GuestMachine

from unspool.cli.main import main
from unspool.errors import NoSuchTarget
from unspool.model.verdict import Stop, Verdict
from unspool.session.guest_stacks import GuestProcesses, stacks_of_guest
from unspool.session.guests import GuestPlan
from unspool.session.stacks import ThreadStack

_ALL_STACKS = 'for p in /proc/[0-9]*; do echo "T ${p#/proc/}"; cat $p/stack 2>/dev/null; done'
RCU = {"rcu_preempt", "rcu_sched"}
_LINE = re.compile(r"\[<0>\] (\S+\+0x[0-9a-f]+)/")


def truth(machine: GuestMachine) -> dict[int, list[str]]:
    """The kernel stack of every task (function+offset, innermost first) as the guest's kernel prints it."""
    found: dict[int, list[str]] = {}
    for block in machine.shell(_ALL_STACKS).split("T ")[1:]:
        pid, _, text = block.partition("\n")
        found[int(pid)] = _LINE.findall(text)
    return found


def kernel_part(thread: ThreadStack) -> list[str]:
    """The kernel's frames as the guest would print them."""
    found = []
    for frame in thread.frames:
        if frame.place.module.startswith("[guest."):
            (call,) = frame.calls()
            assert call is not None
            found.append(f"{call.function}+{call.offset + frame.frame.ip - frame.frame.lookup_pc:#x}")
    return found


def threads(found: GuestProcesses) -> dict[int, ThreadStack]:
    return {thread.tid: thread for process in found.processes for thread in process.threads}


def compared(machine: GuestMachine, looks: int = 5) -> tuple[set[int], dict[int, str]]:
    """The tasks whose stack is the one that the guest prints, and those for which it never is, though it is the same before and after.

    A task may have moved and come back while we looked: so those are looked at again. RCU's thread always does, with the printing shell.
    """
    # What the kernel leaves out of its own print (in_sched_functions, kernel/sched/core.c).
    edges = machine.shell("grep -E ' __sched_text_(start|end)$' /proc/kallsyms | sort").split()
    scheduler = range(int(edges[0], 16), int(edges[3], 16))
    equal: set[int] = set()
    differing: dict[int, str] = {}
    for _ in range(looks):
        # The shell that prints all this does something else while it is looked at.
        shells = {int(word) for word in machine.shell("echo $$ $PPID").split()}
        before = truth(machine)
        ours = threads(stacks_of_guest(GuestPlan(str(machine.pid))))
        after = truth(machine)
        for pid, expected in before.items():
            if not expected or after.get(pid) != expected or pid not in ours or pid in shells | equal or ours[pid].name in RCU:
                continue
            kernel = kernel_part(ours[pid])
            above = ours[pid].frames[: len(kernel) - len(expected)]
            if kernel[-len(expected) :] == expected and all(frame.frame.ip in scheduler for frame in above):
                equal.add(pid)
                differing.pop(pid, None)
            else:
                differing[pid] = f"{ours[pid].name}: {kernel} is not {expected}"
        if not differing:
            break
    return equal, differing


@pytest.mark.live
def test_sleeping_stacks_are_those_that_the_guest_prints(guest_machine: GuestMachine) -> None:
    """Every task whose stack is the same before and after our look has that stack; we show the scheduler's frames above it, too."""
    equal, differing = compared(guest_machine)
    assert {} == differing
    assert len(equal) >= 30


@pytest.mark.live
def test_kernel_threads_are_whole_and_reliable(guest_machine: GuestMachine) -> None:
    """Nothing of a kernel thread's stack is beyond ORC: each ends where the thread began."""
    found = threads(stacks_of_guest(GuestPlan(str(guest_machine.pid))))
    sleepers = [thread for thread in found.values() if thread.name.startswith(("kthreadd", "kswapd", "rcu_gp", "khugepaged"))]
    assert len(sleepers) >= 3
    for thread in sleepers:
        assert (Stop.END_KERNEL_ENTRY, Verdict.RELIABLE) == (thread.stack.stop, thread.stack.judgement.verdict), thread.name
        assert kernel_part(thread)[-1].startswith("ret_from_fork")


@pytest.mark.live
def test_a_program_without_frame_pointers_is_whole_to_its_start(guest_machine: GuestMachine) -> None:
    """The user stack comes by .eh_frame, and its names, out of the guest's memory alone."""
    with guest_machine.workload("user") as (pid,):
        (process,) = stacks_of_guest(GuestPlan(guest_machine.name), pid).processes
    (thread,) = process.threads
    functions = [call.function for frame in thread.frames for call in frame.calls() if call]
    outer = functions.index("outer.isra.0") if "outer.isra.0" in functions else functions.index("outer")
    assert ["spin_inner", "middle"] == functions[outer - 2 : outer]
    assert "main" == functions[outer + 1]
    assert "_start" == functions[-1]
    assert (Stop.END_PROCESS_ENTRY, Verdict.RELIABLE) == (thread.stack.stop, thread.stack.judgement.verdict)


@pytest.mark.live
def test_the_command_prints_text_and_json(guest_machine: GuestMachine, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["stack", "--guest", guest_machine.name, "2"])
    text = capsys.readouterr().out
    assert text.startswith(f"guest {guest_machine.name}, Linux {guest_machine.release}\n")
    assert "thread 2 kthreadd: reliable, whole (end-kernel-entry)" in text
    assert 0 == main(["stack", "--guest", str(guest_machine.pid), "2", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert (guest_machine.name, guest_machine.release) == (said["guest"], said["kernel"]["release"])
    ((thread,),) = [process["threads"] for process in said["processes"]]
    assert ("reliable", "end-kernel-entry") == (thread["verdict"], thread["stop"])


@pytest.mark.live
def test_a_process_that_is_not_there_is_named(guest_machine: GuestMachine) -> None:
    with pytest.raises(NoSuchTarget, match="no process 99999"):
        stacks_of_guest(GuestPlan(guest_machine.name), 99999)
