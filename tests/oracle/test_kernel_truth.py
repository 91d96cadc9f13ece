"""The truth about a kernel's stacks, on instructions written down here: what the CPU does decides, and not what code looks like."""

from __future__ import annotations

import struct

import pytest
from oracle.kernel_score import Told, is_exact, is_sound
from oracle.kernel_truth import AT_ONCE, TRICK, UNDECIDED, Instant, Operation, Region, State, Tracker, decode, regions

from unspool.model.verdict import Stop

TASK, OTHER, IRQ, ENTRY = (0xFFFF_C900_0000_0000 + number * 0x10000 for number in range(4))
TOP, OTHER_TOP, IRQ_TOP = TASK + 0x4000, OTHER + 0x4000, IRQ + 0x4000
TEXT = 0xFFFF_FFFF_8100_0000
TRAMPOLINE = TEXT + 0x8000
CALL, RET, IRET, NOP, FILL = (bytes.fromhex(code).ljust(16, b"\x90") for code in ("e800000000", "c3", "48cf", "90", "4883c410"))


class Machine:
    """A CPU whose instructions are named by what they do; `tracker` follows it."""

    def __init__(self, pc: int = TEXT, sp: int = TOP - 0x200, *, user: bool = False) -> None:
        """Stand there."""
        self.words: dict[int, int] = {}
        self.at = Instant(pc, sp, user)
        self.fakes: set[int] = set()
        stacks = [Region(IRQ, IRQ_TOP, task=False), Region(ENTRY, ENTRY + 0x1000, task=False)]
        self.tracker = Tracker(self, regions(stacks, 0x4000), lambda address: address not in self.fakes)

    def read(self, address: int, size: int) -> bytes | None:
        """The words that were pushed, else zeros."""
        return b"".join(struct.pack("<Q", self.words.get(address + at, 0)) for at in range(0, size, 8))

    def push(self, *words: int) -> None:
        """The words as code pushes them, the last one on top."""
        for word in words:
            self.go(NOP, self.at.pc + 1, self.at.sp - 8)
            self.words[self.at.sp] = word

    def go(self, code: bytes, pc: int, sp: int | None = None, *, user: bool = False) -> None:
        """One instruction that leads there."""
        before, self.at = self.at, Instant(pc, self.at.sp if sp is None else sp, user)
        self.tracker.follow(before, self.at, code)

    def call(self, pc: int) -> int:
        """A call; the return address."""
        ra = self.at.pc + 5
        self.words[self.at.sp - 8] = ra
        self.go(CALL, pc, self.at.sp - 8)
        return ra

    def ret(self) -> None:
        """Return to the word on top."""
        self.go(RET, self.words[self.at.sp], self.at.sp + 8)

    def interrupt(self, pc: int, top: int | None = None, cs: int = 0x10, *, error: bool = False) -> int:
        """An interrupt or (with an error code) an exception, onto the stack with that top; the interrupted pc."""
        ip, sp = self.at.pc, self.at.sp
        frame = ((sp if top is None else top) & -16) - 40
        self.words |= dict(zip(range(frame, frame + 40, 8), (ip, cs, 2, sp, 0x18), strict=True))
        self.go(NOP, pc, frame - 8 * error)
        return ip

    def iret(self) -> None:
        """Return to where the five words lead."""
        ip, cs, _, sp, _ = (self.words[self.at.sp + at] for at in range(0, 40, 8))
        self.go(IRET, ip, sp, user=cs == 0x33)

    def enter(self) -> None:
        """A system call out of user mode, and the change to the task's stack."""
        self.at = Instant(0x401000, 0x7FFE_0000_0000, user=True)
        self.go(NOP, TEXT)
        self.go(NOP, TEXT + 5, TOP - 168)

    def state(self) -> State:
        """The present moment."""
        return self.tracker.state(self.at.pc)


def truth(state: State) -> list[int]:
    return [entry.ra for entry in state.truth()]


def test_calls_are_pending_until_they_return() -> None:
    machine = Machine()
    machine.enter()
    outer = machine.call(TEXT + 0x100)
    inner = machine.call(TEXT + 0x200)
    within = machine.state()
    machine.ret()
    assert [inner, outer] == truth(within)
    assert [outer] == truth(machine.state())
    machine.ret()
    assert [] == truth(machine.state())
    assert within.base.closed
    assert (None, 0x7FFE_0000_0000) == within.base.user


def test_a_step_that_led_nowhere_has_returned_nowhere() -> None:
    machine = Machine()
    machine.enter()
    ra = machine.call(TEXT + 0x100)
    machine.go(RET, machine.at.pc)
    assert [ra] == truth(machine.state())
    machine.ret()
    assert [] == truth(machine.state())


def test_a_retpolines_call_is_none() -> None:
    """It writes the target over the return address: nothing returns to behind the call, and that was so from the beginning."""
    machine = Machine()
    machine.enter()
    outer = machine.call(TEXT + 0x100)
    machine.call(TEXT + 0x110)
    within = machine.state()
    machine.words[machine.at.sp] = TEXT + 0x300
    machine.ret()
    assert [outer] == truth(within) == truth(machine.state())
    machine.ret()
    assert [] == truth(machine.state())


def test_a_retpoline_that_an_interrupt_came_into_is_not_decided_before_it_ends() -> None:
    """However long the interrupt takes: its call is still pending, and is none."""
    machine = Machine()
    machine.enter()
    machine.call(TEXT + 0x100)
    machine.call(TEXT + 0x110)
    machine.interrupt(TEXT + 0x900)
    within = machine.state()
    assert not within.decided(machine.tracker.steps + UNDECIDED)
    old = Machine()
    old.enter()
    old.call(TEXT + 0x100)
    for step in range(TRICK):
        old.go(NOP, TEXT + 0x101 + step)
    old.interrupt(TEXT + 0x900)
    assert old.state().decided(old.tracker.steps + UNDECIDED)


def test_filling_the_return_stack_buffer_calls_nothing() -> None:
    machine = Machine()
    machine.enter()
    outer = machine.call(TEXT + 0x100)
    machine.call(machine.at.pc + 6)
    machine.call(machine.at.pc + 6)
    within = machine.state()
    machine.go(FILL, machine.at.pc + 4, machine.at.sp + 16)
    assert [outer] == truth(within) == truth(machine.state())


def test_a_return_address_that_was_moved_is_still_returned_to() -> None:
    """error_entry takes it off the stack, pushes registers, and puts it on top of them."""
    machine = Machine()
    machine.enter()
    ra = machine.call(TEXT + 0x100)
    machine.words[machine.at.sp] = 0x1234
    machine.push(1, 2, 3, ra)
    within = machine.state()
    machine.ret()
    assert [ra] == truth(within)
    assert [] == truth(machine.state())
    assert 1 == machine.tracker.events["returns from another slot"]


def test_a_return_to_a_pushed_address_is_a_jump() -> None:
    machine = Machine()
    machine.enter()
    ra = machine.call(TEXT + 0x100)
    machine.push(TEXT + 0x500)
    machine.ret()
    assert [ra] == truth(machine.state())
    assert 1 == machine.tracker.events["returns used as jumps"]


@pytest.mark.parametrize("error", [False, True])
def test_an_interrupt_on_another_stack_and_back(*, error: bool) -> None:
    machine = Machine()
    machine.enter()
    ra = machine.call(TEXT + 0x100)
    pc = machine.interrupt(TEXT + 0x800, error=error)
    handler = machine.call(TEXT + 0x900)
    sp = machine.at.sp
    machine.go(NOP, machine.at.pc + 3, IRQ_TOP - 8)
    inner = machine.call(TEXT + 0xA00)
    within = machine.state()
    machine.ret()
    machine.go(NOP, machine.at.pc + 3, sp)
    machine.ret()
    if error:
        machine.go(NOP, machine.at.pc + 4, machine.at.sp + 8)
    machine.iret()
    assert [inner, handler, pc, ra] == truth(within)
    assert [ra] == truth(machine.state())
    assert not machine.tracker.anomalies


def test_a_fault_that_the_kernel_mends_lands_elsewhere() -> None:
    """The exception table: the handler changes the saved pc. Both places are the interrupted function's."""
    machine = Machine()
    machine.enter()
    pc = machine.interrupt(TEXT + 0x800)
    within = machine.state()
    machine.words[machine.at.sp] = TEXT + 0x50
    machine.iret()
    (entry,) = within.truth()
    assert (pc, TEXT + 0x50) == (entry.ra, entry.landing)


def traced(machine: Machine) -> int:
    """A function is called, and a tracer puts its trampoline where the return address was; the address."""
    ra = machine.call(TEXT + 0x100)
    slot = machine.at.sp
    for step in range(AT_ONCE + 1):
        machine.go(NOP, TEXT + 0x101 + step)
    machine.words[slot] = TRAMPOLINE
    return ra


def test_a_return_that_a_trampoline_leads_to_its_place_is_one() -> None:
    """The function graph tracer's trampoline calls the tracer, and gets to the caller by a retpoline of its own."""
    machine = Machine()
    machine.enter()
    ra = traced(machine)
    within = machine.state()
    machine.ret()
    assert TRAMPOLINE == machine.at.pc
    machine.push(1, 2)
    inner = machine.call(TRAMPOLINE + 0x1000)
    in_tracer = machine.state()
    machine.ret()
    machine.go(FILL, machine.at.pc + 4, machine.at.sp + 16)
    machine.call(machine.at.pc + 6)
    machine.words[machine.at.sp] = ra
    last = machine.state()
    assert not within.decided(machine.tracker.steps + UNDECIDED)
    machine.ret()
    assert ([ra], [inner, ra], [ra], []) == (truth(within), truth(in_tracer), truth(last), truth(machine.state()))
    assert within.decided(machine.tracker.steps)


def test_a_trampoline_that_puts_the_address_back_and_returns_to_it() -> None:
    """What return probes do: the word that led to the trampoline is written again."""
    machine = Machine()
    machine.enter()
    ra = traced(machine)
    slot = machine.at.sp
    machine.ret()
    machine.push(TRAMPOLINE, 1)
    within = machine.state()
    machine.go(FILL, machine.at.pc + 4, slot)
    machine.words[slot] = ra
    machine.ret()
    assert [ra] == truth(within)
    assert [] == truth(machine.state())
    assert not machine.tracker.anomalies


def test_a_trampoline_that_never_leads_back_was_a_jump() -> None:
    machine = Machine()
    machine.enter()
    outer = machine.call(TEXT + 0x80)
    traced(machine)
    within = machine.state()
    machine.ret()
    machine.ret()
    assert [outer] == truth(within)
    assert [] == truth(machine.state())


def test_an_int3_whose_registers_were_moved_to_step_elsewhere() -> None:
    """The kernel leaves room below the interrupted stack pointer (idtentry_body of entry_64.S), and goes on behind a probe's copy."""
    machine = Machine()
    machine.enter()
    outer = machine.call(TEXT + 0x100)
    sp = machine.at.sp
    probe = machine.interrupt(TEXT + 0x9000)
    within = machine.state()
    machine.push(TEXT + 0x700, 0x10, 2, sp, 0x18)
    machine.words |= dict(zip(range(machine.at.sp, machine.at.sp + 40, 8), (TEXT + 0x700, 0x10, 2, sp, 0x18), strict=True))
    machine.iret()
    assert TEXT + 0x700 == machine.at.pc
    assert [probe, outer] == truth(within)
    assert TEXT + 0x700 == within.truth()[0].landing
    assert [outer] == truth(machine.state())


def test_an_int3_in_whose_place_the_kernel_made_a_call() -> None:
    machine = Machine()
    machine.enter()
    sp = machine.at.sp
    machine.interrupt(TEXT + 0x9000)
    machine.words[sp - 8] = TEXT + 5
    machine.words |= dict(zip(range(sp - 0x80, sp - 0x58, 8), (TEXT + 0x300, 0x10, 2, sp - 8, 0x18), strict=True))
    machine.at = Instant(machine.at.pc, sp - 0x80, user=False)
    machine.iret()
    assert [TEXT + 5] == truth(machine.state())
    machine.ret()
    assert [] == truth(machine.state())


def test_a_trace_that_begins_in_an_int3_does_not_know_where_it_was_raised() -> None:
    """Its return leads to the probe's copy. Some frame must stand there in an answer, and the callers behind it."""
    machine = Machine()
    sp = machine.at.sp
    outer, slot = TEXT + 0x45, TEXT + 0x700
    inner = machine.state()
    machine.words |= {sp: outer} | dict(zip(range(sp - 0x58, sp - 0x30, 8), (slot, 0x10, 2, sp, 0x18), strict=True))
    machine.at = Instant(machine.at.pc, sp - 0x58, user=False)
    machine.iret()
    machine.ret()
    assert [slot, outer] == truth(inner)
    assert not inner.truth()[0].known
    for callers, sound in (((TEXT + 0x300, outer), True), ((outer,), False)):
        assert sound is is_sound(told(inner, *callers), function)


def test_an_iretq_that_goes_on_behind_itself_leaves_the_list() -> None:
    """sync_core() pushes five words and returns to the next instruction."""
    machine = Machine()
    machine.enter()
    ra = machine.call(TEXT + 0x100)
    sp = machine.at.sp
    machine.push(0x18, sp, 2, 0x10, machine.at.pc + 10)
    machine.words[machine.at.sp] = machine.at.pc + 2
    machine.iret()
    assert sp == machine.at.sp
    assert [ra] == truth(machine.state())


def test_each_task_has_its_own_list() -> None:
    machine = Machine()
    machine.enter()
    first = machine.call(TEXT + 0x100)
    sp = machine.at.sp
    machine.go(NOP, machine.at.pc + 4, OTHER_TOP - 0x400)
    second = machine.call(TEXT + 0x200)
    other = machine.state()
    machine.ret()
    machine.go(NOP, machine.at.pc + 4, sp)
    assert [first] == truth(machine.state())
    assert [second] == truth(other)
    assert not other.base.closed


def test_a_task_that_was_switched_away_from_is_asleep_with_its_list() -> None:
    machine = Machine()
    machine.enter()
    outer = machine.call(TEXT + 0x100)
    inner = machine.call(TEXT + 0x200)
    sp = machine.at.sp
    machine.go(NOP, machine.at.pc + 4, OTHER_TOP - 0x400)
    ((left, state),) = machine.tracker.asleep()
    assert (sp, inner, [outer]) == (left, state.pc, truth(state))
    machine.words[sp] = 0
    assert [] == list(machine.tracker.asleep())


def test_a_stack_that_another_task_was_given_has_no_old_entries() -> None:
    """A task ends in the scheduler; a new one gets its stack, and is started at the same depth."""
    machine = Machine()
    machine.enter()
    machine.call(TEXT + 0x100)
    sp = machine.at.sp
    machine.go(NOP, machine.at.pc + 4, OTHER_TOP - 0x400)
    machine.words[sp] = TEXT + 0x700
    machine.go(NOP, machine.at.pc + 4, sp)
    assert [] == truth(machine.state())
    assert not machine.state().base.closed


def test_callers_from_before_the_trace_are_known_once_they_are_returned_to() -> None:
    machine = Machine(sp=TOP - 0x200)
    machine.words[TOP - 0x200] = TEXT + 0x40
    machine.words[TOP - 0x1F8] = TEXT + 0x80
    seen = machine.call(TEXT + 0x100)
    within = machine.state()
    machine.ret()
    machine.ret()
    later = machine.state()
    assert [seen, TEXT + 0x40] == truth(within)
    machine.ret()
    assert [seen, TEXT + 0x40, TEXT + 0x80] == truth(within)
    assert [TEXT + 0x80] == truth(later)
    assert not within.base.closed
    machine.go(NOP, 0x401000, 0x7FFE_0000_0000, user=True)
    assert within.base.closed


def test_a_thunk_that_the_trace_begins_in_returns_to_no_caller() -> None:
    machine = Machine(sp=TOP - 0x200)
    machine.words[TOP - 0x200] = TEXT + 0x300
    machine.fakes = {TEXT + 0x300}
    machine.ret()
    assert [] == truth(machine.state())


def test_where_only_saved_registers_can_lie_is_the_outer_end() -> None:
    """A new task returns to ret_from_fork, below its struct pt_regs."""
    machine = Machine(sp=TOP - 168 - 8)
    machine.words[TOP - 168 - 8] = TEXT + 0x40
    within = machine.state()
    machine.ret()
    assert [TEXT + 0x40] == truth(within)
    assert within.base.closed


def test_leaving_the_kernel_with_pending_returns_is_counted() -> None:
    machine = Machine()
    machine.enter()
    machine.call(TEXT + 0x100)
    machine.go(NOP, 0x401000, 0x7FFE_0000_0000, user=True)
    assert {"user mode with pending returns": 1} == machine.tracker.anomalies


def told(state: State, *callers: int, exact: tuple[bool, ...] = (), reliable: bool = True) -> Told:
    ips = (state.pc, *callers)
    return Told(state, ips, (True, *(exact or (False,) * len(callers))), reliable, Stop.END_KERNEL_ENTRY, None, uniform=False, per_pc=True)


def function(pc: int) -> tuple[str, str]:
    return "", f"{pc & ~0xFF:#x}"


def test_an_answer_that_lacks_a_caller_is_not_sound_and_one_that_has_another_only_not_exact() -> None:
    machine = Machine()
    machine.enter()
    outer = machine.call(TEXT + 0x100)
    inner = machine.call(TEXT + 0x200)
    state = machine.state()
    right, short, long = told(state, inner, outer), told(state, outer), told(state, inner, TEXT + 0x950, outer)
    assert (True, True) == (is_exact(right), is_sound(right, function))
    assert (False, False) == (is_exact(short), is_sound(short, function))
    assert (False, True) == (is_exact(long), is_sound(long, function))


def test_of_a_stack_without_known_end_the_inner_part_is_judged() -> None:
    machine = Machine()
    inner = machine.call(TEXT + 0x200)
    state = machine.state()
    assert is_exact(told(state, inner, TEXT + 0x700))
    assert not is_exact(told(state, TEXT + 0x700))
    assert not is_sound(told(state, TEXT + 0x700), function)


@pytest.mark.parametrize(
    ("code", "operation"),
    [
        ("e811223344", Operation.CALL),
        ("ff1500000000", Operation.CALL),
        ("41ffd3", Operation.CALL),
        ("2effd0", Operation.CALL),
        ("65ff1425c0ed0100", Operation.CALL),
        ("ffe0", Operation.OTHER),
        ("ff30", Operation.OTHER),
        ("e911223344", Operation.OTHER),
        ("c3", Operation.RETURN),
        ("f3c3", Operation.RETURN),
        ("c20800", Operation.RETURN),
        ("48cb", Operation.RETURN),
        ("48cf", Operation.INTERRUPT_RETURN),
        ("f4", Operation.HALT),
        ("f348a5", Operation.STRING),
        ("48a5", Operation.OTHER),
        ("f30f1efa", Operation.OTHER),
        ("f390", Operation.OTHER),
    ],
)
def test_instructions_are_told_by_what_they_may_do_to_the_stack(code: str, operation: Operation) -> None:
    assert operation is decode(bytes.fromhex(code).ljust(16, b"\x90"))[0]


def test_the_length_of_a_repeated_string_instruction() -> None:
    assert (Operation.STRING, 3) == decode(bytes.fromhex("f348ab").ljust(16, b"\x90"))
    assert (Operation.STRING, 2) == decode(bytes.fromhex("f3a4").ljust(16, b"\x90"))
