"""The memory of small guests: page tables, an image with kallsyms, BTF and ORC, and a list of modules, each written field by field.

No number in here is copied from a kernel: the code under test must find everything by its form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import pack

from formats.btf_bytes import BtfBytes
from formats.kallsyms_bytes import Age, Row, kallsyms
from formats.orc_bytes import END, FIELDS, Encoding, call, orc_tables, regs
from formats.paging_bytes import PAGE, FakeRam, TableWriter

from unspool.formats.orc import OrcEntry
from unspool.model.arch import X86_64
from unspool.model.registers import Registers
from unspool.targets.guest.registers import VcpuState

BASE, IMAGE_PA, IMAGE_SIZE = 0xFFFF_FFFF_8220_0000, 0x140_0000, 1 << 20
MODULES, MODULES_PA, MODULE_SIZE = 0xFFFF_FFFF_C010_0000, 0x200_0000, 4 * PAGE
PROCESS_ROOT, FREE_TABLES = 0x80_0000, 0x90_0000
DIRECT_MAP = {4: 0xFFFF_9A00_0000_0000, 5: 0xFF21_0000_0000_0000}
VMALLOC = {4: 0xFFFF_B000_0000_0000, 5: 0xFF60_0000_0000_0000}
PROGRAMS, PROGRAMS_PA, PROGRAM_SIZE = 0xFFFF_FFFF_C080_0000, 0x300_0000, 1 << 10
PER_CPU = (0xFFFF_9A00_0100_0000, 0xFFFF_9A00_0110_0000)
FUNCTION = 0x40
RELEASE = "6.9.1-test+amd64"
BANNER = b"Linux version 6.9.1-test+amd64 (builder) (cc) #1 SMP\n\0"
BUILD_ID = bytes(range(20))
CANARY = 0x5A5A_1234_0000_BEEF
# Offsets in the made-up structs; BTF is the only place where the code under test may learn them.
STATE, LIST, NAME, MEMORY, KALLSYMS, ARCH, MODULE = 0, 8, 24, 88, 208, 216, 248
TASK_CANARY = 40
KSYM_NAME, KSYM_LIST, KSYM = 16, 528, 608


@dataclass(frozen=True)
class Shape:
    """What kind of guest it is; `page` is the size of the pages that map its image, `user` a vCPU that runs in user mode under PTI."""

    levels: int = 4
    page: int = PAGE
    user: bool = False
    age: Age = Age.NEW
    encoding: Encoding = Encoding.TYPE3
    modules: tuple[str, ...] = ("alpha", "beta")
    functions: int = 300
    booting: bool = False
    btf: bool = True
    programs: tuple[str, ...] = ()

    @property
    def old_modules(self) -> bool:
        """Whether `struct module` is that of Linux before 6.4."""
        return self.age in {Age.OLD, Age.SEQUENCES}


@dataclass
class Image:
    """The image under construction: its bytes, and the address of each label."""

    data: bytearray = field(default_factory=bytearray)
    labels: dict[str, int] = field(default_factory=dict)

    def mark(self, label: str, align: int = 16) -> int:
        """The address of what comes next."""
        self.data += bytes(-len(self.data) % align)
        self.labels[label] = BASE + len(self.data)
        return self.labels[label]

    def put(self, label: str, content: bytes, align: int = 16, *, end: str = "") -> int:
        """Add a part with its label, and one behind it."""
        address = self.mark(label, align)
        self.data += content
        if end:
            self.mark(end, 1)
        return address


@dataclass
class Guest:
    """A guest's memory, one of its vCPUs, and what is true of it."""

    shape: Shape
    ram: FakeRam
    state: VcpuState
    labels: dict[str, int]
    rows: list[Row]
    orc: list[tuple[int, OrcEntry]]
    module_orc: dict[str, list[tuple[int, OrcEntry]]]
    tables: TableWriter

    def physical(self, label: str) -> int:
        """Where a label of the image lies in physical memory."""
        return self.labels[label] - BASE + IMAGE_PA

    def link(self, names: Sequence[str]) -> None:
        """Make the kernel's list of modules hold these, newest first."""
        heads = [self.labels["modules"], *(module_address(self.shape.modules.index(name)) + PAGE + LIST for name in names)]
        for here, after in zip(heads, heads[1:] + heads[:1], strict=True):
            self.ram.write(self.physical("modules") if here == heads[0] else here - MODULES + MODULES_PA, pack("<Q", after))

    def load(self, names: Sequence[str]) -> None:
        """Make the kernel's list of BPF programs hold these."""
        direct = DIRECT_MAP[self.shape.levels]
        nodes = [direct + PROGRAMS_PA + index * PROGRAM_SIZE + KSYM_LIST for index in range(len(names))]
        after = [*nodes[1:], self.labels["bpf_kallsyms"]]
        self.ram.write(self.physical("bpf_kallsyms"), pack("<Q", [*nodes, self.labels["bpf_kallsyms"]][0]))
        for index, name in enumerate(names):
            start = program_address(index)
            symbol = pack("<QQ", start, start + 0x40) + name.encode() + bytes(512 - len(name)) + pack("<QQ", after[index], 0)
            self.ram.write(PROGRAMS_PA + index * PROGRAM_SIZE, symbol)


def module_address(index: int) -> int:
    """Where the code of a module starts; its struct is one page on, its tables two."""
    return MODULES + index * MODULE_SIZE


def program_address(index: int) -> int:
    """Where the code of a BPF program starts."""
    return PROGRAMS + index * 0x100


def build(shape: Shape | None = None) -> Guest:
    """The whole guest."""
    shape = shape or Shape()
    labels: dict[str, int] = {}
    # Twice: symbols can be written only when every label has its address. The third time nothing moves.
    for _ in range(2):
        labels = _image(shape, labels).labels
    image = _image(shape, labels)
    assert image.labels == labels
    assert len(image.data) <= IMAGE_SIZE
    ram = FakeRam()
    ram.write(IMAGE_PA, bytes(image.data) + bytes(IMAGE_SIZE - len(image.data)))
    tables = _page_tables(ram, shape, labels)
    made = Guest(shape, ram, _state(shape), labels, _rows(shape, labels), _orc_rows(shape), {}, tables)
    for index, name in enumerate(shape.modules):
        _module(made, index, name)
    made.link(shape.modules)
    made.load(shape.programs)
    return made


def _image(shape: Shape, known: dict[str, int]) -> Image:
    """The image's parts in the order of the kernel's linker script."""
    image = Image()
    image.put("_text", b"\x90" * FUNCTION * shape.functions, end="_etext")
    image.labels["_stext"] = image.labels["_text"]
    image.put("linux_banner", BANNER)
    table = kallsyms(_rows(shape, known), image.mark("rodata", 16), shape.age, BASE)
    image.put("rodata", bytes(table.data))
    image.labels |= table.labels
    note = pack("<III", 4, len(BUILD_ID), 3) + b"GNU\0" + BUILD_ID
    image.put("__start_notes", note, end="__stop_notes")
    if shape.btf:
        image.put("__start_BTF", btf(shape), end="__stop_BTF")
    ips, entries = orc_tables(_orc_rows(shape), known.get("__start_orc_unwind_ip", BASE), shape.encoding)
    image.put("__start_orc_unwind_ip", ips, end="__stop_orc_unwind_ip")
    image.put("__start_orc_unwind", entries, end="__stop_orc_unwind")
    image.put("__per_cpu_offset", pack("<QQ", *PER_CPU))
    image.put("nr_cpu_ids", pack("<I", len(PER_CPU)))
    image.put("system_state", pack("<I", 0 if shape.booting else 3))
    image.put("page_offset_base", pack("<Q", DIRECT_MAP[shape.levels]))
    image.put("vmalloc_base", pack("<Q", VMALLOC[shape.levels]))
    image.put("modules", pack("<QQ", *(known.get("modules", BASE),) * 2))
    image.put("bpf_kallsyms", pack("<QQ", *(known.get("bpf_kallsyms", BASE),) * 2))
    image.put("init_task", bytes(TASK_CANARY) + pack("<Q", CANARY))
    image.put("init_top_pgt", bytes(PAGE), PAGE)
    image.put("_sinittext", b"\x90" * FUNCTION, PAGE, end="_einittext")
    image.mark("_end", PAGE)
    return image


def _rows(shape: Shape, labels: dict[str, int]) -> list[Row]:
    """The kernel's symbols by address: its functions, and every label."""
    rows: list[Row] = [(0, "D", "fixed_percpu_data")] if shape.age in {Age.OLD, Age.SEQUENCES, Age.NEW} else []
    rows += [(labels.get(name, BASE), "T" if "text" in name else "D", name) for name in sorted(_label_names(shape))]
    rows += [(BASE + FUNCTION * index, "t", f"function_{index}") for index in range(1, shape.functions)]
    return sorted(rows, key=lambda row: row[0])


def _label_names(shape: Shape) -> set[str]:
    names = {
        "_text",
        "_stext",
        "_etext",
        "_sinittext",
        "_einittext",
        "_end",
        "linux_banner",
        "kallsyms_token_table",
        "modules",
        "init_task",
    }
    names |= {"__start_notes", "__stop_notes", "__start_orc_unwind", "__stop_orc_unwind", "__start_orc_unwind_ip", "__stop_orc_unwind_ip"}
    names |= {"__per_cpu_offset", "nr_cpu_ids", "system_state", "page_offset_base", "vmalloc_base", "init_top_pgt", "bpf_kallsyms"}
    return names | ({"__start_BTF", "__stop_BTF"} if shape.btf else set())


def _orc_rows(shape: Shape) -> list[tuple[int, OrcEntry]]:
    """Each function has an entry of its own: the first ends the stack, the second is an interrupt's, all others are calls."""
    rows = [(BASE, END), (BASE + FUNCTION, regs(signal=shape.encoding is not Encoding.TYPE2))]
    return rows + [(BASE + FUNCTION * index, call(8 + 8 * (index % 50), bp_offset=-16)) for index in range(2, shape.functions)]


def btf(shape: Shape) -> bytes:
    """The types that a reader of this kernel needs."""
    made = BtfBytes()
    byte, number, long = made.int("char", 1), made.int("unsigned int", 4), made.int("unsigned long", 8)
    pointer = made.ptr()
    links = made.struct("list_head", 16, [("next", pointer, 0), ("prev", pointer, 64)])
    fields = FIELDS[shape.encoding]
    made.struct("orc_entry", 6, [("sp_offset", number, 0, 16), *((name, number, *place) for name, place in fields.items())])
    arch = made.struct("mod_arch_specific", 32, [("num_orcs", number, 0), ("orc_unwind_ip", pointer, 64), ("orc_unwind", pointer, 128)])
    made.struct(
        "mod_kallsyms", 32, [("symtab", pointer, 0), ("num_symtab", number, 64), ("strtab", pointer, 128), ("typetab", pointer, 192)]
    )
    made.struct("task_struct", 64, [("stack_canary", long, 8 * TASK_CANARY)])
    made.enum("mod_mem_type", {"MOD_TEXT": 0, "MOD_DATA": 1, "MOD_INIT_TEXT": 4})
    members = [("state", number, 8 * STATE), ("list", links, 8 * LIST), ("name", made.array(byte, 56), 8 * NAME)]
    if shape.old_modules:
        part = made.struct("module_layout", 24, [("base", pointer, 0), ("size", number, 64), ("text_size", number, 96)])
        members += [("core_layout", part, 8 * MEMORY), ("init_layout", part, 8 * (MEMORY + 24))]
    else:
        part = made.struct("module_memory", 16, [("base", pointer, 0), ("size", number, 64)])
        members.append(("mem", made.array(part, 7), 8 * MEMORY))
    made.struct(
        "bpf_ksym",
        KSYM,
        [("start", long, 0), ("end", long, 64), ("name", made.array(byte, 512), 8 * KSYM_NAME), ("lnode", links, 8 * KSYM_LIST)],
    )
    made.struct("module", MODULE, [*members, ("kallsyms", pointer, 8 * KALLSYMS), ("arch", arch, 8 * ARCH)])
    return bytes(made)


def _module(guest: Guest, index: int, name: str) -> None:
    """One module: a page of code, its struct, its tables."""
    start = module_address(index)
    rows = [(start, call(8)), (start + 0x80, call(40, bp_offset=-16)), (start + 0x100, call(24))]
    ips, entries = orc_tables(rows, start + 2 * PAGE, guest.shape.encoding)
    names = b"\0" + b"".join(f"{name}_{part}".encode() + b"\0" for part in ("first", "second"))
    symbols = bytes(24) + pack("<IBBHQQ", 1, 2, 0, 1, start, 0x80) + pack("<IBBHQQ", 2 + len(name) + 6, 2, 0, 1, start + 0x80, 0x80)
    tables = start + 2 * PAGE
    places = {"ips": tables, "entries": tables + 0x100, "symbols": tables + 0x200, "names": tables + 0x300, "types": tables + 0x400}
    mod_kallsyms = pack("<QQQQ", places["symbols"], 3, places["names"], places["types"])
    struct = bytearray(MODULE)
    struct[NAME : NAME + len(name)] = name.encode()
    struct[MEMORY : MEMORY + 16] = pack("<QII", start, MODULE_SIZE if guest.shape.old_modules else PAGE, PAGE)
    struct[KALLSYMS : KALLSYMS + 8] = pack("<Q", tables + 0x500)
    struct[ARCH : ARCH + 24] = pack("<QQQ", len(rows), places["ips"], places["entries"])
    memory = bytearray(MODULE_SIZE)
    memory[PAGE : PAGE + MODULE] = struct
    content = {"ips": ips, "entries": entries, "symbols": symbols, "names": names, "types": b"?tT"}
    for part, data in content.items():
        memory[places[part] - start : places[part] - start + len(data)] = data
    memory[2 * PAGE + 0x500 : 2 * PAGE + 0x500 + len(mod_kallsyms)] = mod_kallsyms
    pa = MODULES_PA + index * MODULE_SIZE
    guest.ram.write(pa, bytes(memory))
    for page in range(0, MODULE_SIZE, PAGE):
        guest.tables.map(start + page, pa + page)
    guest.module_orc[name] = rows


def _page_tables(ram: FakeRam, shape: Shape, labels: dict[str, int]) -> TableWriter:
    """The kernel's own tables inside its image; those of a process share the kernel's half, the user's copy has one page of it."""
    own = TableWriter(ram, labels["init_top_pgt"] - BASE + IMAGE_PA, FREE_TABLES, levels=shape.levels)
    size = max(IMAGE_SIZE, shape.page)
    for offset in range(0, size, shape.page):
        own.map(BASE + offset, IMAGE_PA + offset, shape.page)
    ram.write(PROCESS_ROOT, ram.read(own.root, PAGE) or b"")
    user = TableWriter(ram, PROCESS_ROOT + PAGE, FREE_TABLES + 0x10_0000, levels=shape.levels)
    user.map(BASE, IMAGE_PA)
    return own


def _state(shape: Shape) -> VcpuState:
    registers = Registers(X86_64, 0x401000 if shape.user else BASE + 3 * FUNCTION, dict.fromkeys(range(16), 0))
    return VcpuState(
        registers,
        cr0=0x8005_0033,
        cr3=PROCESS_ROOT + PAGE if shape.user else PROCESS_ROOT,
        cr4=0x6B0 | (1 << 12 if shape.levels == 5 else 0),
        efer=0xD01,
        cs=0x33 if shape.user else 0x10,
        cpl=3 if shape.user else 0,
        rflags=0x202,
        fs_base=0,
        gs_base=0 if shape.user else PER_CPU[1],
        kernel_gs_base=PER_CPU[1] if shape.user else None,
        halted=False,
        snapshot=True,
    )
