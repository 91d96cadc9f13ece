"""Unwind data that means harm, and unwind data that is merely odd: what the C walk says of it, beside the reference."""

from __future__ import annotations

import struct
import time
from dataclasses import replace

import pytest
from formats.dwarf.cfi_builder import (
    RA,
    RAX,
    RBP,
    RCX,
    RDX,
    RSP,
    advance,
    breg,
    def_cfa,
    def_cfa_expression,
    def_cfa_offset,
    offset,
    skip,
    undefined,
)
from unwind.process_builder import BASE, CALL, FRAMES, HDR, NOP, PLAIN_CIE, RET, Program
from unwind.test_walk import Chain, ips, reliable, verdict

from unspool import native
from unspool.model.memory import Bytes, Layered
from unspool.model.stack import Stack
from unspool.model.thread import Thread
from unspool.model.verdict import Stop
from unspool.unwind.api import unwind_user

# CPU seconds that one hostile stack may take, with room for a busy machine.
LIMIT = 2.0


def patched(thread: Thread, address: int, data: bytes) -> Thread:
    """The thread with other bytes in its program's image."""
    assert isinstance(thread.memory, Layered)
    image, *rest = thread.memory.layers
    assert isinstance(image, Bytes)
    at = address - image.start
    changed = Bytes(image.start, image.data[:at] + data + image.data[at + len(data) :])
    return replace(thread, memory=Layered((changed, *rest)))


def both(thread: Thread) -> Stack:
    """The C walk's stack, after it was compared with the reference's."""
    before = time.process_time()
    ours = native.walk(thread)
    assert time.process_time() - before < LIMIT
    reference = unwind_user(thread)
    assert (reference.frames, verdict(reference)) == (ours.frames, verdict(ours))
    return ours


def fde_of(chain: Chain, function: int) -> int:
    """The address of a function's FDE."""
    return FRAMES + next(at for start, at in chain.program.section.fdes if start == function)


class TestTable:
    """.eh_frame_hdr: used when it is good, replaced by the section itself when it is not."""

    @pytest.mark.parametrize(
        ("offset_in_hdr", "data"),
        [
            (8, struct.pack("<I", 1 << 31)),
            (8, struct.pack("<I", 0xFFFFFFFF)),
            (8, struct.pack("<I", 0)),
            (2, b"\xff"),
            (3, b"\x1b"),
        ],
    )
    def test_a_table_that_cannot_be_used_is_replaced_by_reading_the_section(self, offset_in_hdr: int, data: bytes) -> None:
        """A count of 2^31, none, another encoding: the FDEs themselves are good."""
        thread = patched(Chain().thread(), HDR + offset_in_hdr, data)
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(native.walk(thread))

    def test_a_head_of_another_version_is_broken(self) -> None:
        """Where .eh_frame is cannot be known."""
        assert (Stop.BAD_CFI, Stop.BAD_CFI, 0) == verdict(native.walk(patched(Chain().thread(), HDR, b"\2")))

    def test_a_zero_length_fde_does_not_hide_the_function_at_its_address(self) -> None:
        """Two files of a Debian machine have such FDEs."""
        chain = Chain()
        chain.program.section.fde(chain.program.cie, chain.leaf, 0)
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(native.walk(chain.thread()))

    @pytest.mark.parametrize("count", [0, 0xFFFF])
    def test_any_number_of_program_headers_is_survived(self, count: int) -> None:
        """e_phnum at offset 56 of the ELF header."""
        stack = native.walk(patched(Chain().thread(), BASE + 56, struct.pack("<H", count)))
        assert stack.stop in {Stop.NO_UNWIND_INFO, Stop.END_PROCESS_ENTRY, Stop.BAD_CFI}

    def test_unwind_data_without_terminator_ends_with_its_segment(self) -> None:
        """29 of 3,455 files have none."""
        chain = Chain()
        thread = patched(chain.thread(), HDR + 2, b"\xff")
        nowhere = replace(thread, registers=replace(thread.registers, pc=chain.leaf + 0x500))
        assert native.walk(nowhere).stop in {Stop.NO_UNWIND_INFO, Stop.BAD_CFI}


class TestEntries:
    """CIEs and FDEs."""

    @pytest.mark.parametrize("length", [0xFFFFFFFF, 0xFFFFFFF0, 0xFFFFFFEF, 0x7FFFFFFF, 0])
    def test_a_length_that_cannot_be_is_bad(self, length: int) -> None:
        """0xffffffff announces 64-bit DWARF, which no .eh_frame has."""
        chain = Chain()
        stack = native.walk(patched(chain.thread(), fde_of(chain, chain.leaf), struct.pack("<I", length)))
        assert stack.judgement.verdict.label != "reliable" or stack.stop.is_end
        assert stack.stop in {Stop.BAD_CFI, Stop.END_PROCESS_ENTRY, Stop.NO_UNWIND_INFO, Stop.PARSE_BUDGET}

    @pytest.mark.parametrize("back", [4, 8, 0xFFFFFFF0, 1])
    def test_an_fde_whose_cie_is_none_is_bad(self, back: int) -> None:
        """Itself, the middle of something, beyond the start of memory."""
        chain = Chain()
        stack = both(patched(chain.thread(), fde_of(chain, chain.leaf) + 4, struct.pack("<I", back)))
        assert (Stop.BAD_CFI, Stop.BAD_CFI, 0) == verdict(stack)

    def test_each_fde_has_the_state_of_its_own_cie(self) -> None:
        """A CIE may start anywhere: gas moves what comes before the first advance into it."""
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        other = program.section.cie(def_cfa(RSP, 32), offset(RA, 1), augmentation="zPLR")
        middle = program.function(CALL + NOP * 3, cie=other)
        leaf = program.function(NOP * 4)
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(both(program.thread(leaf, [middle + 5, 1, 2, 3, start + 5])))

    @pytest.mark.parametrize("version", [0, 2, 5, 0xFF])
    def test_a_cie_of_another_version_is_bad(self, version: int) -> None:
        """LSB: version 1 or 3."""
        chain = Chain()
        assert (Stop.BAD_CFI, Stop.BAD_CFI, 0) == verdict(native.walk(patched(chain.thread(), FRAMES + 8, bytes([version]))))

    @pytest.mark.parametrize("letters", [b"zRRRRRRRRRRRRR\0", b"eh\0", b"R\0"])
    def test_an_augmentation_that_nobody_writes_is_bad(self, letters: bytes) -> None:
        """More letters than there are, GCC 2's, letters without their length."""
        chain = Chain()
        assert Stop.BAD_CFI is native.walk(patched(chain.thread(), FRAMES + 9, letters)).stop


class TestPrograms:
    """Call frame instructions."""

    def leaf(self, *cfi: bytes, initial: tuple[bytes, ...] = PLAIN_CIE) -> Thread:
        """A thread in a function with these instructions, at its ninth byte."""
        program = Program(initial=initial)
        start = program.function(CALL + NOP * 3, def_cfa(RSP, 8), offset(RA, 1), undefined(RA))
        leaf = program.function(NOP * 16, *cfi)
        return program.thread(leaf + 8, [start + 5])

    def test_three_bytes_that_hang_other_unwinders_are_no_known_expression(self) -> None:
        """DW_OP_skip -3: the C walk evaluates nothing."""
        assert (Stop.UNSUPPORTED_RULE, Stop.UNSUPPORTED_RULE, 0) == verdict(native.walk(self.leaf(def_cfa_expression(skip(-3)))))

    def test_a_number_of_eleven_bytes_is_bad(self) -> None:
        """LEB128: ten bytes hold 64 bits."""
        assert Stop.BAD_CFI is native.walk(self.leaf(b"\x0e" + b"\x80" * 10 + b"\0")).stop

    @pytest.mark.parametrize("levels", [1, 4])
    def test_states_nest(self, levels: int) -> None:
        """remember_state and restore_state, within what real files do (1)."""
        body = b"".join(b"\x0a" + def_cfa_offset(64 + level * 8) for level in range(levels))
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(both(self.leaf(body, b"\x0b" * levels)))

    def test_a_state_that_was_not_remembered_cannot_be_restored(self) -> None:
        """And the walk says so."""
        assert Stop.BAD_CFI is both(self.leaf(b"\x0b")).stop

    @pytest.mark.parametrize("op", [b"\x3f", b"\x17", b"\x1c"])
    def test_an_instruction_that_does_not_exist_is_bad(self, op: bytes) -> None:
        """Not skipped: what follows could be its operands."""
        assert Stop.BAD_CFI is both(self.leaf(op)).stop

    def test_rows_beyond_the_end_of_their_function_are_not_used(self) -> None:
        """14,827 rows of a Debian machine lie there (BOLT, hand-written assembly)."""
        thread = self.leaf(advance(40), def_cfa_offset(4096))
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(both(thread))

    @pytest.mark.parametrize(("threshold", "low_bits", "pushed"), [(11, 8, 0), (11, 11, 1), (10, 10, 1)])
    def test_the_plts_expression_counts_the_push(self, threshold: int, low_bits: int, pushed: int) -> None:
        """One row for the 16 bytes of an entry: the push is at byte 6, and done from byte 11 on."""
        plt = breg(RSP, 8) + breg(RA, 0) + bytes([0x3F, 0x1A, 0x30 + threshold, 0x2A, 0x33, 0x24, 0x22])
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        entry = program.function(NOP * 16, def_cfa_expression(plt))
        thread = program.thread(entry + low_bits, [7] * pushed + [start + 5])
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(both(thread))

    def test_a_cfa_may_be_loaded_from_the_frame(self) -> None:
        """GCC's DRAP: *(rbp - 8), with rbp saved at rbp itself (breg6 0)."""
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        drap = program.function(NOP * 16, def_cfa_expression(breg(RBP, -8) + b"\x06"), b"\x10\x06\x02" + breg(RBP, 0))
        probe = program.thread(drap, [0] * 6)
        sp = probe.registers.sp
        thread = program.thread(drap, [1, sp + 48, 0x77, 2, 3, start + 5], {RBP: sp + 16})
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(both(thread))

    @pytest.mark.parametrize("add", [b"\x23\x08", b"\x38\x22"])
    def test_a_loaded_cfa_may_have_an_offset(self, add: bytes) -> None:
        """OpenSSL's: *(rsp + n) + 8, as plus_uconst or as lit8 plus."""
        program = Program()
        start = program.function(CALL + NOP * 3, undefined(RA))
        leaf = program.function(NOP * 16, def_cfa_expression(breg(RSP, 8) + b"\x06" + add))
        sp = program.thread(leaf, [0] * 4).registers.sp
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(both(program.thread(leaf, [1, sp + 24, 2, start + 5])))

    def test_endless_instructions_end_with_the_budget(self) -> None:
        """A program of a gigabyte of nops, if memory had it: the walk looks at 65,536."""
        chain = Chain()
        chain.program.section.fde(chain.program.cie, chain.leaf + 0x100, 16, b"\0" * 8192)
        stack = native.walk(chain.program.thread(chain.leaf + 0x100, chain.words))
        assert stack.stop in {
            Stop.NOT_A_CALL_SITE,
            Stop.RA_NOT_EXECUTABLE,
            Stop.NO_UNWIND_INFO,
            Stop.PARSE_BUDGET,
            Stop.MEM_FAULT,
            Stop.BAD_CFI,
        }


class TestExceptions:
    """R9b: which return addresses in a function with __builtin_eh_return are before the commit."""

    def raiser(self) -> tuple[Program, int, list[int]]:
        """A function as libgcc's: a call, then the two calls of the commit, then the jump; and the return addresses of the three."""
        program = Program()
        self.start = program.function(CALL + NOP * 3, undefined(RA))
        code = NOP * 8 + CALL + NOP * 8 + CALL + NOP * 4 + CALL + NOP * 4 + RET
        saves = (advance(4), def_cfa_offset(24), offset(RAX, 2), offset(RDX, 3))
        function = program.function(code, *saves, advance(len(code) - 5), def_cfa(RCX, 8))
        return program, function, [function + 13, function + 26, function + 35]

    @pytest.mark.parametrize(("call", "reason"), [(0, Stop.NONE), (1, Stop.EH_COMMIT), (2, Stop.EH_COMMIT)])
    def test_only_calls_from_the_commit_on_are_suspect(self, call: int, reason: Stop) -> None:
        """The personality is called before, uw_install_context_1 and _Unwind_DebugHook are the commit."""
        program, _, returns = self.raiser()
        leaf = program.function(NOP + RET)
        stack = both(program.thread(leaf, [returns[call], 1, 2, self.start + 5]))
        assert [leaf, returns[call], self.start + 5] == ips(stack)
        assert (Stop.END_PROCESS_ENTRY, reason, None if reason is Stop.NONE else 1) == verdict(stack)

    def test_an_exact_address_in_such_a_function_is_suspect(self) -> None:
        """From the save on; before it, the function has done nothing."""
        program, function, _ = self.raiser()
        assert Stop.EH_COMMIT is both(program.thread(function + 6, [1, 2, self.start + 5])).judgement.reason
        assert reliable(Stop.END_PROCESS_ENTRY) == verdict(both(program.thread(function, [self.start + 5])))
