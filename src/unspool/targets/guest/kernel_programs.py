"""BPF programs and trampolines that a guest's kernel has compiled: code that lies in no module, named as /proc/kallsyms names it.

The kernel keeps them on the list `bpf_kallsyms`, each a `struct bpf_ksym` (include/linux/bpf.h, Linux 5.7 on). They have no unwind tables.
Programs that were not loaded by bpf(), such as the filters of seccomp, are not on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from unspool.errors import BadInput
from unspool.formats.btf import Btf
from unspool.formats.kallsyms_tables import KernelSymbols
from unspool.targets.guest.kernel_memory import KernelMemory, list_entries
from unspool.targets.guest.kernel_modules import ModulePlace, ModuleTables, printable_name

MAX_PROGRAMS = 4096
_MAX_PROGRAM = 16 << 20
_MAX_NAME = 128


@dataclass(frozen=True, slots=True)
class ProgramLayout:
    """Where this kernel's `struct bpf_ksym` keeps start, end, name and the list; offsets in bytes."""

    start: int
    end: int
    name: int
    list: int

    @classmethod
    def of(cls, btf: Btf) -> ProgramLayout:
        """The layout by the kernel's BTF; BadInput when it has no such struct."""
        symbol = btf.struct("bpf_ksym")
        return cls(*(symbol.offset(name) for name in ("start", "end", "name", "lnode")))


class ProgramReader:
    """The tables of a program: its own name, and no unwind data."""

    @staticmethod
    def tables(place: ModulePlace) -> ModuleTables:
        """One symbol, which covers the program."""
        return ModuleTables(KernelSymbols.of([(place.start, "t", place.name)]), None)


def read_programs(memory: KernelMemory, head: int, layout: ProgramLayout) -> list[ModulePlace]:
    """The programs on the kernel's list at `head`; it ends at the first entry that is none."""
    found = []
    for node in list_entries(memory, head, MAX_PROGRAMS):
        symbol = node - layout.list
        start, end = memory.word(symbol + layout.start), memory.word(symbol + layout.end)
        name = printable_name(memory.string(symbol + layout.name, _MAX_NAME))
        if start is None or end is None or name is None or not 0 < end - start <= _MAX_PROGRAM:
            break
        found.append(ModulePlace(symbol, name, ((start, end),), start, end))
    return found


def program_layout(btf: Btf | None) -> ProgramLayout | None:
    """The layout, None where the kernel does not describe such a struct."""
    try:
        return None if btf is None else ProgramLayout.of(btf)
    except BadInput:
        return None
