"""A guest's kernel by hand: RAM that is mapped in one piece, structs with places of our choosing, symbols by name."""
# ruff: noqa: D102, D105, D107 - the protocol it stands for says what each method is

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from unspool.formats.btf import Btf
from unspool.formats.kallsyms import KernelSymbol
from unspool.formats.paging import PAGE, PageTables
from unspool.model.memory import Memory
from unspool.targets.guest.kernel_memory import KernelMemory, Window
from unspool.targets.guest.structs import MemoryStructs, TaskStructs

DIRECT_MAP = 0xFFFF_8880_0000_0000
VMEMMAP = 0xFFFF_EA00_0000_0000
THREAD_SIZE = 16 << 10

TASK_STRUCTS = TaskStructs(
    thread_size=THREAD_SIZE, stack=8, sp=16, fs_base=24, state=32, exit_state=36, flags=40, pid=44, tgid=48, comm=52, mm=72, signal=80,
    tasks=88, thread_node=104, thread_head=8, on_cpu=(120, 4), switches=(128, 136), current=("current_task", 0),
    irq_stack=("hardirq_stack_ptr", 0), exception_stacks=((4096, 8192),), entry_stack=(4096, 4096), entry_area=0x10000,
)  # fmt: skip
TASK_SIZE = 256

MEMORY_STRUCTS = MemoryStructs(
    pgd=0, tree=8, tree_root=8, start_stack=32, start_brk=40, brk=48, saved_auxv=(64, 64), vdso=128, vdso_image=136, xol_area=144,
    xol_vaddr=0, vm_start=0, vm_end=8, vm_flags=16, vm_pgoff=24, vm_file=32, range_node=(8, 15, 128, 16), arange_node=(8, 9, 80, 10),
    f_path=0, path_mnt=0, path_dentry=8, d_parent=0, d_name=8, d_unhashed=16, mount_mnt=32, mnt_root=0, mnt_parent=0, mnt_mountpoint=8,
    f_inode=16, i_ino=0, i_size=8, i_sb=16, i_mapping=24, s_dev=0, cache_head=0, node_shift=0, node_slots=(40, 64), page_size=64,
    page_flags=0, page_index=8, page_mapping=16, uptodate=4, counters=((152, 8),),
)  # fmt: skip


class Physical:
    """RAM that can be written."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def read(self, address: int, size: int) -> bytes | None:
        return bytes(self.data[address : address + size]) if 0 <= address and 0 <= size and address + size <= len(self.data) else None


@dataclass
class FakeKernel:
    """`take` gives room in RAM (a kernel address), `put` writes words there."""

    ram: Physical = field(default_factory=lambda: Physical(4 << 20))
    labels: dict[str, int] = field(default_factory=dict)
    used: int = PAGE
    base: int = 0xFFFF_FFFF_8100_0000
    end: int = 0xFFFF_FFFF_8200_0000
    btf: Btf | None = None
    memory: KernelMemory = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        structs = len(self.ram.data) // PAGE * MEMORY_STRUCTS.page_size
        self.used += structs
        windows = (Window(DIRECT_MAP, DIRECT_MAP + len(self.ram.data), 0), Window(VMEMMAP, VMEMMAP + structs, PAGE))
        # The kernel's own tables map the direct map, too: that is how a process's top table is found.
        self.memory = KernelMemory(PageTables(self.ram, self.table() - DIRECT_MAP), windows)
        self.labels["vmemmap_base"] = self.take(8)
        self.put(self.labels["vmemmap_base"], VMEMMAP)

    def take(self, size: int, align: int = 256) -> int:
        self.used = -(-self.used // align) * align
        address = DIRECT_MAP + self.used
        self.used += size
        assert self.used <= len(self.ram.data)
        return address

    def put(self, address: int, *words: int) -> None:
        self.write(address, struct.pack(f"<{len(words)}Q", *(word % (1 << 64) for word in words)))

    def half(self, address: int, value: int) -> None:
        self.write(address, struct.pack("<I", value))

    def write(self, address: int, data: bytes) -> None:
        at = address - DIRECT_MAP
        if address >= VMEMMAP:
            at = address - VMEMMAP + PAGE
        self.ram.data[at : at + len(data)] = data
        if self.memory is not None:
            self.memory.forget()

    def address(self, name: str) -> int | None:
        return self.labels.get(name)

    def per_cpu(self, cpu: int) -> int | None:
        return cpu * PAGE if 0 <= cpu < 2 else None

    def symbol(self, pc: int) -> KernelSymbol | None:
        named = [KernelSymbol(address, name, "") for name, address in self.labels.items() if address <= pc]
        return max(named, key=lambda symbol: symbol.address, default=None)

    def space(self, root: int) -> PageTables:
        return PageTables(self.ram, root)

    def task(self, pid: int, comm: bytes = b"task", *, tgid: int | None = None, mm: int = 0, flags: int = 0, state: int = 1) -> int:
        """A task that sleeps, alone on its own lists; its stack is empty but for a frame that returns to 0."""
        at, address = TASK_STRUCTS, self.take(TASK_SIZE)
        stack = self.take(THREAD_SIZE, PAGE)
        self.put(address + at.stack, stack, stack + THREAD_SIZE - 168 - 56)
        for place, value in (
            (at.state, state),
            (at.exit_state, 0),
            (at.flags, flags),
            (at.pid, pid),
            (at.tgid, pid if tgid is None else tgid),
        ):
            self.half(address + place, value)
        self.write(address + at.comm, comm.ljust(16, b"\0"))
        self.put(address + at.mm, mm)
        signal = self.take(64)
        self.put(address + at.signal, signal)
        self.link([address + at.tasks])
        self.link([signal + at.thread_head, address + at.thread_node])
        return address

    def table(self) -> int:
        """An empty page table."""
        return self.take(PAGE, PAGE)

    def map_page(self, top: int, address: int, page: int, *, rights: int = 7) -> None:
        """Map a page of RAM (its kernel address) at the address in the tables under `top`."""
        table = top
        for level in (3, 2, 1):
            place = table + 8 * (address >> 12 + 9 * level & 511)
            entry = self.memory.word(place)
            if not entry:
                entry = self.table() - DIRECT_MAP | 7
                self.put(place, entry)
            table = (entry & ~0xFFF) + DIRECT_MAP
        self.put(table + 8 * (address >> 12 & 511), page - DIRECT_MAP | rights)

    def page(self, data: bytes) -> int:
        """A page of RAM that holds the bytes."""
        page = self.take(PAGE, PAGE)
        self.write(page, data.ljust(PAGE, b"\0"))
        return page

    def struct_page(self, page: int) -> int:
        """The address of the `struct page` of a page of RAM."""
        return VMEMMAP + (page - DIRECT_MAP) // PAGE * MEMORY_STRUCTS.page_size

    def cached(self, pages: int, index: int, data: bytes) -> int:
        """A page with the bytes as the file with that `struct address_space` has it in the page cache; what the tree holds for it."""
        folio = self.struct_page(self.page(data))
        self.put(folio, MEMORY_STRUCTS.uptodate, index, pages)
        return folio

    def xa_node(self, shift: int, slots: dict[int, int]) -> int:
        """A node of a tree: the entry that leads to it."""
        node = self.take(40 + 64 * 8)
        self.write(node, bytes([shift]))
        for slot, entry in slots.items():
            self.put(node + 40 + 8 * slot, entry)
        return node | 2

    def maple_node(self, kind: int, entries: list[tuple[int, int]]) -> int:
        """A node of a maple tree: (last address, entry) of its slots; what leads to it."""
        node = self.take(256)
        _, pivots, slots_at, _ = MEMORY_STRUCTS.arange_node if kind == 3 else MEMORY_STRUCTS.range_node
        for index, (last, entry) in enumerate(entries):
            if index < pivots:
                self.put(node + 8 + 8 * index, last)
            self.put(node + slots_at + 8 * index, entry)
        return node | kind << 3 | 6

    def vma(self, start: int, end: int, *, flags: int = 1, page: int = 0, file: int = 0) -> int:
        """A `struct vm_area_struct`."""
        vma = self.take(64)
        self.put(vma, start, end, flags, page, file)
        return vma

    def mount(self) -> int:
        """The root of all mounts: the address of its `struct mount`; its root directory is `root_of` it."""
        mount, root = self.take(64), self.dentry(b"/", 0)
        self.put(root, root)
        self.put(mount, mount, root)
        self.put(mount + MEMORY_STRUCTS.mount_mnt, root)
        return mount

    def root_of(self, mount: int) -> int:
        root = self.memory.word(mount + MEMORY_STRUCTS.mount_mnt)
        assert root is not None
        return root

    def dentry(self, name: bytes, parent: int, *, deleted: bool = False) -> int:
        dentry, text = self.take(64), self.take(len(name) + 1, 8)
        self.write(text, name + b"\0")
        self.put(dentry, parent, text, 0 if deleted else DIRECT_MAP)
        return dentry

    def file(self, mount: int, dentry: int, size: int, *, number: int = 7, device: int = 8 << 20 | 1) -> tuple[int, int]:
        """A `struct file` and the `struct address_space` of its empty page cache."""
        file, inode, block, pages = (self.take(64) for _ in range(4))
        self.put(file, mount + MEMORY_STRUCTS.mount_mnt, dentry, inode)
        self.put(inode, number, size, block, pages)
        self.half(block, device)
        return file, pages

    def link(self, nodes: list[int]) -> None:
        """Make the nodes one circular list."""
        for node, following in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
            self.put(node, following)


def memory_of(kernel: FakeKernel) -> Memory:
    """The kernel's memory as a model.Memory."""
    return kernel.memory
