"""The notes of an ELF core dump: threads, mapped files, the auxiliary vector (fs/binfmt_elf.c, include/uapi/linux/elf.h)."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from unspool.errors import BadInput
from unspool.formats.elf.headers import Layout
from unspool.formats.elf.notes import Note

MAX_FILES = 1 << 20


class CoreNote(enum.IntEnum):
    """Note types that are read."""

    PRSTATUS = 1
    FPREGSET = 2
    PRPSINFO = 3
    AUXV = 6
    X86_SHSTK = 0x204
    ARM_PAC_MASK = 0x406
    FILE = 0x46494C45


_SETS = frozenset({CoreNote.FPREGSET, CoreNote.X86_SHSTK, CoreNote.ARM_PAC_MASK})


@dataclass(frozen=True, slots=True)
class MappedFile:
    """One entry of NT_FILE: `[start, end)` showed `path` from byte `offset` on."""

    start: int
    end: int
    offset: int
    path: str


@dataclass(slots=True)
class ThreadNotes:
    """What a core says of one thread: its number, its general registers (NT_PRSTATUS), and its other register sets by note type.

    `signal` is the one that ended the process, 0 when none did.
    """

    tid: int
    signal: int
    registers: bytes
    sets: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class CoreNotes:
    """All notes of a core. `threads` in the order of the dump: the first is the one that crashed, or that the dumper looked at."""

    threads: list[ThreadNotes] = field(default_factory=list)
    files: tuple[MappedFile, ...] = ()
    auxv: bytes = b""
    pid: int = 0
    name: str = ""


# struct elf_prstatus: siginfo (3 ints), cursig, sigpend, sighold, pid ppid pgrp sid, 4 times, registers, fpvalid; longs are words.
_STATUS64 = struct.Struct("12xh2x16xi12x64x")
_STATUS32 = struct.Struct("12xh2x8xi12x32x")


def parse_core_notes(notes: Iterator[Note], layout: Layout) -> CoreNotes:
    """The notes put together; a register set belongs to the thread whose NT_PRSTATUS came last. BadInput for a note that is too short."""
    core = CoreNotes()
    for note in notes:
        if note.name in {"CORE", "LINUX"}:
            _take(core, note, layout)
    return core


def _take(core: CoreNotes, note: Note, layout: Layout) -> None:
    match note.type:
        case CoreNote.PRSTATUS:
            core.threads.append(_status(note, layout))
        case CoreNote.PRPSINFO:
            core.pid, core.name = _process(note, layout)
        case CoreNote.AUXV:
            core.auxv = note.description
        case CoreNote.FILE:
            core.files = tuple(parse_files(note.description, layout))
        case _ if core.threads and note.type in _SETS:
            core.threads[-1].sets[note.type] = note.description


def _status(note: Note, layout: Layout) -> ThreadNotes:
    shape = _STATUS64 if layout.bits == 64 else _STATUS32
    head = layout.fields(_STATUS32.format, _STATUS64.format)
    if len(note.description) < shape.size + layout.word:
        raise BadInput(f"NT_PRSTATUS of {len(note.description)} bytes", offset=note.offset)
    signal, tid = head.unpack_from(note.description)
    return ThreadNotes(tid, signal, note.description[shape.size : -layout.word])


def _process(note: Note, layout: Layout) -> tuple[int, str]:
    # struct elf_prpsinfo: state sname zomb nice, flag (a word), uid gid, pid ppid pgrp sid, fname[16], psargs[80]. What is before the
    # pid has another size on some machines; so it is counted from the end.
    names = 16 + 80
    ids = 16
    if len(note.description) < names + ids:
        raise BadInput(f"NT_PRPSINFO of {len(note.description)} bytes", offset=note.offset)
    tail = note.description[-names - ids :]
    (pid,) = layout.fields("i", "i").unpack_from(tail)
    return pid, tail[ids : ids + 16].partition(b"\0")[0].decode("utf-8", "backslashreplace")


def parse_files(data: bytes, layout: Layout) -> Iterator[MappedFile]:
    """The entries of NT_FILE: count, page size, then (start, end, offset in pages) each, then the names."""
    head, row = layout.fields("II", "QQ"), layout.fields("III", "QQQ")
    if len(data) < head.size:
        raise BadInput("NT_FILE is cut short")
    count, page = head.unpack_from(data)
    if count > MAX_FILES or head.size + count * row.size > len(data):
        raise BadInput(f"NT_FILE of {count} files in {len(data)} bytes")
    place = head.size + count * row.size
    names = data[place:].split(b"\0", count)
    if len(names) < count:
        raise BadInput(f"NT_FILE of {count} files has {len(names)} names")
    for index in range(count):
        start, end, offset = row.unpack_from(data, head.size + index * row.size)
        if start < end:
            yield MappedFile(start, end, offset * page, names[index].decode("utf-8", "surrogateescape"))
