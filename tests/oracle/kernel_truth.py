"""The truth about the stacks of a kernel: what one virtual CPU will return to, followed instruction by instruction.

Nothing is taken from names or unwind tables. An entry is pushed by what the CPU did (a call's word on the stack, an interrupt's five
words), and leaves when it is returned to. Calls that are never returned to (retpolines, `call; pop`, the filling of the return stack
buffer) are known by that afterwards, so a state is judged when its trace has ended.
"""

from __future__ import annotations

import enum
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from unspool.model.memory import Memory

LONGEST = 15
"""Bytes of the longest x86 instruction."""
UNDECIDED = 300
"""Steps after which an entry that is still there will be returned to: no trick of the kernel keeps a false one for longer."""
TRICK = 64
"""Steps that such a trick takes when no interrupt comes into it: 16 calls that fill the return stack buffer are the longest."""
AT_ONCE = 8
"""Steps in which a retpoline returns elsewhere than its call pushed. A tracer takes longer to put its trampoline into a caller's word."""
PT_REGS = 168
"""Bytes at the top of a task's stack that hold its saved registers (arch/x86/include/asm/ptrace.h)."""

_FRAME = struct.Struct("<5Q")
_KERNEL_CS, _USER_CS = 0x10, frozenset({0x33, 0x23})
_PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3})
_STRINGS = frozenset({0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF, 0x6C, 0x6D, 0x6E, 0x6F})


class Operation(enum.Enum):
    """What an instruction may do to the list of pending returns."""

    OTHER = enum.auto()
    CALL = enum.auto()
    RETURN = enum.auto()
    INTERRUPT_RETURN = enum.auto()
    HALT = enum.auto()
    STRING = enum.auto()


def decode(code: bytes) -> tuple[Operation, int]:
    """The operation of the instruction that the bytes begin with; of a repeated string instruction also its length (else 0).

    >>> decode(bytes.fromhex("e800000000"))[0].name, decode(bytes.fromhex("48cf000000"))[0].name
    ('CALL', 'INTERRUPT_RETURN')
    """
    at, repeated = 0, False
    while at < len(code) - 2 and (code[at] in _PREFIXES):
        repeated |= code[at] in {0xF2, 0xF3}
        at += 1
    if code[at] & 0xF0 == 0x40 and at < len(code) - 2:  # REX
        at += 1
    opcode, modrm = code[at], code[at + 1]
    if opcode == 0xE8 or (opcode == 0xFF and (modrm >> 3) & 7 == 2):
        return Operation.CALL, 0
    if opcode in {0xC3, 0xC2, 0xCB, 0xCA}:
        return Operation.RETURN, 0
    if opcode == 0xCF:
        return Operation.INTERRUPT_RETURN, 0
    if opcode == 0xF4:
        return Operation.HALT, 0
    if repeated and opcode in _STRINGS:
        return Operation.STRING, at + 1
    return Operation.OTHER, 0


class Fate(enum.Enum):
    """What became of an entry."""

    PENDING = enum.auto()
    RETURNED = enum.auto()
    DISCARDED = enum.auto()


@dataclass(slots=True, eq=False)
class Pending:
    """A pending return point. `interrupt`: `ra` is the interrupted instruction, not the one after a call.

    `slot` is the word on the stack that holds it, `step` when it was pushed. `landing`: where an interrupt's return really led to, which is
    elsewhere when the kernel mends a fault of its own (the exception table), or steps over a probe. `sp`: the interrupted stack pointer.
    `known`: False when that is all that was seen of an interrupt, and the kernel may have led it elsewhere.
    `detoured`: a return has taken another address from the slot, of a trampoline, which may still lead to `ra` (return probes, ftrace).
    """

    ra: int
    slot: int
    step: int
    interrupt: bool = False
    fate: Fate = Fate.PENDING
    landing: int | None = None
    sp: int = 0
    known: bool = True
    detoured: bool = False


class Instant(NamedTuple):
    """Where the CPU stands before an instruction."""

    pc: int
    sp: int
    user: bool


@dataclass(slots=True, eq=False)
class Base:
    """What lies outside of the entries that were seen to be pushed.

    A stack that was met in its midst has callers that are found only when it returns to them: `found`, innermost first. `closed`: there is
    nothing beyond these. `user`: pc and stack pointer of user mode when it was left (a system call: the stack pointer alone).
    """

    found: list[Pending] = field(default_factory=list)
    closed: bool = False
    user: tuple[int | None, int] | None = None


@dataclass(slots=True)
class Chain:
    """The pending returns of one task, outermost first."""

    base: Base
    entries: list[Pending] = field(default_factory=list)


class Region(NamedTuple):
    """A stack; `task`: it belongs to a task and not to the CPU."""

    start: int
    end: int
    task: bool


@dataclass(frozen=True, slots=True)
class State:
    """A moment that was asked about: `entries` innermost first, and how many of the base's were already returned to."""

    pc: int
    step: int
    entries: tuple[Pending, ...]
    base: Base
    returned: int

    def truth(self) -> list[Pending]:
        """The pending returns, innermost first, as they are known by now."""
        pushed = [entry for entry in self.entries if entry.fate is not Fate.DISCARDED]
        return pushed + self.base.found[self.returned :]

    def decided(self, steps: int) -> bool:
        """Whether it is known after so many steps which of the entries are real; not of what an interrupt came into at once."""
        interrupted = steps
        for entry in self.entries:
            young = steps - entry.step < UNDECIDED or interrupted - entry.step < TRICK
            if entry.fate is Fate.PENDING and (young or entry.detoured):
                return False
            interrupted = entry.step if entry.interrupt else interrupted
        return True


class Tracker:
    """Follows one CPU. `region` tells the stack of a stack pointer, `plausible` whether a return may lead to an address.

    `events` counts what happened; `anomalies` what this model of a CPU does not explain.
    """

    def __init__(
        self, memory: Memory, region: Callable[[int], Region | None], plausible: Callable[[int], bool], *, saved: int = PT_REGS
    ) -> None:
        """Begin anywhere: nothing is known of the stack yet. `saved`: bytes at the top of a task's stack that no call uses."""
        self.memory = memory
        self.region = region
        self.plausible = plausible
        self.saved = saved
        self.chain = Chain(Base())
        self.steps = 0
        self.events: Counter[str] = Counter()
        self.anomalies: Counter[str] = Counter()
        self._tasks: dict[Region, tuple[Chain, int]] = {}

    def state(self, pc: int) -> State:
        """The present moment."""
        return State(pc, self.steps, tuple(reversed(self.chain.entries)), self.chain.base, len(self.chain.base.found))

    def asleep(self) -> Iterator[tuple[int, State]]:
        """The tasks that were switched away from: their stack pointer, and their state (its pc: where they will return to)."""
        for chain, sp in self._tasks.values():
            if chain.entries and all(self._in_place(entry) for entry in chain.entries):
                *outer, top = chain.entries
                yield sp, State(top.ra, self.steps, tuple(reversed(outer)), chain.base, len(chain.base.found))

    def forget_tasks(self) -> None:
        """Other tasks have run unseen."""
        self._tasks.clear()

    def follow(self, before: Instant, after: Instant, code: bytes) -> None:
        """Take one step: the CPU stood at `before`, where `code` lies, and stands at `after` now."""
        self.steps += 1
        if after == before:
            # A part of a string instruction, or the emulator was asked to stop before it came to the instruction.
            self.events["steps that led nowhere"] += decode(code)[0] is not Operation.STRING
            return
        if after.user:
            if not before.user:
                self._left()
            return
        if before.user:
            self.events["entries from user mode"] += 1
            user = self._user(after)
            self.chain = Chain(Base(closed=user is not None, user=user))
            return
        if self._interrupted(before, after):
            return
        match decode(code)[0]:
            case Operation.CALL if after.sp == before.sp - 8 and self._called(before, after):
                return
            case Operation.RETURN:
                self._returned(before, after)
            case Operation.INTERRUPT_RETURN:
                self._resumed(before, after)
            case _:
                self._moved(before, after)
        self._arrived(after)
        if after.sp > before.sp:
            self._drop(after.sp)

    def _user(self, after: Instant) -> tuple[int | None, int] | None:
        """The place in user mode that the CPU has just left."""
        if after.sp < 1 << 63:
            return None, after.sp
        for at in (after.sp, after.sp + 8):
            data = self.memory.read(at, _FRAME.size)
            ip, cs, _, sp, _ = _FRAME.unpack(data or bytes(_FRAME.size))
            if cs in _USER_CS:
                return ip, sp
        return None

    def _left(self) -> None:
        """Back in user mode: nothing is pending, and nothing was."""
        self.events["returns to user mode"] += 1
        if any(entry.fate is Fate.PENDING for entry in self.chain.entries):
            self.anomalies["user mode with pending returns"] += 1
        for entry in self.chain.entries:
            entry.fate = Fate.DISCARDED
        self.chain.base.closed = True
        self.chain = Chain(Base(closed=True))

    def _interrupted(self, before: Instant, after: Instant) -> bool:
        """Whether the CPU has pushed the place it was at, instead of running the instruction, or at its end."""
        if before.pc < after.pc <= before.pc + LONGEST or after.sp == before.sp:
            return False
        if after.sp > before.sp - _FRAME.size and self.region(after.sp) == self.region(before.sp):
            return False
        for at in (after.sp, after.sp + 8):  # some exceptions push an error code
            data = self.memory.read(at, _FRAME.size)
            if data is None:
                continue
            ip, cs, _, sp, _ = _FRAME.unpack(data)
            if cs == _KERNEL_CS and sp == before.sp and before.pc <= ip <= before.pc + LONGEST:
                self.events["interrupts and exceptions of the kernel"] += 1
                self.chain.entries.append(Pending(ip, at, self.steps, interrupt=True, sp=sp))
                return True
        return False

    def _called(self, before: Instant, after: Instant) -> bool:
        data = self.memory.read(after.sp, 8)
        ra = 0 if data is None else int.from_bytes(data, "little")
        if not before.pc < ra <= before.pc + LONGEST:
            self.anomalies["calls that pushed something else"] += 1
            return False
        self.events["calls"] += 1
        self.chain.entries.append(Pending(ra, after.sp, self.steps))
        return True

    def _returned(self, before: Instant, after: Instant) -> None:
        entries = self.chain.entries
        self._drop(before.sp, detours=True)
        top = entries[-1] if entries else None
        if top is None:
            self._found(Pending(after.pc, before.sp, self.steps, fate=Fate.RETURNED), after)
        elif top.ra == after.pc and not top.interrupt and self.region(top.slot) == self.region(before.sp):
            # error_entry takes its return address off the stack and puts it back elsewhere.
            self.events["returns" if top.slot == before.sp else "returns from another slot"] += 1
            entries.pop().fate = Fate.RETURNED
        elif top.slot == before.sp and not top.interrupt and self.steps - top.step > AT_ONCE:
            self.events["returns to a trampoline"] += 1
            top.detoured = True
        elif top.slot == before.sp:
            self.events["return addresses rewritten"] += 1
            entries.pop().fate = Fate.DISCARDED
        else:
            self.events["returns used as jumps"] += 1

    def _resumed(self, before: Instant, after: Instant) -> None:
        """After iretq."""
        entries = self.chain.entries
        self._drop(before.sp)
        top = entries[-1] if entries else None
        if top is not None and top.interrupt and (top.slot == before.sp or top.ra == after.pc or top.sp in {after.sp, after.sp + 8}):
            self.events["interrupt returns"] += 1
            top.fate, top.landing = Fate.RETURNED, after.pc
            entries.pop()
            if after.sp == top.sp - 8:
                self._emulated(after)
        elif top is None and not before.pc < after.pc <= before.pc + LONGEST:
            # The kernel has moved the five words (for an int3, to push below the interrupted stack pointer), and may have changed them.
            moved = after.sp - before.sp >= 2 * _FRAME.size - 16 and self.region(after.sp) == self.region(before.sp)
            self._found(Pending(after.pc, before.sp, self.steps, interrupt=True, fate=Fate.RETURNED, known=not moved), after)
        else:
            # sync_core() returns to the instruction after its iretq.
            self.events["interrupt returns used as jumps"] += 1

    def _emulated(self, after: Instant) -> None:
        """After an int3 in whose place the kernel has made a call (int3_emulate_call, arch/x86/include/asm/text-patching.h)."""
        data = self.memory.read(after.sp, 8)
        ra = 0 if data is None else int.from_bytes(data, "little")
        if self.plausible(ra):
            self.events["calls that an int3 stood for"] += 1
            self.chain.entries.append(Pending(ra, after.sp, self.steps))

    def _arrived(self, after: Instant) -> None:
        """Where a trampoline leads to what was to be returned to, that is its return."""
        entries = self.chain.entries
        if entries and entries[-1].detoured and (after.pc, after.sp) == (entries[-1].ra, entries[-1].slot + 8):
            self.events["returns by a trampoline"] += 1
            entries.pop().fate = Fate.RETURNED

    def _found(self, entry: Pending, after: Instant) -> None:
        """A return to what was there before the trace began."""
        base = self.chain.base
        if base.closed or not (entry.interrupt or self.plausible(entry.ra)):
            self.events["returns used as jumps"] += 1
            return
        base.found.append(entry)
        here = self.region(after.sp)
        if here is not None and here.task and after.sp >= here.end - self.saved:
            base.closed = True

    def _moved(self, before: Instant, after: Instant) -> None:
        """After an instruction that may have set the stack pointer: from one task's stack to another's is a switch of tasks."""
        old, new = (self.region(before.sp), self.region(after.sp)) if abs(after.sp - before.sp) > 8 else (None, None)
        if old == new or old is None or new is None:
            return
        if not (old.task and new.task):
            self.events["changes of the stack"] += 1
            return
        self.events["switches of tasks"] += 1
        self._tasks[old] = self.chain, before.sp
        chain, sp = self._tasks.pop(new, (self.chain, 0))
        # A stack of a task that has ended is another task's later.
        if sp == after.sp and all(self._in_place(entry) for entry in chain.entries):
            self.chain = chain
        else:
            self.chain = Chain(Base())

    def _in_place(self, entry: Pending) -> bool:
        data = self.memory.read(entry.slot, 8)
        return entry.detoured or (data is not None and int.from_bytes(data, "little") == entry.ra)

    def _drop(self, sp: int, *, detours: bool = False) -> None:
        """Entries whose slot the stack pointer has passed will not be returned to. Unless it returns, a trampoline may still lead there."""

        def passed(entry: Pending) -> bool:
            return entry.slot + (8 if entry.detoured and not detours else 0) < sp

        entries = self.chain.entries
        here = self.region(sp) if entries and passed(entries[-1]) else None
        while here is not None and entries and passed(entries[-1]) and self.region(entries[-1].slot) == here:
            self.events["entries left behind"] += 1
            entries.pop().fate = Fate.DISCARDED


def regions(cpu: list[Region], task_size: int) -> Callable[[int], Region | None]:
    """The stack of a stack pointer: one of the CPU's, else a task's, which is aligned to its size; None in the lower half."""

    def region(sp: int) -> Region | None:
        if sp < 1 << 63:
            return None
        for stack in cpu:
            if stack.start < sp <= stack.end:
                return stack
        start = (sp - 1) & -task_size
        return Region(start, start + task_size, task=True)

    return region
