"""Kernel stacks that cross what the kernel changes while it runs: an int3 and the registers it saved, trampolines, unfinished returns."""

from __future__ import annotations

import pytest
from unwind.kernel_builder import CALL, FUNCTION, KERNEL_CS, TASK_TOP, USER, Kernel, at, call, pt_regs, said, saved

from unspool.formats.orc import OrcType
from unspool.model.verdict import Stop
from unspool.unwind.kernel_walk import KernelUnwinder
from unspool.unwind.methods.orc import PT_REGS_IP

ENTRY = "asm_exc_int3"
CALLERS = ["outer", "main", "entry_SYSCALL_64_after_hwframe"]
BELOW = 4


def probed() -> Kernel:
    """A kernel in which an int3 stands for the last byte of `probed`, a push: the row of what is `behind` it has one more word.

    `outer`, its caller, keeps nothing on the stack, so the word behind its return address is `main`'s.
    """
    kernel = Kernel()
    for name in ("main", "outer"):
        kernel.function(name, call(8))
    kernel.function("entry_SYSCALL_64_after_hwframe", saved())
    kernel.function("probed", call(8))
    kernel.function("behind", call(16))
    kernel.function("exc_int3", call(8))
    kernel.function(ENTRY, saved())
    kernel.function("asm_interrupt", saved())
    return kernel


def registers(kernel: Kernel, sp: int, *, moved: int = 0) -> list[int]:
    """What int3 pushed with the interrupted stack pointer `sp`, as idtentry has copied it six words down, and the original above it.

    `moved`: bytes that the kernel has pushed in the instruction's place.
    """
    ip = at(kernel, "probed", FUNCTION)
    above = [0, *pt_regs(ip, sp, KERNEL_CS)[-5:]]
    return [*pt_regs(ip, sp - moved, KERNEL_CS), *above, *([0] if sp % 16 else [])]


@pytest.mark.parametrize("odd", [0, 1])
def test_before_the_handler_has_done_anything_the_row_is_that_of_the_int3(odd: int) -> None:
    """The saved ip is behind it. By that row `outer` would be left out, and nothing else would be wrong."""
    kernel = probed()
    callers = [at(kernel, "outer"), at(kernel, "main"), at(kernel, CALLERS[-1]), *[0] * odd, *USER]
    if odd:
        kernel.rows[kernel.names.index(CALLERS[-1])] = saved(8)
    sp = TASK_TOP - 8 * len(callers)
    words = [at(kernel, ENTRY), *registers(kernel, sp), *callers]
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "exc_int3", 3), TASK_TOP - 8 * len(words), words))
    assert (["exc_int3", ENTRY, "behind", *CALLERS], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)


def half_done(kernel: Kernel) -> list[int]:
    """The stack with what the kernel has pushed in place of the int3: where the original's ss was, or behind it."""
    callers = [at(kernel, name) for name in CALLERS]
    frame = registers(kernel, TASK_TOP - 8 * (len(callers) + len(USER)), moved=8)[:-1]
    return [at(kernel, ENTRY), *frame, at(kernel, "probed", 5), *callers, *USER]


def test_when_the_kernel_has_only_pushed_in_its_place_nothing_is_known() -> None:
    """A call that is emulated so is not done before its target is set: no row is right until then."""
    kernel = probed()
    words = half_done(kernel)
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "exc_int3", 3), TASK_TOP - 8 * len(words), words))
    assert (["exc_int3", ENTRY], Stop.NO_UNWIND_INFO, Stop.NO_UNWIND_INFO, 1) == said(kernel, found)


def test_once_the_kernel_has_called_in_its_place_the_stack_is_that_of_the_call() -> None:
    kernel = probed()
    target = kernel.function("target", call(8))
    at_probed = kernel.names.index("probed") * FUNCTION
    kernel.code[at_probed : at_probed + 5] = CALL
    words = half_done(kernel)
    words[1 + PT_REGS_IP // 8] = target
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "exc_int3", 3), TASK_TOP - 8 * len(words), words))
    assert (["exc_int3", ENTRY, "target", "probed", *CALLERS], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)


def test_in_the_entry_itself_nothing_was_done_yet() -> None:
    """There the five words are the processor's own, and no copy of them lies above."""
    kernel = probed()
    kernel.rows[kernel.names.index(ENTRY)] = saved(0, OrcType.REGS_PARTIAL)
    callers = [at(kernel, name) for name in CALLERS]
    sp = TASK_TOP - 8 * (len(callers) + len(USER))
    words = [*pt_regs(at(kernel, "probed", FUNCTION), sp, KERNEL_CS)[-5:], *([0] if sp % 16 else []), *callers, *USER]
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, ENTRY, 3), TASK_TOP - 8 * len(words), words))
    assert ([ENTRY, "behind", *CALLERS], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)


def test_another_exception_at_the_same_place_has_the_row_of_its_instruction() -> None:
    kernel = probed()
    kernel.names[kernel.names.index(ENTRY)] = "asm_exc_page_fault"
    callers = [0xB0, *(at(kernel, name) for name in CALLERS)]
    sp = TASK_TOP - 8 * (len(callers) + len(USER))
    words = [at(kernel, "asm_exc_page_fault"), *registers(kernel, sp), *callers, *USER]
    found = KernelUnwinder(kernel).unwind(kernel.thread(at(kernel, "exc_int3", 3), TASK_TOP - 8 * len(words), words))
    assert (["exc_int3", "asm_exc_page_fault", "behind", *CALLERS], Stop.END_KERNEL_ENTRY, Stop.NONE, None) == said(kernel, found)


@pytest.mark.parametrize("name", ["arch_rethook_trampoline", "return_to_handler"])
def test_at_a_trampolines_first_instruction_the_return_address_is_gone(name: str) -> None:
    """The probed function has returned there, and its caller keeps nothing on the stack: on top lies that caller's own return address."""
    kernel = probed()
    trampoline = kernel.function(name, call(8))
    words = [at(kernel, "main"), at(kernel, CALLERS[-1]), *USER]
    found = KernelUnwinder(kernel).unwind(kernel.thread(trampoline, TASK_TOP - 8 * len(words), words))
    assert ([name], Stop.RA_REWRITTEN, Stop.RA_REWRITTEN, 0) == said(kernel, found)


def test_while_the_kernel_finishes_an_interrupted_return_nothing_is_known_beyond() -> None:
    """The stack pointer is stored first: by it `outer` is left out, until its address is stored too."""
    kernel = probed()
    safe_ret = kernel.function("srso_safe_ret", call(8), code=bytes.fromhex("488d642408c3"))
    finish = kernel.function("handle_interrupted_saferet", call(8))
    callers = [at(kernel, name) for name in CALLERS]
    sp = TASK_TOP - 8 * (len(callers) + len(USER))
    for stored, stop in ((finish + 0x32, Stop.NO_UNWIND_INFO), (at(kernel, "exc_int3", 3), Stop.END_KERNEL_ENTRY)):
        words = [at(kernel, "asm_interrupt"), *pt_regs(safe_ret, sp, KERNEL_CS), safe_ret + 0x10, *callers, *USER]
        found = KernelUnwinder(kernel).unwind(kernel.thread(stored, TASK_TOP - 8 * len(words), words))
        assert stop is found.stack.stop
