"""Strides: what the short cut passes over is what step by step gives, registers included."""

from __future__ import annotations

from formats.dwarf.cfi_builder import RBP, RBX, RSP, def_cfa, def_cfa_offset, offset, undefined
from hypothesis import given
from hypothesis import strategies as st
from unwind.process_builder import CALL, NOP, RET, STACK, STACK_END, Program

from unspool.model.arch import X86_64
from unspool.model.memory import Layered
from unspool.model.stack import Stack
from unspool.model.thread import Thread
from unspool.unwind.api import Unwinder
from unspool.unwind.walk import UnwindState

RA = X86_64.ra
R12 = 12


def by_steps(unwinder: Unwinder, thread: Thread) -> tuple[UnwindState, list[tuple[int, int]]]:
    """The state at the end of a walk without strides, and each frame's ip and sp."""
    state = unwinder.start(thread)
    frames = [(state.ip, state.sp)]
    while state.next() or not state.done:
        frames.append((state.ip, state.sp))
    return state, frames


class Recursion:
    """_start calls f, which calls itself, or g, which calls f: f saves rbx, g makes a frame with rbp and saves r12."""

    def __init__(self) -> None:
        """Write the functions; f's frame has 3 words, g's 4."""
        self.program = Program()
        self.start = self.program.function(CALL + NOP * 3, undefined(RA))
        self.f = self.program.function(CALL + NOP * 3, def_cfa_offset(24), offset(RBX, 2)) + 5
        self.g = self.program.function(CALL + NOP * 3, def_cfa(RBP, 16), offset(RBP, 2), offset(R12, 3)) + 5
        self.leaf = self.program.function(NOP + RET)

    def thread(self, callers: list[bool], damage: dict[int, int] | None = None) -> Thread:
        """A thread in leaf below these callers, innermost first; True is g."""
        addresses = [self.g if is_g else self.f for is_g in callers] + [self.start + 5]
        layout: list[int] = []
        frame_words: list[int] = []
        for depth, is_g in enumerate(callers):
            layout.append(addresses[depth])
            # f: local, rbx; g: local, r12, rbp. The return address follows as the next frame's first word.
            layout += [0, 0x1000 + depth] if not is_g else [0, 0x2000 + depth, -1]
            frame_words.append(len(layout) - 1)
        layout += [addresses[-1], 0]
        probe = self.program.thread(self.leaf, layout)
        # rbp of each g frame is where its own rbp is saved; every saved one names the next g frame outwards.
        following = 0
        for depth in reversed(range(len(callers))):
            if callers[depth]:
                layout[frame_words[depth]] = following
                following = probe.registers.sp + 8 * frame_words[depth]
        for index, word in (damage or {}).items():
            layout[index % len(layout)] = word
        return self.program.thread(self.leaf, layout, {RBP: following, RBX: 1, R12: 2})


@given(st.lists(st.booleans(), max_size=60))
def test_a_second_walk_finds_what_the_first_found(callers: list[bool]) -> None:
    thread = Recursion().thread(callers)
    unwinder = Unwinder()
    first = unwinder.unwind(thread)
    assert first.stop.is_end
    assert len(callers) + 2 == len(first.frames)
    assert first == unwinder.unwind(thread)


@given(st.lists(st.booleans(), min_size=3, max_size=40))
def test_registers_are_restored_over_strides(callers: list[bool]) -> None:
    thread = Recursion().thread(callers)
    unwinder = Unwinder()
    stepped, frames = by_steps(unwinder, thread)
    state = unwinder.start(thread)
    passed: list[object] = []
    while not state.done:
        state.stride(passed, 1 << 20)  # type: ignore[arg-type]
        passed.append(state.frame())
        state.next()
    assert (stepped.registers, stepped.ip, stepped.sp) == (state.registers, state.ip, state.sp)
    assert len(frames) == len(passed)


@given(
    st.lists(st.booleans(), min_size=2, max_size=30),
    st.dictionaries(st.integers(0, 200), st.one_of(st.integers(0, (1 << 64) - 1), st.integers(STACK, STACK_END)), max_size=3),
)
def test_a_damaged_stack_gives_the_same_with_and_without_strides(callers: list[bool], damage: dict[int, int]) -> None:
    recursion = Recursion()
    unwinder = Unwinder()
    unwinder.unwind(recursion.thread(callers))
    sound = recursion.thread(callers)
    damaged = recursion.thread(callers, damage)
    # The same program and mappings, so that what is known of its code is used.
    thread = Thread(damaged.registers, damaged.memory, sound.space, sound.ends)
    unwinder.unwind(sound)
    expected: Stack = Unwinder().unwind(thread)
    assert expected == unwinder.unwind(thread)
    assert expected == unwinder.unwind(thread)


def test_a_stack_of_which_only_a_part_is_held_is_read_piece_by_piece() -> None:
    recursion = Recursion()
    thread = recursion.thread([False] * 400)
    assert isinstance(thread.memory, Layered)
    unwinder = Unwinder()
    whole = unwinder.unwind(thread)
    image, stack, *rest = thread.memory.layers
    keep = thread.registers.sp - STACK + 2000
    short = type(stack)(STACK, stack.data[:keep])  # type: ignore[attr-defined, call-arg]
    cut = Thread(thread.registers, Layered((image, short, *rest)), thread.space, thread.ends)
    stepped = Unwinder().unwind(cut)
    assert stepped == unwinder.unwind(cut)
    assert whole.frames[: len(stepped.frames) - 1] == stepped.frames[:-1]
    assert def_cfa(RSP, 8) in recursion.program.initial
