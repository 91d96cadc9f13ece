"""Opening what somebody else chose: no devices, no FIFOs, no way out of a root folder; and the files of live processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from target_programs import Programs, running

from unspool.formats.elf import Elf
from unspool.formats.proc_maps import parse_maps
from unspool.model.module import Mapping
from unspool.model.symbol import Unnamed
from unspool.symbols import mapped_files
from unspool.symbols.files import NotRegular, OpenFile, open_in_root
from unspool.symbols.reasons import Reason


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "absolute").symlink_to("/file")
    (tmp_path / "upwards").symlink_to("../../../../file")
    (tmp_path / "outside").symlink_to("/etc/passwd")
    (tmp_path / "magic").symlink_to("/proc/self/exe")
    (tmp_path / "device").symlink_to("/dev/zero")
    descriptor = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


@pytest.mark.parametrize("path", ["/file", "file", "/folder/../file", "/../../file", "/absolute", "/upwards"])
def test_paths_stay_below_the_root(root: int, path: str) -> None:
    assert b"content" == content(open_in_root(root, path))


@pytest.mark.parametrize("path", ["/outside", "/magic", "/device", "/nothing", "/fifo", "/folder", "/", "", "a\0b"])
def test_nothing_else_is_opened(root: int, path: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 (of several kinds)
        open_in_root(root, path)


def test_a_link_is_not_followed_where_none_is_expected(root: int) -> None:
    with pytest.raises(NotRegular):
        open_in_root(root, "/absolute", follow=False)


def test_a_file_that_is_too_large_is_not_opened(root: int) -> None:
    with pytest.raises(NotRegular):
        open_in_root(root, "/file", max_size=6)


def test_devices_of_our_own_root_are_not_opened() -> None:
    for path in ("/dev/zero", "/dev/null", "/proc/self/exe/x"):
        with pytest.raises(OSError):  # noqa: PT011
            open_in_root(None, path)


def code_of(pid: int, path: Path | str) -> Mapping:
    space = parse_maps(Path(f"/proc/{pid}/maps").read_bytes())
    return next(mapping for mapping in space if mapping.path == str(path) and mapping.executable)


@pytest.mark.live
def test_a_deleted_program_is_read_through_the_kernels_handle(programs: Programs, tmp_path: Path) -> None:
    path = tmp_path / "program"
    shutil.copy(programs.build("inlined.cc", "-O2"), path)
    expected = path.read_bytes()
    with running(path) as process:
        path.unlink()
        mapping = code_of(process.pid, path)
        assert mapping.deleted
        file = mapped_files.open_mapping(process.pid, mapping)
        assert isinstance(file, OpenFile)
        assert expected == content(os.dup(file.descriptor))
        file.close()


@pytest.mark.live
def test_without_the_handle_a_replaced_file_is_not_believed(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By path only the mapped inode counts: a library that was upgraded under a running program has other symbols."""
    monkeypatch.setattr(mapped_files, "_by_kernel_handle", lambda *_: None)
    monkeypatch.setattr(mapped_files, "_by_exe", lambda *_: None)
    path = tmp_path / "program"
    shutil.copy(programs.build("inlined.cc", "-O2"), path)
    with running(path) as process:
        mapping = code_of(process.pid, path)
        file = mapped_files.open_mapping(process.pid, mapping)
        assert isinstance(file, OpenFile)
        file.close()
        path.unlink()
        assert Unnamed("the file cannot be opened: No such file or directory") == mapped_files.open_mapping(process.pid, mapping)
        shutil.copy(programs.build("inlined.cc", "-O2"), path)
        assert Unnamed(Reason.FILE_CHANGED) == mapped_files.open_mapping(process.pid, mapping)


@pytest.mark.live
def test_a_file_in_another_root_is_found_there(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in a chroot: its paths count from its root, and separate debug files are looked for there."""
    monkeypatch.setattr(mapped_files, "_by_kernel_handle", lambda *_: None)
    monkeypatch.setattr(mapped_files, "_by_exe", lambda *_: None)
    shutil.copy(programs.build("inlined.cc", "-O2", "-static"), tmp_path / "program")
    chroot = shutil.which("chroot") or "/usr/sbin/chroot"
    with running(chroot, str(tmp_path), "/program") as process:
        mapping = code_of(process.pid, tmp_path / "program")
        file = mapped_files.open_mapping(process.pid, Mapping(**{**_fields(mapping), "path": "/program"}))
        assert isinstance(file, OpenFile)
        assert file.root is not None
        assert Elf((tmp_path / "program").read_bytes()).build_id == Elf(content(os.dup(file.descriptor))).build_id
        file.close()


def _fields(mapping: Mapping) -> dict[str, object]:
    return {name: getattr(mapping, name) for name in mapping.__dataclass_fields__}


def test_memory_without_a_file_has_its_reason() -> None:
    mapping = Mapping(0x1000, 0x2000, True, False, True, 0, "")  # noqa: FBT003
    assert Unnamed(Reason.ANONYMOUS) == mapped_files.open_mapping(os.getpid(), mapping)


def test_the_vdso_is_an_elf_file_with_symbols() -> None:
    file = mapped_files.own_vdso()
    assert isinstance(file, OpenFile)
    assert Elf(content(os.dup(file.descriptor))).section(".dynsym") is not None
    file.close()


def test_a_path_without_a_build_id_proves_nothing() -> None:
    assert isinstance(mapped_files.open_path("/bin/ls", ""), Unnamed)
    file = mapped_files.open_path("/bin/ls", "c0ffee")
    assert isinstance(file, OpenFile)
    assert "c0ffee" == file.build_id
    file.close()


def test_a_process_that_is_gone_has_no_files() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    mapping = Mapping(0x1000, 0x2000, True, False, True, 0, "/bin/true", (1, 2), 3)  # noqa: FBT003
    assert isinstance(mapped_files.open_mapping(process.pid, mapping), Unnamed)
