"""A core dump as a process that stands still: its threads' registers, memory, mappings and the addresses at which stacks may end."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from unspool.errors import BadInput, BadRequest, NoSuchTarget, Unsupported
from unspool.formats.auxv import AuxType, parse_auxv
from unspool.formats.core_notes import CoreNote, CoreNotes, MappedFile, ThreadNotes, parse_core_notes
from unspool.formats.elf import Elf, FileType, SegmentFlag
from unspool.formats.elf.file import Buffer
from unspool.model.arch import ARCHES, S390X, Arch
from unspool.model.module import AddressSpace, Mapping
from unspool.model.registers import Registers
from unspool.model.thread import EntryPoints, Thread
from unspool.model.verdict import Stop
from unspool.targets.core_files import CoreFile, CoreFiles
from unspool.targets.core_memory import CoreMemory, Piece, mapped
from unspool.targets.initial_stack import initial_sp
from unspool.targets.prstatus import registers_of
from unspool.targets.shadow_stack import shadow_stack
from unspool.targets.stopping import Refused

# s390_fp_regs: fpc, padding, f0 to f15; DWARF numbers 16-31 are these.
_S390X_FLOATS = (0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
_VSYSCALL = 0xFFFFFFFFFF600000
_DELETED = " (deleted)"
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class CoreThread:
    """One thread of the dump, or why it cannot be looked at (32-bit code).

    `signal` is the one that ended the process, 0 when none did.
    """

    tid: int
    signal: int
    thread: Thread | Refused


class CoreDump:
    """A core dump, by the kernel or by gcore. A context manager: leaving it lets go of the files.

    `threads` in the order of the dump, the one that crashed first; `files` by path as they were mapped; `pid` and `name` of the process.
    """

    def __init__(self, path: Path, *, sysroot: Path | None = None) -> None:
        """Read the core: NoSuchTarget, BadRequest (no core), Unsupported (machine), or BadInput with file and offset.

        The dump leaves out code and other pages that files hold: they are read from the files below `sysroot` (None: of this machine),
        when these are proved to be the mapped ones.
        """
        data = mapped(str(path))
        if data is None:
            message = f"there is no core dump at {path}, or it is not ours to read"
            hint = "`coredumpctl list` and /proc/sys/kernel/core_pattern say where dumps go; `pgrep -a NAME` gives a process's number."
            raise NoSuchTarget(message, hint=hint)
        self._elf = Elf(data, file=str(path))
        self.arch = _arch(self._elf, path)
        notes = _notes(self._elf)
        self.pid = notes.pid or (notes.threads[0].tid if notes.threads else 0)
        self.name = notes.name
        self.truncated = any(segment.offset + segment.file_size > len(data) for segment in self._elf.loads)
        self.memory = CoreMemory()
        self.memory.add(_dumped(self._elf, data))
        files = CoreFiles(notes.files, self.memory, sysroot)
        self.files: dict[str, CoreFile] = files.by_path
        self.memory.add(files.pieces())
        auxv = parse_auxv(notes.auxv, word=self.arch.word, byte_order=self.arch.byte_order)
        self.ends = self._ends(auxv, notes.auxv)
        self.space = AddressSpace.of(_named(mapping, auxv, self.ends) for mapping in self._mappings(notes.files))
        self.threads = tuple(self._thread(thread) for thread in notes.threads)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let go of the files: memory cannot be read any more."""
        self.memory.clear()
        self.files.clear()

    def _ends(self, auxv: dict[int, int], raw: bytes) -> EntryPoints:
        base = auxv.get(AuxType.BASE)
        interpreter = None
        if base:
            try:
                interpreter = (base + Elf(self.memory, base=base, image=True).entry) % (1 << 64)
            except BadInput:
                interpreter = None
        return EntryPoints(auxv.get(AuxType.ENTRY) or None, interpreter, initial_sp(self.memory, raw, self.arch))

    def _mappings(self, files: tuple[MappedFile, ...]) -> Iterator[Mapping]:
        """The ranges that a PT_LOAD or NT_FILE states, cut where either begins or ends.

        The kernel writes a PT_LOAD for each mapping, with its permissions; gdb leaves out what it does not dump, and then the permissions
        are those of the file's own segment.
        """
        loads = _Ranges((segment.address, segment.address + segment.memory_size, segment) for segment in self._elf.loads)
        shown = _Ranges((file.start, file.end, file) for file in files)
        edges = sorted(loads.edges | shown.edges)
        for start, end in pairwise(edges):
            load, file = loads.at(start), shown.at(start)
            if load is None and file is None:
                continue
            if file is None:
                yield _mapping(start, end, load.flags if load else 0)
                continue
            known = self.files[file.path]
            offset = file.offset + start - file.start
            flags = load.flags if load is not None else known.flags(offset)
            path, deleted = file.path.removesuffix(_DELETED), file.path.endswith(_DELETED)
            yield replace(_mapping(start, end, flags), offset=offset, path=path, deleted=deleted, build_id=known.build_id)

    def _thread(self, notes: ThreadNotes) -> CoreThread:
        registers = registers_of(self.arch, notes.registers)
        if registers is None:
            return CoreThread(notes.tid, notes.signal, Refused(Stop.UNSUPPORTED_RULE, "it runs 32-bit code"))
        if self.arch is S390X:
            registers = _with_floats(registers, notes.sets.get(CoreNote.FPREGSET, b""))
        pac = notes.sets.get(CoreNote.ARM_PAC_MASK, b"")
        hardware = notes.sets.get(CoreNote.X86_SHSTK)
        thread = Thread(
            registers,
            self.memory,
            self.space,
            self.ends,
            # struct user_pac_mask: data_mask, insn_mask.
            pac_mask=int.from_bytes(pac[8:16], self.arch.byte_order),
            shadow_stack=None if hardware is None else shadow_stack(self.memory, self.space, hardware),
        )
        return CoreThread(notes.tid, notes.signal, thread)


def _arch(elf: Elf, path: Path) -> Arch:
    if elf.header.type != FileType.CORE:
        message = f"{path} is no core dump"
        raise BadRequest(message, hint="Give a core file, or the number of a process.")
    arch = ARCHES.get(elf.machine)
    if arch is None or elf.layout.bits != 64 or elf.layout.byte_order != arch.byte_order:
        message = f"{path} is of a {elf.layout.bits}-bit machine (ELF number {elf.machine}) that is not understood"
        raise Unsupported(message, hint="x86-64, AArch64 and s390x are.")
    return arch


def _notes(elf: Elf) -> CoreNotes:
    try:
        return parse_core_notes(elf.notes(), elf.layout)
    except BadInput as error:
        raise error.within(elf.file) from None


def _dumped(elf: Elf, data: Buffer) -> Iterator[Piece]:
    for segment in elf.loads:
        size = min(segment.file_size, segment.memory_size, len(data) - segment.offset)
        if size > 0:
            yield Piece(segment.address, size, data, segment.offset)


def _mapping(start: int, end: int, flags: int) -> Mapping:
    readable, writable, executable = (bool(flags & flag) for flag in (SegmentFlag.READ, SegmentFlag.WRITE, SegmentFlag.EXECUTE))
    return Mapping(start, end, readable, writable, executable, 0, "")


def _named(mapping: Mapping, auxv: dict[int, int], ends: EntryPoints) -> Mapping:
    """The mapping with the name that /proc/PID/maps gives to what no file backs."""
    if mapping.path:
        return mapping
    if auxv.get(AuxType.SYSINFO_EHDR) in mapping:
        return replace(mapping, path="[vdso]")
    if ends.initial_sp in mapping:
        return replace(mapping, path="[stack]")
    return replace(mapping, path="[vsyscall]") if mapping.start == _VSYSCALL else mapping


def _with_floats(registers: Registers, data: bytes) -> Registers:
    """The s390x registers with the floating-point ones: functions keep r14 in them."""
    if len(data) < 8 + 16 * 8:
        return registers
    floats = struct.unpack_from(">16Q", data, 8)
    values = dict(registers.values) | {16 + index: floats[number] for index, number in enumerate(_S390X_FLOATS)}
    return replace(registers, values=values)


class _Ranges(Generic[Item]):
    """Ranges that do not overlap, by address."""

    def __init__(self, ranges: Iterable[tuple[int, int, Item]]) -> None:
        self._ranges = sorted((entry for entry in ranges if entry[0] < entry[1]), key=lambda entry: entry[0])
        self._starts = [start for start, _, _ in self._ranges]
        self.edges = {edge for start, end, _ in self._ranges for edge in (start, end)}

    def at(self, address: int) -> Item | None:
        """What lies at the address."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._ranges[index][1]:
            return None
        return self._ranges[index][2]
