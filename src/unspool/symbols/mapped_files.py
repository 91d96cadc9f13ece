"""The files behind a process's mappings, opened as that process sees them: in containers, deleted, and without trusting a path."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from unspool.errors import BadInput
from unspool.formats.proc_maps import parse_maps
from unspool.model.memory import Memory
from unspool.model.module import Mapping
from unspool.model.symbol import Unnamed
from unspool.symbols.files import NotRegular, OpenFile, open_in_root, reopened
from unspool.symbols.reasons import Reason

_MAX_VDSO = 1 << 16
_PATH_FLAGS = os.O_PATH | os.O_CLOEXEC


def open_mapping(pid: int, mapping: Mapping, memory: Memory | None = None) -> OpenFile | Unnamed:
    """The file that `mapping` of process `pid` shows, or why it cannot be had.

    First the kernel's own handle on it (/proc/PID/map_files, which also reaches deleted files but needs CAP_CHECKPOINT_RESTORE), then
    /proc/PID/exe, then the path below the process's root. By path a file counts only when it has the mapping's device and inode, or
    when a build id is there to compare. `memory` is where the vDSO is read; without it our own is taken.
    """
    if mapping.kind == "vdso":
        return vdso(memory, mapping) if memory is not None else own_vdso()
    if mapping.kind != "file":
        return Reason.ANONYMOUS.because()
    root = _root(pid)
    try:
        file = _by_kernel_handle(pid, mapping) or _by_path(pid, root, mapping)
    except NotRegular as error:
        return Reason.NOT_REGULAR.because(str(error))
    except PermissionError:
        return Reason.NOT_PERMITTED.because()
    except OSError as error:
        return Reason.FILE_UNREACHABLE.because(error.strerror or "")
    finally:
        if root is not None:
            os.close(root)
    if isinstance(file, OpenFile):
        file.root = _foreign_root(pid)
    return file


def open_path(path: str, build_id: str) -> OpenFile | Unnamed:
    """The file at a path of this machine, for a process that is gone: only with the build id that was recorded, which is checked."""
    if not build_id:
        return Reason.FILE_UNREACHABLE.because("no build id was recorded that could tell it from another file")
    try:
        return OpenFile(open_in_root(None, path), path, build_id)
    except NotRegular as error:
        return Reason.NOT_REGULAR.because(str(error))
    except PermissionError:
        return Reason.NOT_PERMITTED.because()
    except OSError as error:
        return Reason.FILE_UNREACHABLE.because(error.strerror or "")


def vdso(memory: Memory, mapping: Mapping) -> OpenFile | Unnamed:
    """The vDSO's image, from the memory of a process."""
    size = mapping.end - mapping.start
    data = memory.read(mapping.start, size) if size <= _MAX_VDSO else None
    return Reason.FILE_UNREACHABLE.because("[vdso] cannot be read") if data is None else OpenFile.of_bytes(data, "[vdso]")


def own_vdso() -> OpenFile | Unnamed:
    """The vDSO's image, from this very process: the kernel maps the same one into all programs of one ABI."""
    try:
        mappings = parse_maps(Path("/proc/self/maps").read_bytes())
    except (OSError, BadInput) as error:
        return Reason.FILE_UNREACHABLE.because(str(error))
    for mapping in mappings:
        if mapping.kind == "vdso":
            return OpenFile.of_bytes(ctypes.string_at(mapping.start, mapping.end - mapping.start), "[vdso]")
    return Reason.NOT_MAPPED.because("[vdso]")


def _by_kernel_handle(pid: int, mapping: Mapping) -> OpenFile | None:
    # The names in map_files have no leading zeros (fs/proc/base.c, dname_to_vma_addr).
    handle = f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
    with contextlib.suppress(PermissionError, FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return OpenFile(reopened(os.open(handle, _PATH_FLAGS)), mapping.path, mapping.build_id)
    return None


def _by_path(pid: int, root: int | None, mapping: Mapping) -> OpenFile | Unnamed:
    file = _by_exe(pid, mapping)
    if file is not None:
        return file
    if root is None:
        return Reason.FILE_UNREACHABLE.because("the process is gone")
    descriptor = open_in_root(root, mapping.path)
    if _is_mapped(descriptor, mapping) or mapping.build_id:
        return OpenFile(descriptor, mapping.path, mapping.build_id)
    os.close(descriptor)
    return Reason.FILE_CHANGED.because()


def _by_exe(pid: int, mapping: Mapping) -> OpenFile | None:
    with contextlib.suppress(OSError):
        descriptor = reopened(os.open(f"/proc/{pid}/exe", _PATH_FLAGS))
        if _is_mapped(descriptor, mapping):
            return OpenFile(descriptor, mapping.path, mapping.build_id)
        os.close(descriptor)
    return None


def _is_mapped(descriptor: int, mapping: Mapping) -> bool:
    status = os.fstat(descriptor)
    return status.st_ino == mapping.inode and (os.major(status.st_dev), os.minor(status.st_dev)) == mapping.device


def _root(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.open(f"/proc/{pid}/root", _PATH_FLAGS | os.O_DIRECTORY)
    return None


def _foreign_root(pid: int) -> int | None:
    """The process's root folder when it is not ours (a container, a chroot)."""
    root = _root(pid)
    if root is None:
        return None
    here, there = Path("/").stat(), os.fstat(root)
    # Two mount namespaces can show one inode as "/", with other things mounted below it.
    if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino) or not _same_mounts(pid):
        return root
    os.close(root)
    return None


def _same_mounts(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()
    return False
