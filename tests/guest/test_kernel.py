"""A kernel made out of a guest's memory: everything it holds, in every layout, and what happens where something is not there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from struct import pack

import pytest
from formats.kallsyms_bytes import Age
from formats.orc_bytes import FIELDS, Encoding
from formats.paging_bytes import LARGE, PAGE, Damaged, FakeRam
from guest.ram_image import (
    BANNER,
    BASE,
    BUILD_ID,
    FUNCTION,
    IMAGE_PA,
    IMAGE_SIZE,
    MODULES,
    PER_CPU,
    PROCESS_ROOT,
    RELEASE,
    TASK_CANARY,
    Guest,
    Shape,
    build,
    program_address,
)

from unspool.formats.kallsyms import KernelSymbol
from unspool.formats.orc import OrcEntry, OrcType
from unspool.targets.guest.kernel import GuestKernel, Unreadable, discover
from unspool.targets.guest.kernel_cache import MAX_KERNELS, KernelCache

SHAPES = [
    Shape(age=Age.OLD, encoding=Encoding.TYPE2),
    Shape(age=Age.SEQUENCES, encoding=Encoding.TYPE2_SIGNAL, page=LARGE),
    Shape(age=Age.NEW, encoding=Encoding.TYPE3, levels=5),
    Shape(age=Age.NEW_RELATIVE, encoding=Encoding.TYPE3, user=True),
    Shape(age=Age.SELF_RELATIVE, encoding=Encoding.RENUMBERED, levels=5, page=LARGE, user=True),
]


def found(guest: Guest, cache: KernelCache | None = None) -> GuestKernel:
    kernel = discover(guest.ram, guest.state, cache=cache)
    assert isinstance(kernel, GuestKernel), kernel
    return kernel


def meant(entry: OrcEntry, shape: Shape) -> OrcEntry:
    """The entry as it comes out where the encoding has no signal bit."""
    if "signal" in FIELDS[shape.encoding]:
        return entry
    return entry._replace(signal=entry.type in {OrcType.REGS, OrcType.REGS_PARTIAL})


def refusal(guest: Guest, memory: Damaged | FakeRam | None = None) -> str:
    kernel = discover(memory or guest.ram, guest.state)
    assert isinstance(kernel, Unreadable), kernel
    assert kernel.reason.endswith(".")
    return kernel.reason


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.age.name}-{shape.encoding.name}")
def test_everything_in_a_kernel_is_found(shape: Shape) -> None:
    guest = build(shape)
    kernel = found(guest)
    assert guest.rows == list(kernel.symbols)
    assert (RELEASE, BANNER.strip(b"\n\0").decode(), BUILD_ID.hex()) == (kernel.release, kernel.version, kernel.build_id)
    assert (BASE, guest.labels["_end"], shape.levels) == (kernel.base, kernel.end, kernel.levels)
    assert () == kernel.missing
    assert [meant(entry, shape) for _, entry in guest.orc] == [kernel.orc(pc) for pc, _ in guest.orc]
    assert kernel.btf is not None
    assert TASK_CANARY == kernel.btf.struct("task_struct").offset("stack_canary")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.age.name)
def test_modules_bring_their_names_and_tables(shape: Shape) -> None:
    guest = build(shape)
    kernel = found(guest)
    assert ["alpha", "beta"] == [module.name for module in kernel.modules]
    for module in kernel.modules:
        start = module.start
        assert KernelSymbol(start + 0x80, f"{module.name}_second", module.name) == kernel.symbol(start + 0x90)
        assert (start, start + 0x80) == kernel.extent(start + 0x7F)
        assert (start + 0x80, start + PAGE) == kernel.extent(start + 0x80)
        assert [entry for _, entry in guest.module_orc[module.name]] == [kernel.orc(pc) for pc, _ in guest.module_orc[module.name]]
        assert module is kernel.module(start)
        assert not kernel.is_text(start + PAGE), "its data is no code"


def test_what_is_code_is_told_from_what_is_not() -> None:
    kernel = found(build())
    assert kernel.is_text(BASE)
    assert kernel.is_text(BASE + FUNCTION * 300 - 1)
    assert not kernel.is_text(BASE + FUNCTION * 300)
    assert not kernel.is_text(BASE - 1)
    assert kernel.module(BASE) is None
    assert kernel.orc(BASE + FUNCTION * 300) is None
    assert kernel.symbol(kernel.address("linux_banner") or 0) is None
    assert KernelSymbol(BASE + FUNCTION * 7, "function_7", "") == kernel.symbol(BASE + FUNCTION * 7 + 5)
    assert (BASE + FUNCTION * 7, BASE + FUNCTION * 8) == kernel.extent(BASE + FUNCTION * 7 + 5)
    assert (BASE + FUNCTION * 299, BASE + FUNCTION * 300) == kernel.extent(BASE + FUNCTION * 299)
    assert kernel.extent(BASE - 1) is None


@pytest.mark.parametrize("booting", [False, True])
def test_init_code_counts_while_the_guest_boots(booting: bool) -> None:  # noqa: FBT001 - a parameter of the test
    guest = build(Shape(booting=booting))
    kernel = found(guest)
    assert booting == kernel.is_text(guest.labels["_sinittext"])
    assert kernel.is_text(BASE)


def test_cpus_have_their_offsets() -> None:
    guest = build()
    kernel = found(guest)
    assert [*PER_CPU, None, None] == [kernel.per_cpu(cpu) for cpu in (0, 1, 2, -1)]
    assert 1 == kernel.cpu_of(guest.state)
    assert 0 == kernel.cpu_of(replace(guest.state, gs_base=0x7F00, kernel_gs_base=PER_CPU[0])), "in user mode it is the other one"
    assert kernel.cpu_of(replace(guest.state, gs_base=0, kernel_gs_base=None)) is None


def test_a_cpu_is_looked_for_anew_where_it_was_no_longer_holds() -> None:
    """What was learned in one hold is looked at again in the next."""
    guest = build()
    kernel = found(guest)
    assert 1 == kernel.cpu_of(guest.state)
    place = guest.labels["__per_cpu_offset"]
    physical = kernel.memory.tables.translate(place)
    assert physical is not None
    guest.ram.write(physical.pa, pack("<QQ", *reversed(PER_CPU)))
    kernel.forget()
    assert 0 == kernel.cpu_of(guest.state)


def test_kernel_memory_does_not_need_the_process() -> None:
    """The tables of a process that has ended are anything; the kernel's own stay."""
    guest = build()
    kernel = found(guest)
    guest.ram.write(PROCESS_ROOT, b"\xff" * PAGE)
    kernel.forget()
    assert BANNER[:20] == kernel.memory.read(guest.labels["linux_banner"], 20)
    assert b"\0" * 8 == kernel.memory.read(MODULES, 8)
    assert kernel.memory.read(MODULES - PAGE, 8) is None
    assert BANNER[:8] == kernel.memory.read(guest.labels["linux_banner"], 8)


def test_the_direct_map_needs_no_tables() -> None:
    guest = build()
    kernel = found(guest)
    direct = kernel.memory.windows[1]
    guest.ram.write(0x5000, b"direct")
    assert b"direct" == kernel.memory.read(direct.start + 0x5000, 6)
    assert kernel.memory.read(direct.start + (1 << 40), 6) is None
    assert direct.end <= 0xFFFF_B000_0000_0000, "the area of vmalloc is no part of it"


def test_pages_are_kept_until_they_are_forgotten() -> None:
    guest = build()
    kernel = found(guest)
    address = guest.labels["init_task"]
    before = kernel.memory.word(address)
    guest.ram.write(guest.physical("init_task"), pack("<Q", 77))
    assert before == kernel.memory.word(address)
    kernel.forget()
    assert 77 == kernel.memory.word(address)


def test_small_and_large_reads_agree() -> None:
    guest = build()
    kernel = found(guest)
    whole = kernel.memory.read(BASE, 40 * PAGE)
    assert whole is not None
    assert whole[3 : 5 * PAGE] == kernel.memory.read(BASE + 3, 5 * PAGE - 3)
    assert b"" == kernel.memory.read(BASE, 0)
    assert kernel.memory.read(BASE, -1) is None
    assert kernel.memory.read(BASE + IMAGE_SIZE - 8, 16) is None
    assert kernel.memory.half(guest.labels["nr_cpu_ids"]) == 2
    assert kernel.memory.string(guest.labels["linux_banner"]) == BANNER[:-1]
    assert kernel.memory.string(guest.labels["linux_banner"], 5) == b"Linux"
    assert kernel.memory.string(BASE + IMAGE_SIZE) is None


def test_modules_come_and_go() -> None:
    guest = build(Shape(modules=("alpha", "beta", "gamma")))
    kernel = found(guest)
    kept = kernel.modules[2]
    assert not kernel.refresh()
    guest.link(["gamma"])
    assert not kernel.refresh(), "the pages that were read are still kept"
    kernel.forget()
    assert kernel.refresh()
    assert (kept,) == kernel.modules
    assert not kernel.is_text(MODULES)
    guest.link(["beta", "gamma"])
    kernel.forget()
    assert kernel.refresh()
    assert ["beta", "gamma"] == [module.name for module in kernel.modules]


def test_compiled_bpf_programs_are_code_with_a_name() -> None:
    guest = build(Shape(programs=("bpf_prog_aa_first", "bpf_prog_bb_second")))
    kernel = found(guest)
    assert ["bpf_prog_aa_first", "bpf_prog_bb_second"] == [program.name for program in kernel.programs]
    assert ["alpha", "beta"] == [module.name for module in kernel.modules]
    start = program_address(1)
    assert KernelSymbol(start, "bpf_prog_bb_second", "bpf_prog_bb_second") == kernel.symbol(start + 0x3F)
    assert (start, start + 0x40) == kernel.extent(start)
    assert kernel.is_text(start)
    assert not kernel.is_text(start + 0x40)
    assert kernel.module(start) is kernel.programs[1]
    assert kernel.orc(start) is None, "they have no unwind tables"
    kept = kernel.programs[0]
    guest.load(["bpf_prog_aa_first"])
    kernel.forget()
    assert kernel.refresh()
    assert (kept,) == kernel.programs


def test_another_boot_is_noticed() -> None:
    guest = build()
    kernel = found(guest)
    assert kernel.same_boot()
    kernel.forget()
    assert kernel.same_boot()
    guest.ram.write(guest.physical("init_task") + TASK_CANARY, pack("<Q", 99))
    kernel.forget()
    assert not kernel.same_boot(), "the first task's canary is drawn at every boot"


def test_a_canary_that_was_not_drawn_yet_is_no_other_boot() -> None:
    guest = build()
    guest.ram.write(guest.physical("init_task") + TASK_CANARY, pack("<Q", 0))
    kernel = found(guest)
    assert kernel.same_boot()
    guest.ram.write(guest.physical("init_task") + TASK_CANARY, pack("<Q", 5))
    kernel.forget()
    assert kernel.same_boot()
    guest.ram.write(guest.physical("init_task") + TASK_CANARY, pack("<Q", 6))
    kernel.forget()
    assert not kernel.same_boot()


def test_a_kernel_that_is_gone_is_noticed() -> None:
    guest = build()
    kernel = found(guest)
    guest.ram.write(guest.physical("linux_banner"), b"BIOS")
    kernel.forget()
    assert not kernel.same_boot()


def test_a_kernel_that_was_read_before_is_recognised() -> None:
    guest, cache = build(), KernelCache()
    first = found(guest, cache)
    guest.ram.reads.clear()
    second = found(guest, cache)
    assert first.tables is second.tables
    assert sum(size for _, size in guest.ram.reads) < IMAGE_SIZE // 4


def test_another_build_at_the_same_place_is_another_kernel() -> None:
    guest, cache = build(), KernelCache()
    first = found(guest, cache)
    guest.ram.write(guest.physical("__start_notes") + 16, b"\xaa")
    second = found(guest, cache)
    assert first.tables is not second.tables
    assert "aa" == second.build_id[:2]
    assert 2 == len(cache)


def test_the_cache_has_a_limit() -> None:
    guest, cache = build(), KernelCache()
    for number in range(MAX_KERNELS + 3):
        guest.ram.write(guest.physical("__start_notes") + 16, bytes([number]))
        found(guest, cache)
    assert MAX_KERNELS == len(cache)


def test_a_vcpu_that_has_not_started_is_a_reason() -> None:
    guest = build()
    reset = replace(guest, state=replace(guest.state, cr0=0x10, efer=0))
    assert "not in long mode" in refusal(reset)


def test_memory_without_a_kernel_is_a_reason() -> None:
    guest = build()
    assert "No Linux kernel is mapped" in refusal(guest, FakeRam())
    empty = FakeRam()
    empty.write(PROCESS_ROOT, bytes(PAGE))
    assert "No Linux kernel is mapped" in refusal(guest, empty)


def test_a_table_of_user_mode_alone_is_a_reason() -> None:
    """Under page table isolation user mode sees one page of the kernel; where the kernel's own table is gone, that is too little."""
    guest = build(Shape(user=True))
    hole = Damaged(guest.ram, {}, frozenset({PROCESS_ROOT // PAGE}))
    assert "Too little of the kernel" in refusal(guest, hole)


def test_a_kernel_without_kallsyms_is_a_reason() -> None:
    guest = build()
    hole = Damaged(guest.ram, {}, frozenset({guest.physical("kallsyms_token_table") // PAGE}))
    assert "kallsyms" in refusal(guest, hole)


def test_a_kernel_without_btf_has_no_modules_and_says_so() -> None:
    guest = build(Shape(btf=False))
    kernel = found(guest)
    assert kernel.btf is None
    assert () == kernel.modules
    assert ["No type information (BTF)"] == [reason.partition(":")[0] for reason in kernel.missing]
    assert guest.orc[5][1] == kernel.orc(guest.orc[5][0]), "the release tells the layout of ORC entries"


def test_a_kernel_with_damaged_tables_is_one_without_them() -> None:
    guest = build()
    guest.ram.write(guest.physical("__start_BTF"), b"\0")
    guest.ram.write(guest.physical("__start_orc_unwind_ip"), b"\xff" * 8)
    kernel = found(guest)
    assert kernel.btf is None
    assert kernel.orc(BASE) is None
    assert guest.rows == list(kernel.symbols)
    assert 2 == len(kernel.missing)
    assert all(reason.endswith(".") for reason in kernel.missing)


def test_tables_that_lead_elsewhere_are_not_believed() -> None:
    """The kernel's own page tables must agree with those of the vCPU on where the kernel is."""
    guest = build()
    guest.ram.write(guest.tables.root, bytes(PAGE))
    assert "own page tables" in refusal(guest)


def test_a_banner_of_another_system_is_a_reason() -> None:
    guest = build()
    guest.ram.write(guest.physical("linux_banner"), b"Linux version \x1b[2J <b>")
    assert "version" in refusal(guest)


@pytest.mark.parametrize(("levels", "age"), list(product([4, 5], [Age.NEW])))
def test_a_process_has_its_own_space(levels: int, age: Age) -> None:
    guest = build(Shape(levels=levels, age=age))
    space = found(guest).space(guest.state.root)
    where = space.translate(BASE)
    assert where is not None
    assert IMAGE_PA == where.pa


ONLY_MEMORY = """
import builtins, io, os, sys
sys.path[:0] = {paths!r}
from guest.ram_image import Shape, build
from unspool.targets.guest.kernel import GuestKernel, discover, preload
guest = build(Shape())
preload()

class Refuse:
    def find_spec(self, name, path=None, target=None):
        raise AssertionError(f"import of {{name}}")

sys.meta_path.insert(0, Refuse())

def refuse(event, arguments):
    if event in {{"open", "import", "os.listdir", "os.scandir", "socket.connect", "subprocess.Popen"}}:
        raise AssertionError(f"{{event}} {{arguments}}")

sys.addaudithook(refuse)
kernel = discover(guest.ram, guest.state)
assert isinstance(kernel, GuestKernel), kernel
assert kernel.symbol(kernel.modules[0].start).name == "alpha_first"
assert kernel.orc(kernel.modules[0].start) is not None
assert kernel.orc(kernel.base) is not None
kernel.forget()
kernel.refresh()
print("done")
"""


def test_nothing_but_memory_is_touched() -> None:
    """After `preload` a kernel is read without a file, an import or a socket: its reader runs where there are none."""
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]
    done = subprocess.run([sys.executable, "-c", ONLY_MEMORY.format(paths=paths)], capture_output=True, text=True, check=False, timeout=120)
    assert "done" in done.stdout, done.stderr
