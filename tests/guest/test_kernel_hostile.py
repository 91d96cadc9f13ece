"""A guest that lies: whatever its memory holds, there is a kernel or a reason, soon, and never an exception."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import pytest
from formats.kallsyms_bytes import Age
from formats.orc_bytes import Encoding
from formats.paging_bytes import LARGE, PAGE, Damaged, FakeRam
from guest.ram_image import (
    ARCH,
    FREE_TABLES,
    IMAGE_PA,
    KALLSYMS,
    KSYM_LIST,
    LIST,
    MEMORY,
    MODULE,
    MODULES,
    MODULES_PA,
    NAME,
    PROCESS_ROOT,
    PROGRAM_SIZE,
    PROGRAMS,
    PROGRAMS_PA,
    Guest,
    Shape,
    btf,
    build,
)
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import BadInput
from unspool.formats.btf import Btf
from unspool.model.memory import Memory
from unspool.targets.guest.kernel import GuestKernel, Unreadable, discover
from unspool.targets.guest.kernel_cache import KernelCache
from unspool.targets.guest.kernel_modules import MAX_MODULES, ModuleLayout
from unspool.targets.guest.registers import VcpuState

GUESTS = [
    build(Shape(age=Age.OLD, encoding=Encoding.TYPE2, functions=260, programs=("bpf_prog_first", "bpf_prog_second"))),
    build(Shape(age=Age.NEW, levels=5, page=LARGE, functions=260)),
    build(Shape(age=Age.SELF_RELATIVE, encoding=Encoding.RENUMBERED, user=True, functions=260)),
]
STRUCT = MODULES_PA + PAGE
"""Where the struct of the first module lies."""


def used(guest: Guest) -> list[tuple[int, int]]:
    """The ranges of physical memory that something can be found in."""
    return [
        (guest.physical("linux_banner"), guest.physical("_end")),
        (MODULES_PA + PAGE, MODULES_PA + 3 * PAGE),
        (PROGRAMS_PA, PROGRAMS_PA + 2 * PROGRAM_SIZE),
        (PROCESS_ROOT, PROCESS_ROOT + 2 * PAGE),
        (FREE_TABLES, FREE_TABLES + 4 * PAGE),
        (IMAGE_PA, IMAGE_PA + PAGE),
    ]


def ask_everything(memory: Memory, state: VcpuState) -> GuestKernel | Unreadable:
    """Use whatever came out of the memory."""
    kernel = discover(memory, state)
    if isinstance(kernel, Unreadable):
        assert kernel.reason.endswith(".")
        return kernel
    assert kernel.version.isprintable()
    for module in kernel.modules:
        for pc in (module.start, module.start + 0x90, module.end - 1):
            kernel.symbol(pc)
            kernel.extent(pc)
            kernel.orc(pc)
    for pc in (kernel.base, kernel.base + 0x45, kernel.end, state.registers.pc):
        kernel.symbol(pc)
        kernel.extent(pc)
        kernel.orc(pc)
    kernel.cpu_of(state)
    kernel.per_cpu(1)
    kernel.forget()
    kernel.same_boot()
    kernel.refresh()
    return kernel


@given(st.sampled_from(GUESTS), st.data())
def test_flipped_bits_give_a_kernel_or_a_reason(guest: Guest, data: st.DataObject) -> None:
    places = st.one_of([st.integers(start, end - 1) for start, end in used(guest)])
    changes = data.draw(st.dictionaries(places, st.integers(1, 255), min_size=1, max_size=8))
    ask_everything(Damaged(guest.ram, changes), guest.state)


@given(st.sampled_from(GUESTS), st.data())
def test_missing_pages_give_a_kernel_or_a_reason(guest: Guest, data: st.DataObject) -> None:
    pages = st.one_of([st.integers(start // PAGE, (end - 1) // PAGE) for start, end in used(guest)])
    ask_everything(Damaged(guest.ram, {}, data.draw(st.frozensets(pages, min_size=1, max_size=3))), guest.state)


@given(st.sampled_from(GUESTS), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_any_registers_give_a_kernel_or_a_reason(guest: Guest, cr3: int, cr4: int, gs_base: int) -> None:
    ask_everything(guest.ram, replace(guest.state, cr3=cr3, cr4=cr4, gs_base=gs_base))
    ask_everything(guest.ram, replace(guest.state, cr4=cr4))


@given(st.binary(max_size=8 * 64), st.integers(0, 511))
def test_any_bytes_as_page_tables_give_a_reason(content: bytes, index: int) -> None:
    """All memory is made of the same few pages: tables lead to tables, or to themselves."""
    ram = FakeRam()
    for page in range(4):
        ram.write(page * PAGE, bytes(8 * index) + content[: PAGE - 8 * index])
    state = replace(GUESTS[0].state, cr3=0)
    assert isinstance(ask_everything(ram, state), Unreadable)


def test_tables_that_map_every_page_to_one_give_a_reason() -> None:
    """The largest image there can be, all of it the same page: what is copied of it has a limit."""
    ram = FakeRam()
    ram.write(0, (0x3).to_bytes(8, "little") * 512)
    assert isinstance(ask_everything(ram, replace(GUESTS[0].state, cr3=0)), Unreadable)


def patched(offset: int, content: bytes, shape: Shape | None = None) -> Guest:
    """A guest whose first module's struct holds something else."""
    guest = build(shape)
    guest.ram.write(STRUCT + offset, content)
    return guest


def names(guest: Guest) -> list[str]:
    kernel = ask_everything(guest.ram, guest.state)
    assert isinstance(kernel, GuestKernel), kernel
    return [module.name for module in kernel.modules]


@pytest.mark.parametrize("target", [MODULES + PAGE + LIST, 0, 1, (1 << 64) - 8, 0xFFFF_FFFF_FFFF_FFF8, 0x8000_0000_0000_0000])
def test_a_list_of_modules_that_leads_nowhere_ends(target: int) -> None:
    """The first module's successor is itself, nothing, or no address at all."""
    assert ["alpha"] == names(patched(LIST, pack("<Q", target)))


def test_a_list_of_modules_that_leads_back_ends() -> None:
    guest = build(Shape(modules=("alpha", "beta", "gamma")))
    guest.link(["alpha", "beta", "gamma", "beta"])
    assert 3 >= len(names(guest))


def test_an_endless_list_of_modules_has_a_limit() -> None:
    """Every page of a large area holds a module that leads to the next page's."""
    guest = build()
    struct = guest.ram.read(STRUCT, PAGE)
    assert struct is not None
    direct = 0xFFFF_9A00_0000_0000
    for page in range(MAX_MODULES + 5):
        place = 0x1000_0000 + page * PAGE
        guest.ram.write(place, struct)
        guest.ram.write(place + LIST, pack("<Q", direct + place + PAGE + LIST))
    guest.ram.write(guest.physical("modules"), pack("<Q", direct + 0x1000_0000 + LIST))
    kernel = discover(guest.ram, guest.state)
    assert isinstance(kernel, GuestKernel)
    assert MAX_MODULES == len(kernel.modules)


@pytest.mark.parametrize("name", [b"\0", b"\x1b[2Jx\0", b"a b\0", b"\xff\xfe\0"])
def test_a_module_without_a_printable_name_ends_the_list(name: bytes) -> None:
    assert [] == names(patched(NAME, name))


@pytest.mark.parametrize("place", [(0, 0), (MODULES, 1 << 31), ((1 << 64) - PAGE, 2 * PAGE), (MODULES, 0)])
def test_a_module_without_a_believable_place_ends_the_list(place: tuple[int, int]) -> None:
    assert [] == names(patched(MEMORY, pack("<QI", *place)))


@pytest.mark.parametrize("pointer", [0, 1, MODULES, (1 << 64) - 4, 0xFFFF_FFFF_8000_0000])
@pytest.mark.parametrize("field", [KALLSYMS, ARCH, ARCH + 8, ARCH + 16])
def test_tables_of_a_module_that_are_not_there_are_none(field: int, pointer: int) -> None:
    guest = patched(field, pack("<Q", pointer))
    kernel = ask_everything(guest.ram, guest.state)
    assert isinstance(kernel, GuestKernel)
    assert ["alpha", "beta"] == [module.name for module in kernel.modules]
    assert kernel.is_text(MODULES)
    assert kernel.orc(kernel.modules[1].start) is not None, "the other module is whole"


@pytest.mark.parametrize("size", [0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 22])
def test_the_sizes_of_a_modules_tables_have_limits(size: int) -> None:
    assert ["alpha", "beta"] == names(patched(ARCH, pack("<I", size)))
    guest = build()
    guest.ram.write(MODULES_PA + 2 * PAGE + 0x508, pack("<Q", size))
    kernel = ask_everything(guest.ram, guest.state)
    assert isinstance(kernel, GuestKernel)
    assert kernel.modules[0].symbols is None


@pytest.mark.parametrize(
    ("start", "end", "name"),
    [
        (0, 0, b"x"),
        (PROGRAMS, PROGRAMS, b"x"),
        (PROGRAMS, PROGRAMS - 1, b"x"),
        (0, (1 << 64) - 1, b"x"),
        (PROGRAMS, PROGRAMS + 64, b"\x1b[2J"),
    ],
)
def test_a_program_that_is_not_believable_ends_the_list(start: int, end: int, name: bytes) -> None:
    guest = build(Shape(programs=("bpf_prog_first", "bpf_prog_second")))
    guest.ram.write(PROGRAMS_PA, pack("<QQ", start, end) + name + b"\0")
    kernel = ask_everything(guest.ram, guest.state)
    assert isinstance(kernel, GuestKernel)
    assert () == kernel.programs


def test_a_list_of_programs_that_leads_back_ends() -> None:
    guest = build(Shape(programs=("bpf_prog_first", "bpf_prog_second")))
    first = guest.ram.read(guest.physical("bpf_kallsyms"), 8)
    assert first is not None
    guest.ram.write(PROGRAMS_PA + PROGRAM_SIZE + KSYM_LIST, first)
    kernel = ask_everything(guest.ram, guest.state)
    assert isinstance(kernel, GuestKernel)
    assert 2 == len(kernel.programs)


def test_modules_over_each_other_still_answer() -> None:
    """A module that claims the kernel's own text cannot take it over, and nothing goes wrong."""
    guest = patched(MEMORY, pack("<QI", build().labels["_text"] + 0x100, 0x1000))
    kernel = ask_everything(guest.ram, guest.state)
    assert isinstance(kernel, GuestKernel)
    assert kernel.is_text(kernel.base)


def test_cpus_have_a_limit() -> None:
    guest = build()
    guest.ram.write(guest.physical("nr_cpu_ids"), pack("<I", 0xFFFF_FFFF))
    kernel = discover(guest.ram, guest.state)
    assert isinstance(kernel, GuestKernel)
    assert kernel.per_cpu(1 << 40) is None
    assert kernel.cpu_of(replace(guest.state, gs_base=1)) is None


@pytest.mark.parametrize("size", [0, 100, MODULE - 120, 1 << 20])
def test_a_struct_whose_members_lie_beyond_its_end_is_refused(size: int) -> None:
    """BTF is the guest's too: offsets that it gives must lie in the bytes that are read for them."""
    content = bytearray(btf(Shape()))
    at = content.index(pack("<I", MODULE))
    content[at : at + 4] = pack("<I", size)
    with pytest.raises(BadInput):
        ModuleLayout.of(Btf(bytes(content)))


def test_tables_of_modules_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was dropped is read again, and says the same."""
    monkeypatch.setattr("unspool.targets.guest.kernel_modules._MAX_KEPT", 8)
    guest = build(Shape(modules=("alpha", "beta", "gamma")))
    kernel = discover(guest.ram, guest.state)
    assert isinstance(kernel, GuestKernel)
    before = [list(module.symbols or ()) for module in kernel.modules]
    assert all(before)
    assert before == [list(module.symbols or ()) for module in kernel.modules]
    kept = kernel._module_reader
    assert kept is not None
    assert len(kept._kept) < len(kernel.modules)


def test_kernels_are_kept_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unspool.targets.guest.kernel_cache.MAX_BYTES", 100)
    guest, cache = build(), KernelCache()
    assert isinstance(discover(guest.ram, guest.state, cache=cache), GuestKernel)
    assert 0 == len(cache)


def test_memory_that_runs_out_is_a_reason() -> None:
    class Small:
        def read(self, address: int, size: int) -> bytes | None:
            if size > PAGE:
                raise MemoryError
            return GUESTS[0].ram.read(address, size)

    assert "this process may hold" in str(ask_everything(Small(), GUESTS[0].state))
