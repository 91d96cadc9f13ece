"""Where a kernel keeps what is read of its tasks and their memory: byte offsets out of its own BTF, so that any release is understood.

The names are those of the Linux sources; where a release has renamed a member, the older name stands second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from unspool.errors import BadInput
from unspool.formats.btf import Btf

_THREAD_SIZE = 16 << 10
# What changes when mappings do: their number, their pages by kind, and what the kernel itself counts changes by (6.13 on).
_COUNTERS = ("map_count", "total_vm", "exec_vm", "data_vm", "stack_vm", "locked_vm", "mm_lock_seq")


@dataclass(frozen=True, slots=True)
class TaskStructs:
    """`struct task_struct` and what belongs to a CPU. None: this kernel has no such member.

    `current` and `irq_stack` are the name of a per-CPU variable and an offset in it; `on_cpu` is (offset, size); `exception_stacks` are
    (offset, size) in `struct cea_exception_stacks`, `entry_stack` in `struct cpu_entry_area`, whose size is `entry_area`.
    """

    thread_size: int
    stack: int
    sp: int
    fs_base: int
    state: int
    exit_state: int
    flags: int
    pid: int
    tgid: int
    comm: int
    mm: int
    signal: int
    tasks: int
    thread_node: int
    thread_head: int
    on_cpu: tuple[int, int] | None
    switches: tuple[int, int] | None
    current: tuple[str, int]
    irq_stack: tuple[str, int]
    exception_stacks: tuple[tuple[int, int], ...]
    entry_stack: tuple[int, int] | None
    entry_area: int

    @classmethod
    def of(cls, btf: Btf) -> Self:
        """The places in this kernel; BadInput names what is not there."""
        task = btf.struct("task_struct")
        hot = btf.struct("pcpu_hot") if btf.has("pcpu_hot") else None
        switches = task.find("nvcsw"), task.find("nivcsw")
        return cls(
            thread_size=btf.struct("thread_union").size if btf.has("thread_union") else _THREAD_SIZE,
            stack=task.offset("stack"),
            sp=task.offset("thread.sp"),
            fs_base=task.offset("thread.fsbase"),
            state=_either(btf, "task_struct", "__state", "state"),
            exit_state=task.offset("exit_state"),
            flags=task.offset("flags"),
            pid=task.offset("pid"),
            tgid=task.offset("tgid"),
            comm=task.offset("comm"),
            mm=task.offset("mm"),
            signal=task.offset("signal"),
            tasks=task.offset("tasks"),
            thread_node=task.offset("thread_node"),
            thread_head=btf.struct("signal_struct").offset("thread_head"),
            on_cpu=None if (on_cpu := task.find("on_cpu")) is None else (on_cpu.offset, on_cpu.size),
            switches=None if switches[0] is None or switches[1] is None else (switches[0].offset, switches[1].offset),
            # Linux 6.2 to 6.14 keep both in one per-CPU struct.
            current=("current_task", 0) if hot is None else ("pcpu_hot", hot.offset("current_task")),
            irq_stack=("hardirq_stack_ptr", 0) if hot is None else ("pcpu_hot", hot.offset("hardirq_stack_ptr")),
            exception_stacks=_exception_stacks(btf),
            entry_stack=_entry_stack(btf),
            entry_area=btf.struct("cpu_entry_area").size if btf.has("cpu_entry_area") else 0,
        )


@dataclass(frozen=True, slots=True)
class MemoryStructs:
    """`struct mm_struct`, its mappings, and the files behind them."""

    pgd: int
    tree: int
    tree_root: int
    start_stack: int
    start_brk: int
    brk: int
    saved_auxv: tuple[int, int]
    vdso: int
    vdso_image: int
    counters: tuple[tuple[int, int], ...]
    xol_area: int | None
    xol_vaddr: int | None
    # struct vm_area_struct
    vm_start: int
    vm_end: int
    vm_flags: int
    vm_pgoff: int
    vm_file: int
    # maple_range_64 and maple_arange_64: (pivots, their number), (slots, their number)
    range_node: tuple[int, int, int, int]
    arange_node: tuple[int, int, int, int]
    # struct file, dentry, mount
    f_path: int
    path_mnt: int
    path_dentry: int
    d_parent: int
    d_name: int
    d_unhashed: int
    mount_mnt: int
    mnt_root: int
    mnt_parent: int
    mnt_mountpoint: int
    # struct inode, super_block, address_space, the page cache
    f_inode: int
    i_ino: int
    i_size: int
    i_sb: int
    i_mapping: int
    s_dev: int
    cache_head: int
    node_shift: int
    node_slots: tuple[int, int]
    page_size: int
    page_flags: int
    page_index: int
    page_mapping: int
    uptodate: int

    @classmethod
    def of(cls, btf: Btf) -> Self:
        """The places in this kernel; BadInput names what is not there (a kernel before 6.1 has no maple tree)."""
        mm, vma, file, inode = (btf.struct(name) for name in ("mm_struct", "vm_area_struct", "file", "inode"))
        dentry, mount, page = btf.struct("dentry"), btf.struct("mount"), btf.struct("page")
        auxv = mm.member("saved_auxv")
        uptodate = btf.enumerator("PG_uptodate")
        if uptodate is None:
            raise BadInput("there is no PG_uptodate", file="BTF")
        return cls(
            pgd=mm.offset("pgd"),
            tree=mm.offset("mm_mt"),
            tree_root=btf.struct("maple_tree").offset("ma_root"),
            start_stack=mm.offset("start_stack"),
            start_brk=mm.offset("start_brk"),
            brk=mm.offset("brk"),
            saved_auxv=(auxv.offset, auxv.size),
            vdso=mm.offset("context.vdso"),
            vdso_image=mm.offset("context.vdso_image"),
            counters=tuple(
                (member.offset, member.size) for name in _COUNTERS if (member := mm.find(name)) is not None and member.size <= 8
            ),
            xol_area=_maybe(btf, "mm_struct", "uprobes_state.xol_area"),
            xol_vaddr=_maybe(btf, "xol_area", "vaddr"),
            vm_start=vma.offset("vm_start"),
            vm_end=vma.offset("vm_end"),
            vm_flags=_either(btf, "vm_area_struct", "vm_flags", "flags"),
            vm_pgoff=vma.offset("vm_pgoff"),
            vm_file=vma.offset("vm_file"),
            range_node=_node(btf, "maple_range_64"),
            arange_node=_node(btf, "maple_arange_64"),
            f_path=file.offset("f_path"),
            path_mnt=btf.struct("path").offset("mnt"),
            path_dentry=btf.struct("path").offset("dentry"),
            d_parent=dentry.offset("d_parent"),
            d_name=dentry.offset("d_name.name"),
            d_unhashed=dentry.offset("d_hash.pprev"),
            mount_mnt=mount.offset("mnt"),
            mnt_root=btf.struct("vfsmount").offset("mnt_root"),
            mnt_parent=mount.offset("mnt_parent"),
            mnt_mountpoint=mount.offset("mnt_mountpoint"),
            f_inode=file.offset("f_inode"),
            i_ino=inode.offset("i_ino"),
            i_size=inode.offset("i_size"),
            i_sb=inode.offset("i_sb"),
            i_mapping=inode.offset("i_mapping"),
            s_dev=btf.struct("super_block").offset("s_dev"),
            cache_head=btf.struct("address_space").offset("i_pages.xa_head"),
            node_shift=btf.struct("xa_node").offset("shift"),
            node_slots=_array(btf, "xa_node", "slots"),
            page_size=page.size,
            page_flags=page.offset("flags"),
            page_index=_either(btf, "folio", "index") if btf.has("folio") else page.offset("index"),
            page_mapping=_either(btf, "folio", "mapping") if btf.has("folio") else page.offset("mapping"),
            uptodate=1 << uptodate,
        )


def _maybe(btf: Btf, struct: str, path: str) -> int | None:
    found = btf.struct(struct).find(path) if btf.has(struct) else None
    return None if found is None else found.offset


def _either(btf: Btf, struct: str, *names: str) -> int:
    """The offset of the first of the names that there is."""
    found = next((place for name in names if (place := _maybe(btf, struct, name)) is not None), None)
    if found is None:
        raise BadInput(f"struct {struct} has no member {names[0]}", file="BTF")
    return found


def _array(btf: Btf, struct: str, name: str) -> tuple[int, int]:
    """Offset and number of an array of words."""
    member = btf.struct(struct).member(name)
    return member.offset, member.size // 8


def _node(btf: Btf, name: str) -> tuple[int, int, int, int]:
    return (*_array(btf, name, "pivot"), *_array(btf, name, "slot"))


def _exception_stacks(btf: Btf) -> tuple[tuple[int, int], ...]:
    """The stacks of IST entries (arch/x86/include/asm/cpu_entry_area.h)."""
    if not btf.has("cea_exception_stacks"):
        return ()
    area = btf.struct("cea_exception_stacks")
    found = (area.find(f"{name}_stack") for name in ("DF", "NMI", "DB", "MCE", "VC", "VC2"))
    return tuple((member.offset, member.size) for member in found if member is not None and member.size)


def _entry_stack(btf: Btf) -> tuple[int, int] | None:
    found = btf.struct("cpu_entry_area").find("entry_stack_page") if btf.has("cpu_entry_area") else None
    return None if found is None else (found.offset, found.size)
