"""A live process: its memory, its mappings and the addresses at which its stacks may end."""

from __future__ import annotations

import ctypes
import struct
import time
from functools import cache
from typing import Self

from unspool.errors import BadInput, NoSuchTarget, NotPermitted
from unspool.formats.auxv import AuxType, parse_auxv
from unspool.formats.proc_maps import parse_maps
from unspool.model.module import AddressSpace
from unspool.model.thread import EntryPoints
from unspool.targets import procfs

_PAGE_SHIFT = 12
_PAGE = 1 << _PAGE_SHIFT
_CACHED_READ = 2 * _PAGE
"""A read up to this size goes through the page cache; a longer one is one system call."""
_LONGEST_READ = 1 << 28
"""No rule, table or stack needs more bytes at once; a length that hostile bytes made up must not allocate memory."""
_TOP = 1 << 64
# struct Elf64_Ehdr: e_ident, e_type, e_machine, e_version, e_entry.
_ELF64_START = struct.Struct("=4sB11xHHIQ")
_ELF64 = 2


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.process_vm_readv.restype = ctypes.c_ssize_t
    library.process_vm_readv.argtypes = (
        ctypes.c_int, ctypes.POINTER(_IoVec), ctypes.c_ulong, ctypes.POINTER(_IoVec), ctypes.c_ulong, ctypes.c_ulong,
    )  # fmt: skip
    return library


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class ProcessMemory:
    """A live process's memory through process_vm_readv(2); `pid` may be any of its threads that still runs.

    Pages are kept until `forget`: valid while the thread that is looked at is stopped.
    """

    __slots__ = ("_pages", "pid")

    def __init__(self, pid: int) -> None:
        """Nothing is read yet."""
        self.pid = pid
        self._pages: dict[int, bytes | None] = {}

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes at `address`, or None when any of them cannot be read (also when the process is gone or not ours to read)."""
        if size < 0 or size > _LONGEST_READ or address < 0 or address + size > _TOP:
            return None
        if size > _CACHED_READ:
            return self._fetch(address, size)
        start = address & (_PAGE - 1)
        first = self._page(address >> _PAGE_SHIFT)
        if first is None:
            return None if size else b""
        data = first[start : start + size]
        while len(data) < size:
            following = self._page((address + len(data)) >> _PAGE_SHIFT)
            if following is None:
                return None
            data += following[: size - len(data)]
        return data

    def forget(self) -> None:
        """Drop the pages that were kept: the process runs on."""
        self._pages.clear()

    def _page(self, number: int) -> bytes | None:
        try:
            return self._pages[number]
        except KeyError:
            page = self._pages[number] = self._fetch(number << _PAGE_SHIFT, _PAGE)
            return page

    def _fetch(self, address: int, size: int) -> bytes | None:
        room = ctypes.create_string_buffer(size)
        local = _IoVec(ctypes.addressof(room), size)
        remote = _IoVec(address, size)
        count = _libc().process_vm_readv(self.pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        return room.raw if count == size else None


class Process:
    """A live process; `refresh` reads mappings and entry points again when they changed.

    `space` and `memory` stay the same objects as long as the mappings stay the same and the thread lives that memory is read through: an
    unwinder may keep what it learned from them.
    """

    def __init__(self, pid: int) -> None:
        """Find the process; NoSuchTarget when there is none. A thread's number stands for its process."""
        self.pid = procfs.status_number(pid, "Tgid") or pid
        state = procfs.thread_state(self.pid, self.pid)
        if state is None:
            message = f"there is no process {pid}"
            raise NoSuchTarget(message, hint="`ps -e` lists the processes.")
        self.name = state.name
        self.space = AddressSpace.of(())
        self.ends = EntryPoints()
        self.memory = ProcessMemory(self.pid)
        self.generation = 0
        self.refresh_seconds = 0.0
        self._maps: bytes | None = None

    def refresh(self, tid: int | None = None) -> Self:
        """Read the mappings as that living thread shows them; OSError when it is gone, NotPermitted when they are not ours to see.

        `generation` counts how often they had changed, `refresh_seconds` is what this reading took. Entry points are read again only when
        the mappings changed: nothing else than execve changes them.
        """
        thread = self.pid if tid is None else tid
        started = time.monotonic()
        try:
            text = procfs.thread_file(self.pid, thread, "maps")
        except PermissionError:
            message = f"the mappings of process {self.pid} are not ours to see"
            raise NotPermitted(message) from None
        if text != self._maps:
            self.space = _mappings(text, self.pid)
            self.ends = entry_points(self.pid, thread)
            self._maps = text
            self.generation += 1
        self.refresh_seconds = time.monotonic() - started
        return self

    def read_through(self, tid: int) -> None:
        """See that memory can be read: through that living thread, when the one before has ended."""
        state = procfs.thread_state(self.pid, self.memory.pid)
        if state is None or state.ended:
            self.memory = ProcessMemory(tid)
            self.space = AddressSpace(self.space.mappings, self.space.starts)


def _mappings(text: bytes, pid: int) -> AddressSpace:
    try:
        return parse_maps(text)
    except BadInput as error:
        # The file is read in pieces; while the process changes its mappings, a line may be torn.
        raise ProcessLookupError(0, f"maps of process {pid}: {error}") from error


def entry_points(pid: int, tid: int) -> EntryPoints:
    """Where stacks of the process may end, as far as the kernel tells us: AT_ENTRY, the interpreter's entry, mm->start_stack."""
    try:
        auxv = parse_auxv(procfs.thread_file(pid, tid, "auxv"))
    except OSError:
        return EntryPoints()
    state = procfs.thread_state(pid, tid)
    base = auxv.get(AuxType.BASE)
    return EntryPoints(
        process=auxv.get(AuxType.ENTRY) or None,
        interpreter=_interpreter_entry(ProcessMemory(tid), base) if base else None,
        initial_sp=(state.initial_sp or None) if state else None,
    )


def _interpreter_entry(memory: ProcessMemory, base: int) -> int | None:
    """AT_BASE + e_entry of the ELF header that is mapped there (fs/binfmt_elf.c, load_elf_binary)."""
    data = memory.read(base, _ELF64_START.size)
    if data is None:
        return None
    magic, elf_class, _, _, _, entry = _ELF64_START.unpack(data)
    return (base + entry) % _TOP if magic == b"\x7fELF" and elf_class == _ELF64 else None
