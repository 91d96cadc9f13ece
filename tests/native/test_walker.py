"""The ctypes face itself: limits, errors, contexts, and many states in one call."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from unwind.process_builder import STACK
from unwind.test_walk import Chain, ips, verdict

from unspool import native
from unspool.errors import Unsupported
from unspool.model.arch import AARCH64
from unspool.model.memory import Bytes, Layered
from unspool.model.registers import Registers
from unspool.model.thread import Thread
from unspool.model.verdict import Stop, Verdict
from unspool.native import Walker, structures, walker
from unspool.native.library import load


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_limit_of_frames_cuts_the_stack_there(most: int) -> None:
    thread = Chain().thread()
    stack = native.walk(thread, max_frames=most)
    assert ips(native.walk(thread))[:most] == ips(stack)
    assert (Stop.END_PROCESS_ENTRY if most == 3 else Stop.FRAME_LIMIT) is stack.stop
    assert (None if most == 3 else most - 1) == stack.judgement.first_bad_frame


def test_less_than_one_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_frames is 0"):
        native.walk(Chain().thread(), max_frames=0)


def test_a_deep_stack_is_walked_to_its_end() -> None:
    """More frames than the first buffer holds."""
    chain = Chain()
    depth = 600
    words = [1, 2, *([chain.main + 9, 21, 22] * depth), chain.start + 5]
    stack = native.walk(chain.program.thread(chain.leaf + 4, words))
    assert Stop.END_PROCESS_ENTRY is stack.stop
    assert depth + 2 == len(stack.frames)


def test_another_machines_thread_is_unsupported() -> None:
    thread = Chain().thread()
    foreign = replace(thread, registers=Registers(AARCH64, 0x1000, {31: STACK}))
    stack = native.walk(foreign)
    assert (Stop.UNSUPPORTED_RULE, Verdict.UNRELIABLE) == (stack.stop, stack.judgement.verdict)


def test_a_walker_serves_the_threads_of_one_address_space() -> None:
    chain = Chain()
    thread = chain.thread()
    with Walker(thread) as ours:
        assert ours.serves(thread)
        assert ours.serves(replace(thread, registers=replace(thread.registers, pc=chain.main)))
        assert not ours.serves(chain.thread())
        assert ours.walk(thread) == ours.walk(thread) == native.walk(thread)
    assert not ours.serves(thread)


def test_what_a_memory_raises_comes_out_of_the_walk() -> None:
    """Never a stack made of bytes that were not read."""

    class Broken:
        def read(self, address: int, size: int) -> bytes | None:
            raise RuntimeError(f"{size} bytes at {address:#x}")

    with pytest.raises(RuntimeError, match="bytes at 0x"):
        native.walk(replace(Chain().thread(), memory=Broken()))


def test_a_library_that_is_not_there_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="cannot be loaded"):
        load(tmp_path / "_unspool.so")


def test_importing_the_package_loads_nothing() -> None:
    """`import unspool` and `--help` stay quick."""
    code = "import sys, unspool; print('unspool.native' in sys.modules, 'ctypes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "False False" == done.stdout.strip()


def stack_of(thread: Thread) -> Bytes:
    """The stack's bytes."""
    assert isinstance(thread.memory, Layered)
    stack = thread.memory.layers[1]
    assert isinstance(stack, Bytes)
    return stack


def test_many_states_in_one_call_give_what_each_gives_alone() -> None:
    """unspool_walk_states: each state has its own copied stack over the same code."""
    chain = Chain()
    whole = chain.thread()
    cut = chain.program.thread(chain.leaf + 4, [11, 12, chain.main + 9, 21, 22, 0])
    threads = [whole, cut, whole]
    copies = [stack_of(thread).data for thread in threads]
    states = (structures.State * len(threads))()
    stacks = (structures.Stack * len(threads))()
    for state, stack, thread, copy in zip(states, stacks, threads, copies, strict=True):
        state.thread = walker._thread(thread)
        state.stack_start, state.stack_size = STACK, len(copy)
        state.stack_data = ctypes.cast(ctypes.c_char_p(copy), ctypes.c_void_p)
        stack.capacity = 64
    with Walker(replace(whole, memory=Layered((whole.memory.layers[0],)))) as ours:  # type: ignore[attr-defined]
        load().unspool_walk_states(ours._context, states, stacks, len(threads))
    for thread, stack in zip(threads, stacks, strict=True):
        alone = native.walk(thread)
        assert (len(alone.frames), alone.stop) == (stack.count, stack.stop)
        assert (alone.judgement.verdict, alone.judgement.reason) == (stack.verdict, stack.reason)
    assert (Stop.RA_NOT_EXECUTABLE, Stop.RA_NOT_EXECUTABLE, 1) == verdict(native.walk(cut))
