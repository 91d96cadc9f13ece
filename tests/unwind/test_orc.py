"""Rules out of ORC entries: the formulas of arch/x86/kernel/unwind_orc.c."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unwind.kernel_builder import END, UNKNOWN, call, pt_regs, saved

from unspool.formats.dwarf import How
from unspool.formats.orc import OrcEntry, OrcRegister, OrcType
from unspool.model.arch import X86_64
from unspool.model.memory import Bytes
from unspool.model.module import AddressSpace
from unspool.model.verdict import Stop
from unspool.unwind.methods import orc
from unspool.unwind.rule import Miss, Rule
from unspool.unwind.step import Position, find_cfa, step

SP, BP = X86_64.sp, X86_64.fp
BASE = 0x1000


def position(words: list[int], **registers: int) -> Position:
    """A frame whose stack begins at BASE; the checks of stacks are off, because one formula is looked at."""
    memory = Bytes(BASE, struct.pack(f"<{len(words)}Q", *words))
    values = {SP: BASE, **{{"bp": BP, "r10": 10, "r13": 13, "di": 5, "dx": 1, "ax": 0}[name]: value for name, value in registers.items()}}
    return Position(X86_64, memory, AddressSpace.of(()), values, 0x4000, BASE, guarded=False)


def stepped(entry: OrcEntry, here: Position) -> tuple[int, int, int | None]:
    """The caller's ip, sp and bp."""
    rule = orc.rule_of(entry)
    assert isinstance(rule, Rule)
    cfa = find_cfa(rule, here)
    assert isinstance(cfa, int)
    assert step(rule, cfa, here) is None
    return here.ip, here.sp, here.values.get(BP)


@pytest.mark.parametrize(
    ("entry", "registers"),
    [
        (call(24), {"bp": 7}),
        (call(16, base=OrcRegister.BP), {"bp": BASE + 8}),
        (call(0, base=OrcRegister.R10), {"r10": BASE + 24, "bp": 7}),
        (call(0, base=OrcRegister.R13), {"r13": BASE + 24, "bp": 7}),
        (call(0, base=OrcRegister.DI), {"di": BASE + 24, "bp": 7}),
        (call(0, base=OrcRegister.DX), {"dx": BASE + 24, "bp": 7}),
        (call(0, base=OrcRegister.AX), {"ax": BASE + 24, "bp": 7}),
        (call(8, base=OrcRegister.SP_INDIRECT), {"bp": 7}),
        (call(-8, base=OrcRegister.BP_INDIRECT), {"bp": BASE + 40}),
    ],
    ids=lambda value: value.sp_reg.name if isinstance(value, OrcEntry) else "",
)
def test_every_base_leads_to_the_same_frame(entry: OrcEntry, registers: dict[str, int]) -> None:
    """The frame is BASE + 24; the words say so where a pointer is followed."""
    words = [BASE + 16, 0, 0x5555, 0, BASE + 24]
    assert (0x5555, BASE + 24, registers["bp"]) == stepped(entry, position(words, **registers))


def test_rbp_is_restored_from_where_the_entry_says() -> None:
    words = [0, 0xB9, 0x5555, 0xBA]
    assert (0x5555, BASE + 24, 0xB9) == stepped(call(24, bp=(OrcRegister.PREV_SP, -16)), position(words))
    assert (0x5555, BASE + 24, 0xBA) == stepped(call(24, bp=(OrcRegister.BP, 16)), position(words, bp=BASE + 8))


@pytest.mark.parametrize("signal", [True, False])
def test_saved_registers_give_all_of_them(*, signal: bool) -> None:
    here = position([0, *pt_regs(0x7000, 0x9000, bp=1, r13=2, r10=3, di=4, dx=5)])
    assert (0x7000, 0x9000, 1) == stepped(saved(8, signal=signal), here)
    assert [2, 3, 4, 5] == [here.values[number] for number in (13, 10, 5, 1)]
    assert signal == here.exact


def test_the_processors_frame_leaves_the_others_as_they_are() -> None:
    here = position([0x7000, 0x10, 0x246, 0x9000, 0x18], bp=1, r13=2, di=4)
    assert (0x7000, 0x9000, 1) == stepped(saved(0, OrcType.REGS_PARTIAL), here)
    assert [2, 4] == [here.values[number] for number in (13, 5)]


def test_what_says_nothing_is_a_miss_and_an_end_has_no_return_address() -> None:
    ended, unknown = orc.rule_of(END), orc.rule_of(UNKNOWN)
    assert isinstance(ended, Rule)
    assert ended.outermost
    assert isinstance(unknown, Miss)
    assert Stop.NO_UNWIND_INFO is unknown.stop


@given(
    st.builds(
        OrcEntry,
        st.sampled_from(OrcRegister),
        st.integers(-(1 << 15), (1 << 15) - 1),
        st.sampled_from(OrcRegister),
        st.integers(-(1 << 15), (1 << 15) - 1),
        st.sampled_from(OrcType),
        signal=st.booleans(),
        end=st.booleans(),
    )
)
def test_every_entry_is_a_rule_or_a_miss(entry: OrcEntry) -> None:
    """A register that was never seen as a base is refused, not guessed."""
    rule = orc.rule_of(entry)
    if isinstance(rule, Rule):
        assert rule.outermost == (entry.type is OrcType.END_OF_STACK)
        assert rule.outermost or How.OFFSET is rule.ra.how
        return
    odd = {OrcRegister.UNDEFINED, OrcRegister.PREV_SP, OrcRegister.UNKNOWN}
    known = {OrcRegister.UNDEFINED, OrcRegister.PREV_SP, OrcRegister.BP}
    assert entry.type is OrcType.UNDEFINED or entry.sp_reg in odd or entry.bp_reg not in known
