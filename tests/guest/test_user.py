"""User threads of a guest: registers wherever they are, memory through the process's tables or out of the page cache, and liars."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, replace

import pytest
from guest.fake_kernel import DIRECT_MAP, MEMORY_STRUCTS, TASK_STRUCTS, THREAD_SIZE, FakeKernel

from unspool.formats.paging import PAGE
from unspool.model.arch import X86_64
from unspool.model.registers import Registers
from unspool.model.thread import Thread
from unspool.model.verdict import Stop
from unspool.targets.guest.registers import VcpuState
from unspool.targets.guest.tasks import Task, Tasks
from unspool.targets.guest.user import Users

CODE, DATA, STACK = 0x400000, 0x404000, 0x7FFE_0000_0000
USER_CS, COMPAT_CS, USER_SS = 0x33, 0x23, 0x2B
ENTRY = 0x401000
PF_KTHREAD = 0x200000


@dataclass
class Scene:
    """One process: two pages of a file (the first mapped, the second only cached), a page of data, one of stack; and its task."""

    kernel: FakeKernel
    users: Users
    task: Task
    mm: int
    top: int


def scene(*, flags: int = 0) -> Scene:
    kernel, at = FakeKernel(), MEMORY_STRUCTS
    mount = kernel.mount()
    file, pages = kernel.file(mount, kernel.dentry(b"prog", kernel.root_of(mount)), 2 * PAGE)
    kernel.put(pages, kernel.xa_node(0, {0: kernel.cached(pages, 0, b"file one"), 1: kernel.cached(pages, 1, b"file two")}))
    mappings = [
        (CODE + 2 * PAGE - 1, kernel.vma(CODE, CODE + 2 * PAGE, flags=5, file=file)),
        (DATA - 1, 0),
        (DATA + PAGE - 1, kernel.vma(DATA, DATA + PAGE, flags=3)),
        (STACK - 1, 0),
        (STACK + PAGE - 1, kernel.vma(STACK, STACK + PAGE, flags=3)),
        ((1 << 64) - 1, 0),
    ]
    mm, top = kernel.take(256), kernel.table()
    kernel.map_page(top, CODE, kernel.page(b"in place"))
    kernel.map_page(top, STACK, kernel.page(b"stack"))
    own = kernel.memory.tables.root + DIRECT_MAP
    for page in range(0, len(kernel.ram.data), PAGE):
        kernel.map_page(own, DIRECT_MAP + page, DIRECT_MAP + page, rights=3)
    kernel.put(mm + at.pgd, top)
    kernel.put(mm + at.tree + at.tree_root, kernel.maple_node(1, mappings))
    kernel.put(mm + at.start_stack, STACK + 64)
    kernel.write(mm + at.saved_auxv[0], struct.pack("<4Q", 9, ENTRY, 0, 0))
    task = Tasks(kernel, TASK_STRUCTS).task(kernel.task(7, mm=mm, flags=flags))
    assert task is not None
    return Scene(kernel, Users(kernel, at, thread_size=THREAD_SIZE), task, mm, top)


def saved(ip: int = CODE + 4, cs: int = USER_CS, ss: int = USER_SS) -> list[int]:
    """The words of a struct pt_regs: r15 is 15, ..., rdi is 5, by DWARF number."""
    return [15, 14, 13, 12, 6, 3, 11, 10, 9, 8, 0, 2, 1, 4, 5, 0, ip, cs, 0x246, STACK + 8, ss]


def on_cpu(cs: int = USER_CS) -> VcpuState:
    registers = Registers(X86_64, CODE + 4, {X86_64.sp: STACK + 8}, 0x1234)
    return VcpuState(registers, 1, 0, 0, 0, cs, 3, 0, 0x1234, 0, None, halted=False, snapshot=True)


def test_memory_is_what_the_page_tables_and_the_page_cache_have() -> None:
    here = scene()
    thread = here.users.on_vcpu(here.task, on_cpu())
    assert isinstance(thread, Thread)
    read = thread.memory.read
    assert [b"in place", b"file two", b"stack\0\0\0"] == [read(address, 8) for address in (CODE, CODE + PAGE, STACK)]
    assert b"\0\0file" == read(CODE + PAGE - 2, 6)
    for absent in (DATA, CODE - 8, CODE + 2 * PAGE - 4, STACK + PAGE - 4, 1 << 63, -8, DIRECT_MAP):
        assert read(absent, 8) is None


def test_a_page_that_was_swapped_out_is_not_taken_from_the_file() -> None:
    here = scene()
    here.kernel.map_page(here.top, CODE + PAGE, DIRECT_MAP, rights=0x800 << 12)
    thread = here.users.on_vcpu(here.task, on_cpu())
    assert isinstance(thread, Thread)
    assert thread.memory.read(CODE + PAGE, 8) is None


def test_pages_of_the_kernel_are_not_the_processs() -> None:
    here = scene()
    here.kernel.map_page(here.top, DATA, here.kernel.page(b"secret"), rights=3)
    thread = here.users.on_vcpu(here.task, on_cpu())
    assert isinstance(thread, Thread)
    assert thread.memory.read(DATA, 6) is None


def test_a_stack_may_end_where_the_kernel_started_the_program() -> None:
    here = scene()
    thread = here.users.on_vcpu(here.task, on_cpu())
    assert isinstance(thread, Thread)
    assert (ENTRY, None, STACK + 64) == (thread.ends.process, thread.ends.interpreter, thread.ends.initial_sp)
    assert ["/prog", "", "[stack]"] == [mapping.path for mapping in thread.space]


@pytest.mark.parametrize("padding", [0, 16], ids=["", "FRED"])
def test_registers_lie_at_the_base_of_the_kernels_stack(padding: int) -> None:
    here = scene()
    place = here.task.stack + THREAD_SIZE - padding - 168
    here.kernel.put(place, *saved())
    assert place == here.users.at_base(here.task)
    thread = here.users.entered(here.task, place, fs_base=0x77, snapshot=False)
    assert isinstance(thread, Thread)
    assert {number: number for number in (*range(7), *range(8, 16))} | {7: STACK + 8} == thread.registers.values
    assert (CODE + 4, 0x77, False) == (thread.registers.pc, thread.registers.thread_pointer, thread.snapshot)


def test_where_only_five_words_are_saved_the_others_are_still_in_place() -> None:
    here = scene()
    place = here.kernel.take(64)
    here.kernel.put(place, CODE + 4, USER_CS, 0x246, STACK + 8, USER_SS)
    thread = here.users.interrupted(here.task, place, {6: 66, 7: 1}, fs_base=0, snapshot=True)
    assert isinstance(thread, Thread)
    assert ({6: 66, 7: STACK + 8}, CODE + 4) == (thread.registers.values, thread.registers.pc)


def test_at_a_system_calls_first_instructions_rcx_is_the_users_pc() -> None:
    """What lies at the base of the kernel's stack is still of the call before."""
    here = scene()
    here.kernel.labels["entry_SYSCALL_64"] = here.kernel.base
    here.kernel.labels["entry_SYSCALL_compat"] = here.kernel.base + 0x100

    def entering(pc: int, sp: int) -> Thread | Stop:
        registers = Registers(X86_64, pc, {X86_64.sp: sp, 2: CODE + 64, 6: 66}, 0x1234)
        return here.users.entering(here.task, replace(on_cpu(), registers=registers, cpl=0, cs=0x10))

    thread = entering(here.kernel.base + 3, STACK + 8)
    assert isinstance(thread, Thread)
    assert (CODE + 64, STACK + 8, 66) == (thread.registers.pc, thread.registers.sp, thread.registers.get(6))
    assert Stop.REG_UNAVAILABLE is entering(here.kernel.base + 0x20, here.task.sp)
    assert Stop.REG_UNAVAILABLE is entering(here.kernel.base + 0x104, STACK + 8)


def test_on_the_way_back_the_base_still_has_what_is_returned_to() -> None:
    here = scene()
    here.kernel.labels["swapgs_restore_regs_and_return_to_usermode"] = here.kernel.base
    registers = Registers(X86_64, here.kernel.base + 0x30, {X86_64.sp: here.task.sp})
    state = replace(on_cpu(), registers=registers, cpl=0, cs=0x10)
    assert Stop.REG_UNAVAILABLE is here.users.entering(here.task, state)
    here.kernel.put(here.task.stack + THREAD_SIZE - 168, *saved(CODE + 24))
    thread = here.users.entering(here.task, state)
    assert isinstance(thread, Thread)
    assert (CODE + 24, 0x1234) == (thread.registers.pc, thread.registers.thread_pointer)


def test_what_is_no_user_thread_says_why() -> None:
    here, worker = scene(), scene(flags=PF_KTHREAD)
    place = here.kernel.take(168)
    assert Stop.NO_USER_STACK is worker.users.on_vcpu(worker.task, on_cpu())
    assert Stop.UNSUPPORTED_RULE is here.users.on_vcpu(here.task, on_cpu(COMPAT_CS))
    assert here.users.at_base(here.task) is None
    for words, stop in ((saved(cs=0x10, ss=0x18), Stop.NO_USER_STACK), (saved(cs=COMPAT_CS), Stop.UNSUPPORTED_RULE)):
        here.kernel.put(place, *words)
        assert stop is here.users.entered(here.task, place, fs_base=0, snapshot=True)
        here.kernel.put(place, *words[16:])
        assert stop is here.users.interrupted(here.task, place, {}, fs_base=0, snapshot=True)
    assert Stop.MEM_FAULT is here.users.entered(here.task, 8, fs_base=0, snapshot=True)
    here.kernel.put(here.mm, 0)
    assert Stop.GUEST_PT is here.users.on_vcpu(here.task, on_cpu())


def test_a_process_is_remembered_until_its_mappings_change() -> None:
    here = scene()
    first = here.users.process(here.mm)
    assert first is not None
    assert first is here.users.process(here.mm)
    assert here.users.holds(first, [CODE + 8, CODE + 16, STACK, 8])
    here.kernel.put(here.mm + MEMORY_STRUCTS.counters[0][0], 5)
    assert first is not here.users.process(here.mm)


def test_a_mapping_that_took_the_place_of_another_is_noticed() -> None:
    """The same number of pages, another file: no counter shows it."""
    here = scene()
    process = here.users.process(here.mm)
    assert process is not None
    root = here.kernel.memory.word(here.mm + MEMORY_STRUCTS.tree + MEMORY_STRUCTS.tree_root)
    assert root is not None
    here.kernel.put((root & ~0xFF) + 128, here.kernel.vma(CODE, CODE + 2 * PAGE, flags=5))
    assert here.users.holds(process, [STACK])
    assert not here.users.holds(process, [STACK, CODE])
    fresh = here.users.process(here.mm)
    assert fresh is not None
    assert process is not fresh
    assert [""] == [mapping.path for mapping in fresh.space][:1]


def test_a_vdso_that_is_not_mapped_yet_is_the_kernels() -> None:
    here, at = scene(), MEMORY_STRUCTS
    image, data = here.kernel.take(64), here.kernel.page(b"vdso")
    here.kernel.put(image, data, PAGE)
    here.kernel.put(here.mm + at.vdso, DATA, image)
    thread = here.users.on_vcpu(here.task, on_cpu())
    assert isinstance(thread, Thread)
    assert b"vdso" == thread.memory.read(DATA, 4)


def test_flipped_bits_never_raise() -> None:
    here = scene()
    base = here.task.stack + THREAD_SIZE - 168
    here.kernel.put(base, *saved())
    whole, chance = bytes(here.kernel.ram.data), random.Random(8)
    places = [at for at in range(PAGE, here.kernel.used) if whole[at]]
    for _ in range(150):
        here.kernel.ram.data[:] = whole
        for _ in range(chance.randrange(1, 40)):
            here.kernel.ram.data[chance.choice(places)] ^= 1 << chance.randrange(8)
        here.kernel.memory.forget()
        users = Users(here.kernel, MEMORY_STRUCTS, thread_size=THREAD_SIZE)
        users.at_base(here.task)
        for thread in (users.on_vcpu(here.task, on_cpu()), users.entered(here.task, base, fs_base=0, snapshot=True)):
            if isinstance(thread, Thread):
                process = users.process(here.mm)
                for mapping in thread.space:
                    thread.memory.read(mapping.start + 8, 8)
                if process is not None:
                    users.holds(process, thread.space.starts)
                    for file in process.files.values():
                        users.elf_bytes(file)
                        users.cache.build_id(file)
