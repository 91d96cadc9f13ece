"""Kernel stacks by ORC: every kind of entry, every end, every reason to doubt."""
# ruff: noqa: D102 - the names of the tests say it

from __future__ import annotations

import pytest
from unwind.kernel_builder import (
    CALL,
    END,
    FUNCTION,
    IRQ_TOP,
    KERNEL_CS,
    RETURN,
    SIZE,
    TASK,
    TASK_TOP,
    TEXT,
    UNKNOWN,
    USER,
    USER_CS,
    Kernel,
    at,
    call,
    pt_regs,
    said,
    saved,
    syscall,
    that_reads,
)

from unspool.formats.orc import OrcEntry, OrcRegister, OrcType
from unspool.model.verdict import Stop, Trust
from unspool.unwind.kernel_walk import KernelUnwinder


@pytest.fixture
def kernel() -> Kernel:
    return that_reads()


def test_a_system_call_is_whole_and_reliable(kernel: Kernel) -> None:
    words = syscall(kernel)
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "copy", 3), TASK_TOP - 8 * len(words), words))
    names = ["copy", "vfs_read", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"]
    assert (names, Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)
    assert (TASK_TOP - 168, False) == (found.user_registers, found.partial)
    assert [Trust.REGISTERS, Trust.ORC, Trust.ORC, Trust.ORC] == [frame.trust for frame in found.stack.frames]
    assert [True, False, False, False] == [frame.exact for frame in found.stack.frames]


def test_a_vcpu_that_ran_on_is_never_reliable(kernel: Kernel) -> None:
    words = syscall(kernel)
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "copy", 3), TASK_TOP - 8 * len(words), words, snapshot=False))
    assert (Stop.END_KERNEL_ENTRY, Stop.GUEST_RUNNING, 0) == said(kernel, found)[1:]


def test_an_interrupt_leads_from_its_own_stack_to_the_interrupted_code(kernel: Kernel) -> None:
    """`call_on_irqstack` leaves the old stack pointer at the top of the new stack; the interrupted pc is exact."""
    kernel.function("handle_irq", call(8))
    kernel.function("asm_interrupt", saved())
    kernel.function("common_interrupt", call(8))
    kernel.function("on_irqstack", OrcEntry(OrcRegister.SP_INDIRECT, 8, OrcRegister.UNDEFINED, 0, OrcType.CALL, signal=False, end=False))
    below = syscall(kernel)
    interrupted_sp = TASK_TOP - 8 * len(below)
    task = [at(kernel, "common_interrupt"), at(kernel, "asm_interrupt"), *pt_regs(at(kernel, "copy", 7), interrupted_sp, KERNEL_CS), *below]
    irq = [at(kernel, "on_irqstack"), TASK_TOP - 8 * len(task)]
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "handle_irq", 1), IRQ_TOP - 16, task, irq))
    names = ["handle_irq", "on_irqstack", "common_interrupt", "asm_interrupt", "copy", "vfs_read", "do_syscall_64"]
    assert ([*names, "entry_SYSCALL_64_after_hwframe"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)
    assert found.stack.frames[4].exact
    assert found.stack.frames[3].signal


def test_the_processors_own_frame_keeps_the_other_registers() -> None:
    """REGS_PARTIAL: only five words are saved, and what rbp holds is still the interrupted code's."""
    kernel = Kernel()
    kernel.function("asm_exc", saved(0, OrcType.REGS_PARTIAL))
    kernel.function("middle", call(16, base=OrcRegister.BP, bp=(OrcRegister.BP, 0)))
    kernel.function("entry", saved())
    below = [0xB9, at(kernel, "entry"), *USER]
    fp = TASK_TOP - 8 * len(below)
    words = [at(kernel, "middle", 9), KERNEL_CS, 0x246, fp, 0x18, *below]
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "asm_exc", 0), TASK_TOP - 8 * len(words), words, bp=fp))
    assert (["asm_exc", "middle", "entry"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)


def test_the_processors_own_frame_can_be_of_user_mode() -> None:
    kernel = Kernel()
    kernel.function("asm_exc", saved(0, OrcType.REGS_PARTIAL))
    words = USER[-5:]
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "asm_exc", 0), TASK_TOP - 40, words))
    assert (["asm_exc"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)
    assert (TASK_TOP - 40, True) == (found.user_registers, found.partial)


@pytest.mark.parametrize("popped", [1, 5, 15, 16])
def test_registers_that_were_given_back_already_are_the_interrupted_codes(popped: int) -> None:
    """On the way out struct pt_regs begins below the stack pointer. What lies there is not read: rbp, the fifth, holds its value again."""
    kernel = Kernel()
    kernel.function("restore_regs", saved(-8 * popped))
    kernel.function("middle", call(16, base=OrcRegister.BP, bp=(OrcRegister.BP, 0)))
    kernel.function("entry", saved())
    below = [0xB9, at(kernel, "entry"), *USER]
    fp = TASK_TOP - 8 * len(below)
    registers = [*[0xDEAD] * popped, *pt_regs(at(kernel, "middle", 9), fp, KERNEL_CS)[popped:]]
    if popped < 5:
        registers[4] = fp
    words = [*registers, *below]
    sp = TASK_TOP - 8 * len(words) + 8 * popped
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "restore_regs", 1), sp, words, bp=fp if popped >= 5 else 0))
    assert (["restore_regs", "middle", "entry"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)


@pytest.mark.parametrize("popped", [17, 21])
def test_the_processors_words_are_never_taken_from_below_the_stack_pointer(popped: int) -> None:
    kernel = Kernel()
    kernel.function("restore_regs", saved(-8 * popped))
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "restore_regs", 1), TASK_TOP - 168 + 8 * popped, USER))
    assert (["restore_regs"], Stop.OUTSIDE_STACK, Stop.OUTSIDE_STACK, 0) == said(kernel, found)


@pytest.mark.parametrize("exact", [True, False])
def test_a_callee_that_saved_the_registers_is_believed_before_the_row_says_so(*, exact: bool) -> None:
    """error_entry leaves struct pt_regs on its caller's stack; the row of the call instruction is that of the processor's words alone."""
    kernel = Kernel()
    saver = kernel.function("error_entry", saved(8))
    kernel.function("sync_regs", call(8))
    gate = kernel.function("asm_exc", saved(8, OrcType.REGS_PARTIAL))
    kernel.code[gate - TEXT + RETURN - 4 : gate - TEXT + RETURN] = (saver - gate - RETURN).to_bytes(4, "little", signed=True)
    words = USER if exact else [gate + RETURN, *USER]
    place = gate + RETURN if exact else at(kernel, "sync_regs", 3)
    found = KernelUnwinder(kernel).unwind(kernel.thread(place, TASK_TOP - 8 * len(words), words))
    names = ["asm_exc"] if exact else ["sync_regs", "asm_exc"]
    assert (names, Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)
    assert (TASK_TOP - 168, False) == (found.user_registers, found.partial)


@pytest.mark.parametrize("offset", [8, 0])
def test_within_such_a_callee_the_entry_is_not_left_out(offset: int) -> None:
    """Its row leads to the interrupted code at once; the return address on top of the registers is that of the entry, which goes on."""
    kernel = Kernel()
    saver = kernel.function("error_entry", saved(offset))
    gate = kernel.function("asm_exc", saved(8, OrcType.REGS_PARTIAL))
    kernel.code[gate - TEXT + RETURN - 4 : gate - TEXT + RETURN] = (saver - gate - RETURN).to_bytes(4, "little", signed=True)
    words = [gate + RETURN, *USER] if offset else USER
    found = KernelUnwinder(kernel).unwind(kernel.thread(saver + 9, TASK_TOP - 8 * len(words), words))
    if offset:
        assert (["error_entry", "asm_exc"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)
    else:
        assert (["error_entry"], Stop.NO_UNWIND_INFO, Stop.NO_UNWIND_INFO, 0) == said(kernel, found)


@pytest.mark.parametrize("row", [saved(24, OrcType.REGS_PARTIAL), saved(0), saved(120, OrcType.REGS_PARTIAL)])
def test_while_such_a_callee_pushes_the_registers_its_caller_is_not_known(row: OrcEntry) -> None:
    """Its return address is in a register then. ORC leads past the caller; and what is unknown in entry code is no end here."""
    kernel = Kernel()
    saver = kernel.function("error_entry", row)
    kernel.labels = {"__entry_text_start": saver, "__entry_text_end": saver + FUNCTION}
    found = KernelUnwinder(kernel).unwind(
        kernel.thread(saver + 9, TASK_TOP - 8 * len(USER) - row.sp_offset, [0] * (row.sp_offset // 8) + USER)
    )
    assert (["error_entry"], Stop.NO_UNWIND_INFO, Stop.NO_UNWIND_INFO, 0) == said(kernel, found)


def test_before_such_a_callee_has_saved_anything_the_row_holds() -> None:
    """At its first instruction only the processor's words lie behind the return address."""
    kernel = Kernel()
    saver = kernel.function("error_entry", call(8))
    gate = kernel.function("asm_exc", saved(8, OrcType.REGS_PARTIAL))
    kernel.code[gate - TEXT + RETURN - 4 : gate - TEXT + RETURN] = (saver - gate - RETURN).to_bytes(4, "little", signed=True)
    words = [gate + RETURN, 0xE, *USER[-5:]]
    found = KernelUnwinder(kernel).unwind(kernel.thread(saver, TASK_TOP - 8 * len(words), words))
    assert (["error_entry", "asm_exc"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)
    assert (TASK_TOP - 40, True) == (found.user_registers, found.partial)


@pytest.mark.parametrize(("offset", "pushed"), [(7, 0), (14, 0), (20, 1), (26, 2), (30, 0)])
def test_within_a_switch_of_tasks_the_code_says_what_was_pushed(offset: int, pushed: int) -> None:
    """Two calls over an int3, between the load of rsp and the pops; the row is that of another alternative."""
    kernel = Kernel()
    code = "488ba600000000" + "49c7c410000000" + 2 * "e801000000cc" + "4883c410" + "415f415e415d415c5b5d"
    start = kernel.function("__switch_to_asm", call(64), code=bytes.fromhex(code))
    kernel.function("__schedule", call(8))
    kernel.function("ret_from_fork", END)
    words = [*[start + 19, start + 25][:pushed], 1, 2, 3, 4, 5, 6, at(kernel, "__schedule"), at(kernel, "ret_from_fork"), *([0] * 21)]
    found = KernelUnwinder(kernel).unwind(kernel.thread(start + offset, TASK_TOP - 8 * len(words), words))
    assert (["__switch_to_asm", "__schedule", "ret_from_fork"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)


@pytest.mark.parametrize("flags", [0x200, 0x246])
def test_a_program_that_was_just_made_has_flags_of_the_kernels_making(kernel: Kernel, flags: int) -> None:
    """start_thread sets the interrupt flag and nothing else (arch/x86/kernel/process_64.c)."""
    words = syscall(kernel)
    words[-3] = flags
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "copy", 3), TASK_TOP - 8 * len(words), words))
    assert (Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)[1:]


@pytest.mark.parametrize("register", ["r10", "r13", "di", "dx"])
def test_a_realigned_stack_is_found_through_the_register_that_holds_it(register: str) -> None:
    base = {"r10": OrcRegister.R10, "r13": OrcRegister.R13, "di": OrcRegister.DI, "dx": OrcRegister.DX}[register]
    kernel = Kernel()
    kernel.function("realigned", call(0, base=base))
    kernel.function("entry", saved())
    words = [1, 2, 3, at(kernel, "entry"), *USER]
    thread = kernel.thread(at(kernel, "realigned", 9), TASK_TOP - 8 * len(words), words, **{register: TASK_TOP - 168})
    assert (["realigned", "entry"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, KernelUnwinder(kernel).unwind(thread))


def test_after_a_call_such_a_register_is_not_known() -> None:
    kernel = Kernel()
    kernel.function("leaf", call(8))
    kernel.function("realigned", call(0, base=OrcRegister.R13))
    thread = kernel.thread(at(kernel, "leaf", 0), TASK_TOP - 176, [at(kernel, "realigned"), *USER], r13=TASK_TOP - 168)
    assert (["leaf", "realigned"], Stop.REG_UNAVAILABLE, Stop.REG_UNAVAILABLE, 1) == said(kernel, KernelUnwinder(kernel).unwind(thread))


def test_a_kernel_thread_ends_at_the_base_of_its_stack() -> None:
    kernel = Kernel()
    kernel.function("kthread", call(8))
    kernel.function("ret_from_fork", END)
    words = [at(kernel, "ret_from_fork"), *[0] * 21]
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "kthread"), TASK_TOP - 8 * len(words), words), exact=False)
    assert (["kthread", "ret_from_fork"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)
    deep = [at(kernel, "ret_from_fork"), *[0] * 100]
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "kthread"), TASK_TOP - 8 * len(deep), deep), exact=False)
    assert (Stop.END_UNEXPECTED, Stop.END_UNEXPECTED, 1) == said(kernel, found)[1:]


def test_a_task_that_never_ran_stands_at_its_first_instruction() -> None:
    kernel = Kernel()
    kernel.function("before", call(8))
    kernel.function("ret_from_fork", END)
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "ret_from_fork", 0), TASK_TOP - 168, USER), exact=False)
    assert (["ret_from_fork"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)


def test_an_idle_cpus_stack_ends_behind_a_far_return() -> None:
    kernel = Kernel()
    kernel.function("start_secondary", call(8))
    boot = kernel.function("secondary_startup_64", END, code=bytes(0x40))
    kernel.code[boot - TEXT + 0x30 : boot - TEXT + 0x32] = b"\x48\xcb"
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "start_secondary", 4), TASK_TOP - 8, [boot + 0x32]))
    assert (["start_secondary", "secondary_startup_64"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)


@pytest.mark.parametrize("boot", [True, False])
def test_the_first_cpus_idle_stack_ends_in_code_that_was_given_back(*, boot: bool) -> None:
    """Its tables are still there, its bytes are not; on any other stack such an address is no return address."""
    kernel = Kernel()
    kernel.function("rest_init", call(8))
    gone = kernel.function("start_kernel", call(16), code=bytes(0x40))
    start = kernel.function("secondary_startup_64", END)
    kernel.init = {"start_kernel"}
    kernel.labels["init_stack"] = TASK if boot else TASK + 8
    words = [gone + 0x30, 0, start + RETURN]
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "rest_init", 4), TASK_TOP - 24, words))
    if boot:
        assert (["rest_init", "start_kernel", "secondary_startup_64"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)
    else:
        assert (["rest_init"], Stop.RA_NOT_EXECUTABLE, Stop.RA_NOT_EXECUTABLE, 0) == said(kernel, found)


@pytest.mark.parametrize("row", [END, UNKNOWN], ids=["before 6.4", "since"])
def test_entry_code_without_a_stack_is_an_end(row: OrcEntry) -> None:
    """At the first instruction of a system call the stack pointer is the user's."""
    kernel = Kernel()
    start = kernel.function("entry_SYSCALL_64", row)
    kernel.labels = {"__entry_text_start": start, "__entry_text_end": start + FUNCTION}
    found = KernelUnwinder(kernel).unwind(kernel.thread(start, 0x7FFE_0000_1000, []))
    assert (["entry_SYSCALL_64"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)
    assert (True, None) == (found.in_entry, found.user_registers)
    kernel.labels = {}
    found = KernelUnwinder(kernel).unwind(kernel.thread(start, 0x7FFE_0000_1000, []))
    assert not found.stack.stop.is_end


class TestThunks:
    """Code that is jumped through: ORC says that the stack ends there."""

    @pytest.mark.parametrize(
        ("code", "offset", "pushed"),
        [
            (b"\xff\xe0", 0, []),
            (b"\x41\xff\xe3", 0, []),
            (b"\x0f\xae\xe8\xff\xe1", 0, []),
            (b"\xe8\x01\0\0\0\xcc\x48\x89\x04\x24\xc3", 0, []),
            (b"\xe8\x01\0\0\0\xcc\x48\x89\x04\x24\xc3", 6, [TEXT + 5]),
            (b"\xe8\x01\0\0\0\xcc\x48\x89\x04\x24\xc3", 10, [TEXT + FUNCTION]),
        ],
        ids=["jmp", "jmp r11", "lfence", "call", "store", "ret"],
    )
    def test_the_code_proves_where_the_return_address_is(self, code: bytes, offset: int, pushed: list[int]) -> None:
        kernel = Kernel()
        thunk = kernel.function("__x86_indirect_thunk_rax", END, code=code)
        kernel.function("__pi___x86_indirect_thunk_rax", END, code=code)
        kernel.function("caller", call(8))
        kernel.function("entry", saved())
        words = [*pushed, at(kernel, "caller"), at(kernel, "entry"), *USER]
        found = KernelUnwinder(kernel).unwind(kernel.thread(thunk + offset, TASK_TOP - 8 * len(words), words))
        names = ["__x86_indirect_thunk_rax", "caller", "entry"]
        assert (names, Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)
        found = KernelUnwinder(kernel).unwind(kernel.thread(thunk + FUNCTION + offset, TASK_TOP - 8 * len(words), words))
        assert (["__pi_" + names[0], *names[1:]], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)

    def test_a_safe_return_drops_the_address_that_its_own_call_has_pushed(self) -> None:
        """srso_return_thunk calls it, and nothing returns there; one instruction later the word is gone."""
        kernel = Kernel()
        drop = bytes.fromhex("488d642408c3")
        thunk = kernel.function("srso_safe_ret", call(8), code=drop)
        kernel.function("srso_return_thunk", call(8), code=CALL)
        kernel.function("caller", call(8))
        kernel.function("entry", saved())
        for offset, pushed in ((0, [TEXT + FUNCTION + len(CALL)]), (len(drop) - 1, [])):
            words = [*pushed, at(kernel, "caller"), at(kernel, "entry"), *USER]
            found = KernelUnwinder(kernel).unwind(kernel.thread(thunk + offset, TASK_TOP - 8 * len(words), words))
            assert (["srso_safe_ret", "caller", "entry"], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)

    def test_where_it_does_not_the_guess_is_marked(self) -> None:
        kernel = Kernel()
        thunk = kernel.function("srso_alias_safe_ret", END)
        kernel.function("caller", call(8))
        kernel.function("entry", saved())
        words = [1, 2, at(kernel, "caller"), at(kernel, "entry"), *USER]
        found = KernelUnwinder(kernel).unwind(kernel.thread(thunk + 9, TASK_TOP - 8 * len(words), words))
        assert (["srso_alias_safe_ret", "caller", "entry"], Stop.END_KERNEL_ENTRY, Stop.NO_UNWIND_INFO, 0) == said(kernel, found)
        assert Trust.SCAN is found.stack.frames[1].trust

    def test_it_looks_at_four_words_only(self) -> None:
        kernel = Kernel()
        thunk = kernel.function("srso_alias_safe_ret", END)
        kernel.function("caller", call(8))
        words = [1, 2, 3, 4, at(kernel, "caller"), *USER]
        found = KernelUnwinder(kernel).unwind(kernel.thread(thunk + 9, TASK_TOP - 8 * len(words), words))
        assert (["srso_alias_safe_ret"], Stop.NO_UNWIND_INFO, Stop.NO_UNWIND_INFO, 0) == said(kernel, found)


class TestDoubts:
    """What ends a walk before an entry, or makes it unreliable."""

    def one(self, kernel: Kernel, word: int, *more: int) -> tuple[list[str], Stop, Stop, int | None]:
        words = [word, *more, *USER]
        return said(kernel, KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "copy", 3), TASK_TOP - 8 * len(words), words)))

    def test_a_return_address_no_call_made(self, kernel: Kernel) -> None:
        answer = self.one(kernel, at(kernel, "do_syscall_64", 0x50), at(kernel, "entry_SYSCALL_64_after_hwframe"))
        assert (Stop.END_KERNEL_ENTRY, Stop.NOT_A_CALL_SITE, 1) == answer[1:]

    @pytest.mark.parametrize("word", [0, 0x401000, 0xFFFF_8880_0000_0000, 1 << 63])
    def test_a_return_address_that_is_no_code(self, kernel: Kernel, word: int) -> None:
        assert (["copy"], Stop.RA_NOT_EXECUTABLE, Stop.RA_NOT_EXECUTABLE, 0) == self.one(kernel, word)

    def test_generated_code(self, kernel: Kernel) -> None:
        """BPF programs and ftrace's trampolines lie where modules do, in no module."""
        assert (["copy", "?"], Stop.ANON_CODE, Stop.ANON_CODE, 1) == self.one(kernel, 0xFFFF_FFFF_C012_3456)

    @pytest.mark.parametrize("name", ["arch_rethook_trampoline", "return_to_handler"])
    def test_a_rewritten_return_address(self, kernel: Kernel, name: str) -> None:
        trampoline = kernel.function(name, call(8))
        assert (["copy"], Stop.RA_REWRITTEN, Stop.RA_REWRITTEN, 0) == self.one(kernel, trampoline)

    def test_the_code_that_puts_the_return_address_back(self, kernel: Kernel) -> None:
        """ORC says that the stack ends there."""
        trampoline = kernel.function("return_to_handler", END)
        handler = kernel.function("ftrace_return_to_handler", call(8))
        words = [trampoline + RETURN, *[0] * 100]
        found = KernelUnwinder(kernel).unwind(kernel.thread(handler, TASK_TOP - 8 * len(words), words))
        assert (["ftrace_return_to_handler", "return_to_handler"], Stop.RA_REWRITTEN, Stop.RA_REWRITTEN, 1) == said(kernel, found)

    def test_code_without_orc(self, kernel: Kernel) -> None:
        bare = kernel.function("bare", None)
        assert (["copy", "bare"], Stop.NO_UNWIND_INFO, Stop.NO_UNWIND_INFO, 1) == self.one(kernel, bare + RETURN)

    def test_a_frame_outside_of_the_stack(self, kernel: Kernel) -> None:
        far = kernel.function("far", call(SIZE))
        assert (Stop.OUTSIDE_STACK, Stop.OUTSIDE_STACK, 1) == self.one(kernel, far + RETURN)[1:]

    def test_a_frame_that_goes_back(self, kernel: Kernel) -> None:
        back = kernel.function("back", call(-16))
        assert (Stop.CFA_NOT_ABOVE_SP, Stop.CFA_NOT_ABOVE_SP, 1) == self.one(kernel, back + RETURN)[1:]

    def test_an_interrupt_that_comes_back_to_a_stack_it_had_left(self, kernel: Kernel) -> None:
        """Two saved sets of registers that point at each other would be walked for ever."""
        gate = kernel.function("gate", saved())
        task_sp = TASK_TOP - 168
        irq_sp = IRQ_TOP - 168
        task, irq = pt_regs(gate, irq_sp, KERNEL_CS), pt_regs(gate, task_sp, KERNEL_CS)
        found = KernelUnwinder(kernel).unwind(kernel.thread(gate, task_sp, task, irq))
        assert (["gate", "gate"], Stop.CYCLE, Stop.CYCLE, 1) == said(kernel, found)

    @pytest.mark.parametrize(
        ("cs", "ss", "flags", "ip"),
        [
            (0x11, 0x18, 2, TEXT),
            (0x13, 0x2B, 2, 0x401000),
            (USER_CS, 0x18, 2, 0x401000),
            (USER_CS, 0x2B, 0, 0x401000),
            (USER_CS, 0x2B, 2, TEXT),
            (KERNEL_CS, 0x2B, 2, TEXT),
        ],
    )
    def test_words_that_are_no_saved_registers(self, kernel: Kernel, cs: int, ss: int, flags: int, ip: int) -> None:
        """A row that is wrong must not make an accepted end out of what lies there by chance."""
        gate = kernel.function("gate", saved())
        words = pt_regs(ip, 0x7FFE_0000_0000 if cs & 3 else TASK_TOP - 8, cs)
        words[18], words[20] = flags, ss
        found = KernelUnwinder(kernel).unwind(kernel.thread(gate, TASK_TOP - 168, words))
        assert (Stop.END_UNEXPECTED, Stop.END_UNEXPECTED, 0) == said(kernel, found)[1:]

    def test_a_depth_that_was_not_asked_for(self, kernel: Kernel) -> None:
        words = syscall(kernel)
        thread = kernel.thread(at(kernel, "copy", 3), TASK_TOP - 8 * len(words), words)
        answer = said(kernel, KernelUnwinder(kernel).unwind(thread, max_frames=2))
        assert (["copy", "vfs_read"], Stop.FRAME_LIMIT, Stop.FRAME_LIMIT, 1) == answer
        with pytest.raises(ValueError, match="at least one frame"):
            KernelUnwinder(kernel).unwind(thread, max_frames=0)


class TestGuesses:
    """Frame pointers and the scan, which are marked and never reliable."""

    def test_a_scan_finds_what_was_left_behind_too(self, kernel: Kernel) -> None:
        words = [at(kernel, "copy"), 7, *syscall(kernel)]
        thread = kernel.thread(at(kernel, "copy", 3), TASK_TOP - 8 * len(words), words)
        found = KernelUnwinder(kernel, {Trust.SCAN}).unwind(thread)
        names = ["copy", "copy", "vfs_read", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"]
        assert (names, Stop.NO_UNWIND_INFO, Stop.HEURISTIC_USED, 1) == said(kernel, found)
        assert {Trust.SCAN} == {frame.trust for frame in found.stack.frames[1:]}
        assert "by scan no caller is found" == found.stack.detail

    def test_a_chain_of_frame_pointers(self, kernel: Kernel) -> None:
        base = TASK_TOP - 48
        words = [base + 16, at(kernel, "vfs_read"), base + 32, at(kernel, "do_syscall_64"), 0, 0]
        thread = kernel.thread(at(kernel, "copy", 3), base, words, bp=base)
        found = KernelUnwinder(kernel, {Trust.FRAME_POINTER}).unwind(thread)
        assert (["copy", "vfs_read", "do_syscall_64"], Stop.NO_UNWIND_INFO, Stop.HEURISTIC_USED, 1) == said(kernel, found)
        assert Trust.FRAME_POINTER is found.stack.frames[1].trust

    def test_nothing_is_guessed_unless_it_was_asked_for(self, kernel: Kernel) -> None:
        """A kernel without ORC tables has stacks of one frame, which say why."""
        kernel.rows = [None] * len(kernel.rows)
        words = syscall(kernel)
        found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "copy", 3), TASK_TOP - 8 * len(words), words))
        assert (["copy"], Stop.NO_UNWIND_INFO, Stop.NO_UNWIND_INFO, 0) == said(kernel, found)
        assert "(the kernel has no ORC tables)" in found.stack.judgement.detail

    def test_no_chain_at_all(self, kernel: Kernel) -> None:
        """Without frame pointers the first frame is the only one, and there the stack is cut."""
        words = syscall(kernel)
        found = KernelUnwinder(kernel, {Trust.FRAME_POINTER}).unwind(kernel.thread(at(kernel, "copy", 3), TASK_TOP - 8 * len(words), words))
        assert (["copy"], Stop.NO_UNWIND_INFO, Stop.NO_UNWIND_INFO, 0) == said(kernel, found)
        assert "by frame-pointer no caller is found" == found.stack.detail

    def test_a_kernel_with_frame_pointers_says_where_it_was_entered(self, kernel: Kernel) -> None:
        """An interrupt in a system call: entry code marks its frame pointers, which lead to the saved registers."""
        kernel.function("handle_irq")
        kernel.function("asm_interrupt")
        user = TASK_TOP - 168
        chain = [user - 16, at(kernel, "vfs_read"), user + 1, at(kernel, "entry_SYSCALL_64_after_hwframe"), *USER]
        copy = user - 32
        interrupted = pt_regs(at(kernel, "copy", 7), copy, KERNEL_CS, bp=copy)
        words = [copy - 168 + 1, at(kernel, "asm_interrupt"), *interrupted, *chain]
        start = TASK_TOP - 8 * len(words)
        thread = kernel.thread(at(kernel, "handle_irq", 5), start, words, bp=start)
        found = KernelUnwinder(kernel, {Trust.FRAME_POINTER}).unwind(thread)
        names = ["handle_irq", "asm_interrupt", "copy", "vfs_read", "entry_SYSCALL_64_after_hwframe"]
        assert (names, Stop.END_KERNEL_ENTRY, Stop.HEURISTIC_USED, 1) == said(kernel, found)
        assert user == found.user_registers
        assert [True, False, True, False, False] == [frame.exact for frame in found.stack.frames]

    def test_an_end_that_was_guessed_is_not_relied_on(self, kernel: Kernel) -> None:
        """Frame 0 has the entry's own frame pointer."""
        thread = kernel.thread(at(kernel, "do_syscall_64", 0), TASK_TOP - 176, [at(kernel, "copy"), *USER], bp=TASK_TOP - 167)
        found = KernelUnwinder(kernel, {Trust.FRAME_POINTER}).unwind(thread)
        assert (["do_syscall_64"], Stop.END_KERNEL_ENTRY, Stop.HEURISTIC_USED, 0) == said(kernel, found)

    def test_a_kernel_thread_has_zeros_at_its_base(self, kernel: Kernel) -> None:
        words = [at(kernel, "copy"), *[0] * 21]
        thread = kernel.thread(at(kernel, "copy", 3), TASK_TOP - 8 * len(words), words, bp=TASK_TOP - 167)
        found = KernelUnwinder(kernel, {Trust.FRAME_POINTER}).unwind(thread)
        assert (["copy"], Stop.END_KERNEL_ENTRY, Stop.HEURISTIC_USED, 0) == said(kernel, found)
        assert found.user_registers is None

    def test_a_marked_frame_pointer_to_nothing_is_none(self, kernel: Kernel) -> None:
        for words in ([7] * 40, [0] * 100, pt_regs(0, TASK_TOP - 400, KERNEL_CS)):
            start = TASK_TOP - 8 * len(words)
            thread = kernel.thread(at(kernel, "copy", 3), start, words, bp=start + 1)
            found = KernelUnwinder(kernel, {Trust.FRAME_POINTER}).unwind(thread)
            assert found.stack.stop in {Stop.NO_UNWIND_INFO, Stop.CFA_NOT_ABOVE_SP}
            assert found.stack.judgement.reason in {Stop.NO_UNWIND_INFO, Stop.CFA_NOT_ABOVE_SP}

    def test_orc_goes_on_behind_a_guess(self, kernel: Kernel) -> None:
        bare = kernel.function("bare", None)
        words = [5, *syscall(kernel)]
        thread = kernel.thread(bare + 3, TASK_TOP - 8 * len(words), words)
        found = KernelUnwinder(kernel, {Trust.ORC, Trust.SCAN}).unwind(thread)
        assert (Stop.END_KERNEL_ENTRY, Stop.NO_UNWIND_INFO, 0) == said(kernel, found)[1:]
        assert [Trust.SCAN, Trust.ORC] == [frame.trust for frame in found.stack.frames[1:3]]
