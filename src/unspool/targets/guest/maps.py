"""What is mapped into a process of a guest: its mappings out of the kernel's maple tree, and the paths of the files behind them.

The tree is that of Linux 6.1 and later (lib/maple_tree.c). Trees, paths and lists are the guest's: each has a bound, and what does not fit
ends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from unspool.formats.paging import PAGE
from unspool.model.module import AddressSpace, Mapping
from unspool.targets.guest.kernel_memory import KernelMemory
from unspool.targets.guest.page_cache import GuestFile
from unspool.targets.guest.structs import MemoryStructs

MAX_MAPPINGS = 1 << 16
"""Mappings of one process at most: sysctl vm.max_map_count is 65530."""
MAX_FILES = 4096
"""Files of one process at most; mappings of further ones have no path."""
_MAX_NODES = 1 << 14
_MAX_DEPTH = 16
_MAX_PARTS = 256
_MAX_PATH = 4096
_MAX_NAME = 256
_KERNEL_HALF = 1 << 63
_NODE_MASK = ~0xFF
_NODE_SIZE = 256
# enum maple_type
_LEAF, _RANGE, _ARANGE = 1, 2, 3
_WORDS = Struct(f"<{_NODE_SIZE // 8}Q")
_VM_READ, _VM_WRITE, _VM_EXEC, _VM_SHARED = 1, 2, 4, 8
_MINOR_BITS = 20
_TOP = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Vma:
    """One mapping as the kernel has it: `offset` is where in its file it begins, in bytes; `file` is the `struct file`, 0 for none."""

    start: int
    end: int
    flags: int
    offset: int
    file: int


class Maps:
    """The mappings of one guest's processes. Its memory keeps what it has read: call `kernel.forget()` before a new look."""

    def __init__(self, memory: KernelMemory, structs: MemoryStructs) -> None:
        """`MemoryStructs.of(kernel.btf)` gives the structs."""
        self.memory = memory
        self.structs = structs
        self._vma_fields = (structs.vm_start, structs.vm_end, structs.vm_flags, structs.vm_pgoff, structs.vm_file)
        self._vma_size = max(self._vma_fields) + 8

    def vmas(self, mm: int) -> list[Vma]:
        """The mappings of an address space in order; as many as can be read."""
        found: list[Vma] = []
        for pointer in self._leaves(mm + self.structs.tree + self.structs.tree_root, 0, _TOP):
            vma = self._vma(pointer)
            # A tree that is being changed, or that lies, would give mappings twice or out of order.
            if vma is not None and (not found or vma.start >= found[-1].end):
                found.append(vma)
            if len(found) >= MAX_MAPPINGS:
                break
        return found

    def find(self, mm: int, address: int) -> Vma | None:
        """The mapping that holds the address: one path down the tree."""
        for pointer in self._leaves(mm + self.structs.tree + self.structs.tree_root, address, address):
            vma = self._vma(pointer)
            if vma is not None and vma.start <= address < vma.end:
                return vma
        return None

    def space(self, mm: int) -> tuple[AddressSpace, dict[int, GuestFile]]:
        """The address space as a walk wants it, and the files by the start of the mapping."""
        files: dict[int, GuestFile] = {}
        known: dict[int, GuestFile | None] = {}
        mappings = []
        names = self._special(mm)
        for vma in self.vmas(mm):
            if vma.file and vma.file not in known and len(known) < MAX_FILES:
                known[vma.file] = self.file(vma.file)
            file = known.get(vma.file)
            if file is not None:
                files[vma.start] = file
            mappings.append(_mapping(vma, file, next((name for name, place in names if vma.start <= place < vma.end), "")))
        return AddressSpace.of(mappings), files

    def file(self, address: int) -> GuestFile | None:
        """The file of a `struct file`, None when it cannot be read."""
        at, read = self.structs, self.memory
        inode = read.word(address + at.f_inode)
        if inode is None or inode < _KERNEL_HALF:
            return None
        number, size, block, pages = (read.word(inode + offset) for offset in (at.i_ino, at.i_size, at.i_sb, at.i_mapping))
        device = None if block is None else read.half(block + at.s_dev)
        path = self._path(address + at.f_path)
        if number is None or size is None or pages is None or device is None or path is None or size >= _KERNEL_HALF:
            return None
        return GuestFile(pages, path[0], path[1], (device >> _MINOR_BITS, device & (1 << _MINOR_BITS) - 1), number, size)

    def pages_of(self, address: int) -> int | None:
        """The address of the `struct address_space` of a `struct file`: what tells one file from another, without its path."""
        inode = self.memory.word(address + self.structs.f_inode)
        return None if inode is None or inode < _KERNEL_HALF else self.memory.word(inode + self.structs.i_mapping)

    def _leaves(self, head: int, low: int, high: int) -> Iterator[int]:
        """The pointers of the tree's leaves whose ranges meet `[low, high]`, in order."""
        root = self.memory.word(head)
        if root is None or root & 3 != 2 or root <= PAGE:
            # A tree of one entry holds the pointer itself.
            if root and root & 3 == 0:
                yield root
            return
        nodes = 0
        stack = [(root, 0, _TOP, 0)]
        while stack:
            entry, first, last, depth = stack.pop()
            nodes += 1
            children = self._slots(entry, first, last) if nodes <= _MAX_NODES and depth < _MAX_DEPTH else []
            wanted = [(slot, start, end) for slot, start, end in children if slot and start <= high and end >= low]
            if entry >> 3 & 15 == _LEAF:
                yield from (slot for slot, _, _ in wanted)
            else:
                stack += [(slot, start, end, depth + 1) for slot, start, end in reversed(wanted)]

    def _slots(self, entry: int, first: int, last: int) -> list[tuple[int, int, int]]:
        """What a node holds, and the range that each of its slots is for: a pivot is the last address of its slot."""
        kind, node = entry >> 3 & 15, entry & _NODE_MASK
        if kind not in {_LEAF, _RANGE, _ARANGE} or node < _KERNEL_HALF:
            return []
        pivots_at, pivots, slots_at, slots = self.structs.arange_node if kind == _ARANGE else self.structs.range_node
        data = self.memory.read(node, _NODE_SIZE)
        if data is None:
            return []
        words = _WORDS.unpack(data)
        found = []
        for index in range(slots):
            end = words[pivots_at // 8 + index] if index < pivots else last
            if (index and not end) or end > last:
                # Slots that are not in use have pivots of 0.
                end = last
            if end < first:
                break
            found.append((words[slots_at // 8 + index], first, end))
            if end >= last:
                break
            first = end + 1
        return found

    def _vma(self, address: int) -> Vma | None:
        if address < _KERNEL_HALF or address % 8:
            return None
        data = self.memory.read(address, self._vma_size)
        if data is None:
            return None
        start, end, flags, page, file = (int.from_bytes(data[offset : offset + 8], "little") for offset in self._vma_fields)
        if not start < end < _KERNEL_HALF or (start | end) % PAGE:
            return None
        return Vma(start, end, flags, page * PAGE & _TOP, file if file >= _KERNEL_HALF else 0)

    def _special(self, mm: int) -> tuple[tuple[str, int], ...]:
        """The names of mappings that no file stands behind, each with an address that lies in it."""
        at, read = self.structs, self.memory
        vdso, stack, heap, brk = (read.word(mm + offset) for offset in (at.vdso, at.start_stack, at.start_brk, at.brk))
        area = None if at.xol_area is None else read.word(mm + at.xol_area)
        uprobes = read.word(area + at.xol_vaddr) if area and at.xol_vaddr is not None else None
        grown = heap if heap is not None and brk is not None and heap < brk else None
        named = (("[vdso]", vdso), ("[uprobes]", uprobes), ("[stack]", stack), ("[heap]", grown))
        return tuple((name, place) for name, place in named if place)

    def _path(self, path: int) -> tuple[str, bool] | None:
        """A `struct path` as d_path shows it, from the root of all mounts; and whether the file was deleted."""
        at, read = self.structs, self.memory
        mount, dentry = read.word(path + at.path_mnt), read.word(path + at.path_dentry)
        if mount is None or dentry is None:
            return None
        mount -= at.mount_mnt
        deleted = read.word(dentry + at.d_unhashed) == 0
        parts: list[bytes] = []
        for _ in range(_MAX_PARTS):
            parent = read.word(dentry + at.d_parent)
            if parent is None:
                return None
            root = read.word(mount + at.mount_mnt + at.mnt_root)
            if dentry in {root, parent}:
                above, point = read.word(mount + at.mnt_parent), read.word(mount + at.mnt_mountpoint)
                if dentry != root or above is None or point is None or above == mount:
                    break
                mount, dentry = above, point
                continue
            name = self._name(dentry)
            if name is None:
                return None
            parts.append(name)
            dentry = parent
        whole = b"/" + b"/".join(reversed(parts))
        return whole[:_MAX_PATH].decode("utf-8", "backslashreplace"), deleted and bool(parts)

    def _name(self, dentry: int) -> bytes | None:
        at = self.memory.word(dentry + self.structs.d_name)
        return None if at is None else self.memory.string(at, _MAX_NAME)


def _mapping(vma: Vma, file: GuestFile | None, name: str) -> Mapping:
    readable, writable, executable, shared = (bool(vma.flags & flag) for flag in (_VM_READ, _VM_WRITE, _VM_EXEC, _VM_SHARED))
    if file is None:
        path = "/unknown" if vma.file else name
        return Mapping(vma.start, vma.end, readable, writable, executable, vma.offset if vma.file else 0, path, shared=shared)
    return Mapping(
        *(vma.start, vma.end, readable, writable, executable, vma.offset, file.path),
        device=file.device, inode=file.inode, shared=shared, deleted=file.deleted,
    )  # fmt: skip
