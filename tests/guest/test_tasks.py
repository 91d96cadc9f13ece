"""The tasks of a guest out of its memory: the current one, the lists, saved registers; and lists that never end on their own."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from guest.fake_kernel import DIRECT_MAP, TASK_SIZE, TASK_STRUCTS, THREAD_SIZE, FakeKernel

from unspool.formats.paging import PAGE
from unspool.model.arch import X86_64
from unspool.model.registers import Registers
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.tasks import ENTRY_STACK, EXCEPTION_STACK, IRQ_STACK, KERNEL_FILE, TASK_STACK, Tasks

PF_KTHREAD = 0x200000


@pytest.fixture
def kernel() -> FakeKernel:
    """Two processes, one of them with two more threads, and init_task."""
    kernel = FakeKernel()
    init, first, second = kernel.task(0, b"swapper"), kernel.task(1, b"init", mm=DIRECT_MAP), kernel.task(2, b"kthreadd", flags=PF_KTHREAD)
    threads = [kernel.task(pid, b"worker", tgid=1) for pid in (11, 12)]
    kernel.link([task + TASK_STRUCTS.tasks for task in (init, first, second)])
    signal = kernel.memory.word(first + TASK_STRUCTS.signal)
    assert signal is not None
    kernel.link([signal + TASK_STRUCTS.thread_head, *(task + TASK_STRUCTS.thread_node for task in (first, *threads))])
    kernel.labels["init_task"] = init
    return kernel


def state(sp: int, pc: int = 0xFFFF_FFFF_8100_0000) -> VcpuState:
    registers = Registers(X86_64, pc, {X86_64.sp: sp})
    return VcpuState(registers, 1, 0, 0, 0, 0x10, 0, 0, 0, 0, None, halted=False, snapshot=True)


def test_all_tasks_are_those_on_the_lists(kernel: FakeKernel) -> None:
    tasks = list(Tasks(kernel, TASK_STRUCTS).all())
    assert [(1, 1), (11, 1), (12, 1), (2, 2)] == [(task.pid, task.tgid) for task in tasks]
    assert ["init", "worker", "worker", "kthreadd"] == [task.comm for task in tasks]
    assert [False, False, False, True] == [task.kernel_thread for task in tasks]


def test_the_current_task_is_that_of_the_per_cpu_variable(kernel: FakeKernel) -> None:
    variable = kernel.take(2 * PAGE)
    kernel.labels["current_task"] = variable
    first, second = (task.address for task in Tasks(kernel, TASK_STRUCTS).all() if task.pid in {1, 2})
    kernel.put(variable, first)
    kernel.put(variable + PAGE, second)
    tasks = Tasks(kernel, TASK_STRUCTS)
    assert [1, 2, None] == [None if (task := tasks.current(cpu)) is None else task.pid for cpu in range(3)]


@pytest.mark.parametrize(
    ("bits", "exit_bits", "letter"),
    [(0, 0, "R"), (1, 0, "S"), (2, 0, "D"), (0x402, 0, "I"), (4, 0, "T"), (8, 0, "t"), (0x2001, 0, "S"), (0, 0x20, "Z"), (0, 0x10, "X")],
)
def test_a_state_has_the_letter_of_ps(kernel: FakeKernel, bits: int, exit_bits: int, letter: str) -> None:
    address = kernel.task(7, state=bits)
    kernel.half(address + TASK_STRUCTS.exit_state, exit_bits)
    task = Tasks(kernel, TASK_STRUCTS).task(address)
    assert task is not None
    assert letter == task.state


def test_a_name_that_is_no_text_is_kept_readable(kernel: FakeKernel) -> None:
    task = Tasks(kernel, TASK_STRUCTS).task(kernel.task(7, b"a\xffb\n"))
    assert task is not None
    assert "a\\xffb\n" == task.comm


def test_a_sleeping_task_has_the_registers_it_was_left_with(kernel: FakeKernel) -> None:
    tasks = Tasks(kernel, TASK_STRUCTS)
    task = tasks.task(kernel.task(7))
    assert task is not None
    kernel.put(task.sp, 15, 14, 13, 12, 3, 6, 0xFFFF_FFFF_8100_1234)
    thread = tasks.sleeping(task, snapshot=True)
    assert thread is not None
    assert 0xFFFF_FFFF_8100_1234 == thread.registers.pc
    assert {15: 15, 14: 14, 13: 13, 12: 12, 3: 3, 6: 6, 7: task.sp + 56} == thread.registers.values
    stack = thread.space.find(task.sp)
    assert stack is not None
    assert (TASK_STACK, task.stack, task.stack + THREAD_SIZE) == (stack.path, stack.start, stack.end)
    code = thread.space.find(kernel.base)
    assert code is not None
    assert KERNEL_FILE == code.path


def test_a_task_that_has_run_since_it_was_listed_is_read_anew(kernel: FakeKernel) -> None:
    tasks = Tasks(kernel, TASK_STRUCTS)
    task = tasks.task(kernel.task(7))
    assert task is not None
    kernel.put(task.sp - 64, *[0] * 6, 0xFFFF_FFFF_8100_5678)
    kernel.put(task.address + TASK_STRUCTS.sp, task.sp - 64)
    thread = tasks.sleeping(task, snapshot=True)
    assert thread is not None
    assert 0xFFFF_FFFF_8100_5678 == thread.registers.pc
    kernel.half(task.address + TASK_STRUCTS.pid, 8)
    assert tasks.sleeping(task, snapshot=True) is None


@pytest.mark.parametrize("sp", [0, DIRECT_MAP, (1 << 64) - 8])
def test_saved_registers_that_lie_off_the_stack_are_none(kernel: FakeKernel, sp: int) -> None:
    tasks = Tasks(kernel, TASK_STRUCTS)
    address = kernel.task(7)
    kernel.put(address + TASK_STRUCTS.sp, sp)
    task = tasks.task(address)
    assert task is not None
    assert tasks.sleeping(task, snapshot=True) is None


def test_a_task_on_a_cpu_or_without_a_stack_does_not_sleep(kernel: FakeKernel) -> None:
    tasks = Tasks(kernel, TASK_STRUCTS)
    busy, gone = kernel.task(7), kernel.task(8)
    kernel.half(busy + 120, 1)
    kernel.put(gone + TASK_STRUCTS.stack, 0)
    for address in (busy, gone):
        task = tasks.task(address)
        assert task is not None
        assert tasks.sleeping(task, snapshot=True) is None


def test_the_neighbours_of_a_byte_do_not_count(kernel: FakeKernel) -> None:
    """Since Linux 7 the member is a byte, and others follow it."""
    address = kernel.task(7)
    kernel.half(address + 120, 0xFFFFFF00)
    task = Tasks(kernel, replace(TASK_STRUCTS, on_cpu=(120, 1))).task(address)
    assert task is not None
    assert not task.on_cpu


def test_a_stamp_changes_when_the_task_has_run(kernel: FakeKernel) -> None:
    tasks = Tasks(kernel, TASK_STRUCTS)
    task = tasks.task(kernel.task(7))
    assert task is not None
    before = tasks.stamp(task)
    assert before == tasks.stamp(task)
    kernel.put(task.address + 128, 1)
    assert before != tasks.stamp(task)


def test_a_vcpu_has_all_its_stacks(kernel: FakeKernel) -> None:
    irq, area = kernel.take(THREAD_SIZE, PAGE), kernel.take(1 << 16, PAGE)
    for name, value in (("hardirq_stack_ptr", irq + THREAD_SIZE - 8), ("cea_exception_stacks", area)):
        kernel.labels[name] = kernel.take(8)
        kernel.put(kernel.labels[name], value)
    tasks = Tasks(kernel, TASK_STRUCTS)
    task = next(tasks.all())
    space = tasks.running(state(task.sp), task, 0).space
    found = {mapping.path: mapping.start for mapping in space}
    entry = 0xFFFF_FE00_0000_2000
    assert {TASK_STACK: task.stack, IRQ_STACK: irq, EXCEPTION_STACK: area + PAGE, ENTRY_STACK: entry, KERNEL_FILE: kernel.base} == found


def test_between_two_tasks_the_stack_tells_whose_it_is(kernel: FakeKernel) -> None:
    """Within __switch_to the stack is the next task's already, and the variable still names the one before."""
    tasks = Tasks(kernel, TASK_STRUCTS)
    before, after = [task for task in tasks.all() if task.pid in {1, 2}]
    kernel.labels["current_task"] = kernel.take(8)
    kernel.put(kernel.labels["current_task"], before.address)
    tasks = Tasks(kernel, TASK_STRUCTS)
    assert before == tasks.on_vcpu(state(before.sp), 0)
    assert after == tasks.on_vcpu(state(after.sp), 0)
    assert before == tasks.on_vcpu(state(DIRECT_MAP), 0)


class TestHostile:
    """Lists and pointers of a guest that lies."""

    @pytest.mark.parametrize("target", [0, 8, 0x7FFF_0000_0000, DIRECT_MAP + 1, (1 << 64) - 8])
    def test_a_list_that_leads_nowhere_ends(self, kernel: FakeKernel, target: int) -> None:  # noqa: D102
        first = next(Tasks(kernel, TASK_STRUCTS).all())
        kernel.put(first.address + TASK_STRUCTS.tasks, target)
        assert 1 in {task.pid for task in Tasks(kernel, TASK_STRUCTS).all()}

    def test_a_list_that_goes_in_a_circle_without_its_head_ends(self, kernel: FakeKernel) -> None:  # noqa: D102
        first, last = (task for task in Tasks(kernel, TASK_STRUCTS).all() if task.pid in {1, 2})
        kernel.put(last.address + TASK_STRUCTS.tasks, first.address + TASK_STRUCTS.tasks)
        assert [1, 11, 12, 2] == [task.pid for task in Tasks(kernel, TASK_STRUCTS).all()]

    def test_a_list_of_threads_that_goes_in_a_circle_ends(self, kernel: FakeKernel) -> None:  # noqa: D102
        worker = next(task for task in Tasks(kernel, TASK_STRUCTS).all() if task.pid == 12)
        kernel.put(worker.address + TASK_STRUCTS.thread_node, worker.address + TASK_STRUCTS.thread_node)
        assert [1, 11, 12, 2] == [task.pid for task in Tasks(kernel, TASK_STRUCTS).all()]

    def test_flipped_bits_never_raise(self, kernel: FakeKernel) -> None:  # noqa: D102
        chance = random.Random(9)
        kernel.labels["current_task"] = kernel.take(8)
        kernel.put(kernel.labels["current_task"], kernel.labels["init_task"])
        whole = bytes(kernel.ram.data)
        places = [at for at in range(PAGE, kernel.used) if whole[at]] + list(range(PAGE, PAGE + 4 * TASK_SIZE))
        for _ in range(300):
            kernel.ram.data[:] = whole
            for _ in range(chance.randrange(1, 40)):
                kernel.ram.data[chance.choice(places)] ^= 1 << chance.randrange(8)
            kernel.memory.forget()
            tasks = Tasks(kernel, TASK_STRUCTS)
            for task in (*tasks.all(), tasks.current(0)):
                if task is not None:
                    tasks.sleeping(task, snapshot=True)
                    tasks.on_vcpu(state(task.sp), 0)
