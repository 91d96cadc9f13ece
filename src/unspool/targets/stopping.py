"""Stop the threads of a live process, one after another or all at once, look at each, and let every one run on.

What a thread's state does not allow is a value (`Refused`), never an exception: a process may do anything while it is looked at.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from unspool.errors import NotPermitted
from unspool.model.thread import Thread
from unspool.model.verdict import Stop
from unspool.targets import procfs
from unspool.targets.birth import birth_of
from unspool.targets.process import Process
from unspool.targets.ptrace import Reaper, Seized, State, machine

Result = TypeVar("Result")

STOP_SECONDS = 2.0
"""How long a thread may take to stop: far longer than one that can be stopped needs on a busy machine."""
REFRESH_BUDGET = 0.003
"""Mappings that take longer to read (seconds) are read for the first thread only; whoever judges the stacks compares them at the end."""
_SETTLE_SECONDS = 0.01
_TRIES = 3
"""A refusal without a visible cause is asked again: the thread may have been the leader that another thread's execve was replacing."""
_ROUNDS = 1000
"""How often the list of threads is read again while the process starts new ones."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A thread that cannot be looked at, and why."""

    stop: Stop
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Visited:
    """One thread of a process: its number, its name, and what an unwinder needs, or why there is none."""

    tid: int
    name: str
    thread: Thread | Refused


def visit(process: Process, look: Callable[[Visited], Result], *, tids: Collection[int] | None = None) -> list[Result]:
    """What `look` says of each thread, in the order of their numbers; a thread is stopped only while it is looked at.

    Threads that start meanwhile are visited too. With `tids` only those threads are visited, and one that does not exist is `exited`.
    """
    _let_go_of_stragglers()
    results: dict[int, Result] = {}
    for tid in _appearing(process.pid, tids):
        with _stopped(process, tid) as visited:
            results[tid] = look(visited)
    return [results[tid] for tid in sorted(results)]


def visit_together(process: Process, look: Callable[[Visited], Result]) -> list[Result]:
    """The same with all threads stopped at once: the results are of one instant, in which no thread of the process ran."""
    _let_go_of_stragglers()
    seized: dict[int, Seized | Refused] = {}
    names: dict[int, str] = {}
    try:
        with Reaper() as reaper:
            for tid in _appearing(process.pid, None, lambda: _wait_all(process.pid, seized)):
                state = procfs.thread_state(process.pid, tid)
                names[tid] = state.name if state else ""
                seized[tid] = _seize(process.pid, tid, state, reaper.seize)
        fresh = _refreshed(process, seized)
        return [look(Visited(tid, names[tid], _thread(process, seized[tid], fresh=fresh))) for tid in sorted(seized)]
    finally:
        _release_all(process, [thread for thread in seized.values() if isinstance(thread, Seized)])


def _appearing(pid: int, tids: Collection[int] | None, round_end: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Every thread's number once, until a new look at the list shows no new one; `round_end` is called after each look's threads."""
    if tids is not None:
        yield from sorted(set(tids))
        round_end()
        return
    seen: set[int] = set()
    for _ in range(_ROUNDS):
        new = [tid for tid in procfs.thread_ids(pid) if tid not in seen]
        if not new:
            return
        seen.update(new)
        yield from new
        round_end()


@contextmanager
def _stopped(process: Process, tid: int) -> Iterator[Visited]:
    state = procfs.thread_state(process.pid, tid)
    name = state.name if state else ""
    seized = _seize(process.pid, tid, state)
    if isinstance(seized, Refused):
        yield Visited(tid, name, seized)
        return
    try:
        _wait_all(process.pid, {tid: seized})
        yield Visited(tid, name, _thread(process, seized))
    finally:
        _release_all(process, [seized])


def _seize(pid: int, tid: int, state: procfs.ThreadState | None, seize: Callable[[int], Seized] = Seized.seize) -> Seized | Refused:
    """The thread on its way to a stop, or why it cannot be had."""
    if state is None or state.ended:
        return Refused(Stop.EXITED)
    if state.state == "D" and not _settled(pid, tid):
        # Once seized it could not be let go before it wakes up, and would then stop without anybody to let it run on.
        return Refused(Stop.THREAD_RUNNING, "it waits uninterruptibly in the kernel")
    refusal = Refused(Stop.EXITED)
    for _ in range(_TRIES):
        try:
            seized = seize(tid)
        except ProcessLookupError:
            return Refused(Stop.EXITED)
        except OSError as error:
            refusal = _why_refused(pid, tid, error)
            if refusal.detail != error.strerror:
                return refusal
        else:
            seized.interrupt()
            return seized
    return refusal


def _settled(pid: int, tid: int) -> bool:
    """Whether an uninterruptible wait (of a disk, of vfork's child) ends within a moment."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        state = procfs.thread_state(pid, tid)
        if state is None or state.state != "D":
            return True
        time.sleep(0.001)
    return False


def _why_refused(pid: int, tid: int, error: OSError) -> Refused:
    state = procfs.thread_state(pid, tid)
    if state is None or state.ended:
        return Refused(Stop.EXITED)
    if state.kernel:
        return Refused(Stop.NO_USER_STACK)
    tracer = procfs.status_number(tid, "TracerPid")
    if tracer == threading.get_native_id():
        # One that is ours already called execve and has this number now; it is let go with the others.
        return Refused(Stop.THREAD_RUNNING, "it is in the middle of execve")
    if tracer:
        return Refused(Stop.PERMISSION, f"process {tracer} traces it")
    return Refused(Stop.PERMISSION, error.strerror or str(error))


def _wait_all(pid: int, threads: dict[int, Seized | Refused]) -> None:
    """Wait until each thread has stopped or is gone; one that does neither stays as it is."""
    for tid, seized in threads.items():
        if isinstance(seized, Refused) or seized.state is not State.RUNNING:
            continue
        deadline = time.monotonic() + STOP_SECONDS
        while seized.wait(_SETTLE_SECONDS) is State.RUNNING and time.monotonic() < deadline:
            if not seized.is_ours:
                # It ended, or another thread called execve and has the leader's number now, but nobody traces that one.
                seized.state = State.GONE
            state = procfs.thread_state(pid, tid)
            if state is None or state.ended:
                break
            # This thread may be the one that calls execve: then it waits for the others, which it killed, to be reaped.
            for other in threads.values():
                if isinstance(other, Seized) and other.state is State.STOPPED:
                    other.reap()


def _refreshed(process: Process, threads: dict[int, Seized | Refused]) -> bool:
    """Read the mappings of a process that stands still, once for all its threads; whether that could be done."""
    for seized in threads.values():
        if isinstance(seized, Seized) and seized.state is State.STOPPED:
            try:
                process.refresh(seized.tid)
            except (OSError, NotPermitted):
                continue
            return True
    return False


def _thread(process: Process, seized: Seized | Refused, *, fresh: bool = False) -> Thread | Refused:
    """What an unwinder needs of a stopped thread; `fresh` says that the mappings were read since the process stands still."""
    if isinstance(seized, Refused):
        return seized
    if seized.state is State.GONE:
        return Refused(Stop.EXITED)
    if seized.state is State.RUNNING:
        state = procfs.thread_state(process.pid, seized.tid)
        gone = state is None or state.ended
        return Refused(Stop.EXITED) if gone else Refused(Stop.THREAD_RUNNING, "it did not stop when it was asked to")
    try:
        registers = seized.registers()
        if registers is None:
            return Refused(Stop.UNSUPPORTED_RULE, "it runs 32-bit code" if machine() else "the stacks of this machine are not understood")
        mask = seized.pac_mask()
        if not fresh and (process.generation == 0 or process.refresh_seconds < REFRESH_BUDGET):
            process.refresh(seized.tid)
    except NotPermitted as error:
        return Refused(Stop.PERMISSION, str(error))
    except OSError:
        return Refused(Stop.EXITED)
    process.read_through(seized.tid)
    birth = birth_of(process.pid, process.memory, registers) if seized.tid == process.pid else None
    return Thread(registers, process.memory, process.space, process.ends, pac_mask=mask, birth=birth)


def _release_all(process: Process, threads: list[Seized]) -> None:
    """Let every thread run on, also one whose number was changed by execve while we held it."""
    pid = process.pid
    process.memory.forget()
    # The leader comes last: when the process was killed, it ends after the others, and those end when we let them.
    interrupted = None
    for seized in sorted(threads, key=lambda one: one.tid == pid):
        try:
            released = seized.release()
        except KeyboardInterrupt as error:
            # Ctrl-C ends this program, but no thread stays stopped for it.
            interrupted = error
            released = seized.release()
        if not released:
            _stragglers.append(seized)
    if all(straggler.tid != pid for straggler in _stragglers):
        # A thread that calls execve goes on under the leader's number, and is still ours (ptrace(2), "execve(2) under ptrace"). It may do
        # so at any moment until all are let go.
        adopted = Seized(pid)
        if adopted.is_ours:
            adopted.release(STOP_SECONDS)
    if interrupted is not None:
        raise interrupted


_stragglers: list[Seized] = []
"""Threads that neither stopped nor ended in their time: still ours, they will stop when they wake up, and must be let go then."""


def _let_go_of_stragglers() -> None:
    _stragglers[:] = [seized for seized in _stragglers if not seized.release(0)]
