"""The Linux kernel inside a guest, made out from nothing but the guest's memory and the registers of one vCPU."""

from __future__ import annotations

from bisect import bisect_right

from unspool.errors import BadInput
from unspool.formats.btf import Btf
from unspool.formats.kallsyms import KernelSymbol
from unspool.formats.kallsyms_tables import KernelSymbols, read_tables
from unspool.formats.orc import OrcEntry, OrcTable
from unspool.formats.paging import PageTables
from unspool.model.memory import Memory
from unspool.targets.guest.kernel_cache import KernelCache
from unspool.targets.guest.kernel_files import KernelFile, read_with_file
from unspool.targets.guest.kernel_image import Placement, Unreadable, place, read_image
from unspool.targets.guest.kernel_memory import KernelMemory, Window
from unspool.targets.guest.kernel_modules import GuestModule, ModuleLayout, ModuleReader, read_modules
from unspool.targets.guest.kernel_programs import ProgramReader, program_layout, read_programs
from unspool.targets.guest.kernel_tables import Image, KernelTables, read_static
from unspool.targets.guest.registers import VcpuState

__all__ = ["GuestKernel", "Unreadable", "discover", "preload"]

MAX_CPUS = 8192
# Names of the kernel's own top table: Linux 4.14 on, and what stands there under other configurations.
_TOP_TABLES = ("init_top_pgt", "swapper_pg_dir")
# Documentation/arch/x86/x86_64/mm.rst: where the direct map starts in a kernel without CONFIG_RANDOMIZE_MEMORY, by levels.
_DIRECT_MAP = {4: 0xFFFF_8880_0000_0000, 5: 0xFF11_0000_0000_0000}
_DIRECT_MAP_SIZE = {4: 64 << 40, 5: 32 << 50}
_SYSTEM_RUNNING = 3


class GuestKernel:
    """One running kernel: names, types and unwind tables, its modules, and its virtual memory.

    `memory` keeps the pages it has read: call `forget` between two holds, and `refresh` now and then for modules that came and went.
    `modules` are those of /proc/modules, newest first; `programs` the compiled BPF programs, each like a module of its own.
    """

    def __init__(self, tables: KernelTables, memory: KernelMemory, levels: int) -> None:
        """Take what was found (`discover` makes these) and read what changes while the guest runs."""
        self.tables = tables
        self.memory = memory
        self.levels = levels
        self.modules: tuple[GuestModule, ...] = ()
        self.programs: tuple[GuestModule, ...] = ()
        # The few names that are asked for again and again: the search takes a millisecond.
        self._addresses: dict[str, int | None] = {}
        self._cpus: dict[int | None, int] = {}
        self._ranges: list[tuple[int, int, GuestModule | None]] = []
        self._starts: list[int] = []
        self._module_layout = self._layout()
        self._program_layout = program_layout(tables.btf)
        encoding = None if tables.orc is None else tables.orc.encoding
        self._module_reader = None if self._module_layout is None else ModuleReader(memory, self._module_layout, encoding)
        self._birthmark = self._read_birthmark()
        self.refresh()

    @property
    def release(self) -> str:
        """The release as `uname -r` prints it: letters, digits and `.+~_-` only."""
        return self.tables.release

    @property
    def version(self) -> str:
        """The whole banner, as in /proc/version; printable ASCII, whatever the guest wrote there."""
        text = self.tables.banner.decode("ascii", "replace").strip()
        return "".join(letter if " " <= letter <= "~" else "?" for letter in text)

    @property
    def build_id(self) -> str:
        """The GNU build id in hexadecimal, "" when it has none."""
        return self.tables.build_id

    @property
    def base(self) -> int:
        """The address of `_text`, where KASLR has put it."""
        return self.tables.base

    @property
    def end(self) -> int:
        """The address of `_end`."""
        return self.tables.end

    @property
    def symbols(self) -> KernelSymbols:
        """The symbols of vmlinux; `symbol` knows those of the modules too."""
        return self.tables.symbols

    @property
    def btf(self) -> Btf | None:
        """The kernel's types, None when it has no BTF."""
        return self.tables.btf

    @property
    def missing(self) -> tuple[str, ...]:
        """What this kernel does not have (or what of it is damaged), each a sentence."""
        return self.tables.missing

    def address(self, name: str) -> int | None:
        """The address of a symbol of vmlinux, None when there is none of that name."""
        if name not in self._addresses:
            self._addresses[name] = self.tables.symbols.address(name)
        return self._addresses[name]

    def is_text(self, pc: int) -> bool:
        """Whether the address lies in code of vmlinux, of a module or of a BPF program; init code counts while the guest boots."""
        return self._range(pc) is not None

    def is_init_text(self, pc: int) -> bool:
        """Whether the address lies in the code that starts the kernel, which is given back afterwards; tables and names still know it."""
        return self.tables.init_text[0] <= pc < self.tables.init_text[1]

    def has_orc(self) -> bool:
        """Whether there are ORC tables: a kernel built without has no exact stacks."""
        return self.tables.orc is not None

    def orc_table(self, pc: int) -> OrcTable | None:
        """The unwind table of the text that holds `pc`, None where there is none."""
        found = self._range(pc)
        if found is None:
            return self.tables.orc if self.is_init_text(pc) else None
        return self.tables.orc if found[2] is None else found[2].orc

    def orc(self, pc: int) -> OrcEntry | None:
        """The unwind rule at `pc`, None where there is none."""
        table = self.orc_table(pc)
        return None if table is None else table.find(pc)

    def module(self, pc: int) -> GuestModule | None:
        """The module (or BPF program) whose code holds `pc`, None for vmlinux and for addresses that are no code."""
        found = self._range(pc)
        return None if found is None else found[2]

    def symbol(self, pc: int) -> KernelSymbol | None:
        """The function that holds `pc` and the module it is in ("" for vmlinux), None outside of code."""
        found = self._range(pc)
        if found is None and self.is_init_text(pc):
            found = (*self.tables.init_text, None)
        if found is None:
            return None
        symbols, name = (self.symbols, "") if found[2] is None else (found[2].symbols, found[2].name)
        named = None if symbols is None else symbols.find(pc)
        # A symbol before the text it should lie in belongs to something else.
        return None if named is None or named[1] < found[0] else KernelSymbol(named[1], named[0], name)

    def extent(self, pc: int) -> tuple[int, int] | None:
        """Start and end of the function that holds `pc` (the end is the next symbol, or the end of its text); None outside of code."""
        found = self._range(pc)
        symbols = None if found is None else self.symbols if found[2] is None else found[2].symbols
        named = None if symbols is None else symbols.find(pc)
        if found is None or symbols is None or named is None:
            return None
        bounds = symbols.extent(pc)
        return max(named[1], found[0]), min(bounds[1], found[1]) if bounds else found[1]

    def per_cpu(self, cpu: int) -> int | None:
        """What to add to the address of a per-CPU symbol for this CPU (`__per_cpu_offset`), None when there is no such CPU."""
        table, count_at = self.address("__per_cpu_offset"), self.address("nr_cpu_ids")
        count = None if count_at is None else self.memory.half(count_at)
        if table is None or not 0 <= cpu < min(MAX_CPUS if count is None else count, MAX_CPUS):
            return None
        return self.memory.word(table + 8 * cpu)

    def cpu_of(self, state: VcpuState) -> int | None:
        """The number that the guest's kernel gives to this vCPU, by its GS base; None when it cannot be told."""
        wanted = {state.gs_base, state.kernel_gs_base} - {None, 0}
        # Where it was found the last time, if that still holds: a machine may have a thousand CPUs, and this one stands still meanwhile.
        for base in wanted:
            known = self._cpus.get(base)
            if known is not None and self.per_cpu(known) == base:
                return known
        for cpu in range(MAX_CPUS):
            offset = self.per_cpu(cpu)
            if offset is None:
                return None
            if offset in wanted:
                self._cpus[offset] = cpu
                return cpu
        return None

    def space(self, root: int) -> PageTables:
        """The address space under another top table, such as a process's (`mm.pgd`, or a vCPU's CR3)."""
        return PageTables(self.memory.physical, root, self.levels)

    def forget(self) -> None:
        """Drop every page that was read, because the guest has run since."""
        self.memory.forget()

    def same_boot(self) -> bool:
        """Whether the guest still runs this kernel, and has not been started anew. Call `forget` first."""
        now = self._read_birthmark()
        if self._birthmark[:2] != now[:2]:
            return False
        # The canary is drawn while the kernel starts: before that there is nothing to compare.
        self._birthmark = (*now[:2], self._birthmark[2] or now[2])
        return self._birthmark[2] == now[2]

    def refresh(self) -> bool:
        """Read the lists of modules and BPF programs again; whether one has changed."""
        modules, programs = self._read_modules(), self._read_programs()
        changed = (modules, programs) != (self.modules, self.programs)
        self.modules, self.programs = modules, programs
        self._index()
        return changed

    def _read_modules(self) -> tuple[GuestModule, ...]:
        head, layout, reader = self.address("modules"), self._module_layout, self._module_reader
        if head is None or layout is None or reader is None:
            return ()
        known = {module.place: module for module in self.modules}
        return tuple(known.get(entry) or GuestModule(entry, reader) for entry in read_modules(self.memory, head, layout))

    def _read_programs(self) -> tuple[GuestModule, ...]:
        head, layout = self.address("bpf_kallsyms"), self._program_layout
        if head is None or layout is None:
            return ()
        known = {program.place: program for program in self.programs}
        return tuple(known.get(entry) or GuestModule(entry, ProgramReader()) for entry in read_programs(self.memory, head, layout))

    def _index(self) -> None:
        """The text ranges, sorted."""
        ranges: list[tuple[int, int, GuestModule | None]] = [(*self.tables.text, None)]
        state_at = self.address("system_state")
        state = None if state_at is None else self.memory.half(state_at)
        if state is not None and state < _SYSTEM_RUNNING and self.tables.init_text[0]:
            ranges.append((*self.tables.init_text, None))
        ranges += [(start, end, module) for module in (*self.modules, *self.programs) for start, end in module.place.text]
        self._ranges = sorted(ranges, key=lambda entry: entry[0])
        self._starts = [entry[0] for entry in self._ranges]

    def _range(self, pc: int) -> tuple[int, int, GuestModule | None] | None:
        index = bisect_right(self._starts, pc) - 1
        if index < 0 or pc >= self._ranges[index][1]:
            return None
        return self._ranges[index]

    def _layout(self) -> ModuleLayout | None:
        try:
            return None if self.tables.btf is None else ModuleLayout.of(self.tables.btf)
        except BadInput:
            return None

    def _read_birthmark(self) -> tuple[bytes | None, bytes | None, int | None]:
        """What no two boots have in common: banner and notes where they are, and the first task's stack canary (0 before it is drawn)."""
        tables = self.tables
        banner = self.memory.read(tables.banner_at, len(tables.banner))
        notes = self.memory.read(tables.notes_at, len(tables.notes))
        task = self.address("init_task")
        member = None if tables.btf is None or not tables.btf.has("task_struct") else tables.btf.struct("task_struct").find("stack_canary")
        canary = None if task is None or member is None else self.memory.word(task + member.offset)
        return banner, notes, canary


def discover(
    physical: Memory, state: VcpuState, *, cache: KernelCache | None = None, given: KernelFile | None = None
) -> GuestKernel | Unreadable:
    """The kernel that the guest runs, or why it cannot be made out.

    `physical` is the guest's memory by guest-physical address, `state` any of its vCPUs. Nothing is believed that is not checked; no
    content of the memory raises. With `cache` a kernel that was read before is recognised instead of searched. `given` names the
    kernel's symbols where its memory does not.
    """
    placement = place(physical, state)
    if isinstance(placement, Unreadable):
        return placement
    try:
        tables = cache.find(physical, placement) if cache else None
        if tables is None:
            tables = _search(physical, placement, given)
            if cache is not None:
                cache.add(tables)
        return GuestKernel(tables, _memory(physical, placement, tables), placement.levels)
    except BadInput as error:
        return Unreadable(f"The guest's kernel could not be read: {error}.")
    except MemoryError:
        # Every table has a limit, but the process that reads them may be confined to less.
        return Unreadable("The guest's kernel has larger tables than this process may hold.")


def preload() -> None:
    """Import what `discover` imports at its first use, for a process that is about to lose its file system."""
    import numpy as np

    # Parts of NumPy are imported by their first call.
    np.append(np.flatnonzero(np.diff(np.arange(4))), np.bincount(np.zeros(1, dtype=np.uint8)))


def _search(physical: Memory, placement: Placement, given: KernelFile | None) -> KernelTables:
    data = read_image(physical, placement)
    try:
        return read_static(Image(data, placement.start, read_tables(data, placement.start)))
    except BadInput:
        if given is None:
            raise
    return read_with_file(data, placement, given)


def _memory(physical: Memory, placement: Placement, tables: KernelTables) -> KernelMemory:
    """The kernel's memory through its own top table; BadInput when that table is not the kernel's."""
    symbols = tables.symbols
    top = next((address for name in _TOP_TABLES if (address := symbols.address(name)) is not None), None)
    if top is None or not placement.start <= top < placement.end:
        raise BadInput("the kernel's own page tables are not found", file="kernel")
    own = PageTables(physical, placement.physical(top), placement.levels)
    where = own.translate(tables.base)
    if where is None or where.pa != placement.physical(tables.base):
        raise BadInput("the kernel's own page tables lead elsewhere than those of the vCPU", file="kernel")
    image = Window(placement.start, placement.end, placement.pa)
    return KernelMemory(own, (image, _direct_map(physical, placement, symbols)))


def _direct_map(physical: Memory, placement: Placement, symbols: KernelSymbols) -> Window:
    """Where all memory is mapped in order: up to the area of vmalloc, which KASLR may put close behind it."""

    def variable(name: str, default: int) -> int:
        address = symbols.address(name)
        inside = address is not None and placement.start <= address < placement.end
        data = physical.read(placement.physical(address), 8) if inside and address is not None else None
        return default if data is None else int.from_bytes(data, "little")

    start = variable("page_offset_base", _DIRECT_MAP[placement.levels])
    end = min(start + _DIRECT_MAP_SIZE[placement.levels], placement.start)
    vmalloc = variable("vmalloc_base", end)
    return Window(start, min(end, vmalloc) if vmalloc > start else end, 0)
