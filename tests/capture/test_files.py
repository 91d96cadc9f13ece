"""Files of processes are opened only when they are surely the ones that were mapped, and never a device or a FIFO."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from target_programs import Programs, running

from unspool.capture.beneath import open_in_root, open_regular
from unspool.capture.files import Descriptor, Files, KeptFile, build_id_of
from unspool.capture.proc import read_process
from unspool.capture.processes import Processes
from unspool.capture.regions import FileIdentity, Region

GHOST = 1 << 23
SLEEP = shutil.which("sleep") or "/bin/sleep"


def readelf_build_id(path: str) -> str:
    text = subprocess.run(["readelf", "-n", path], check=True, capture_output=True, text=True, timeout=60).stdout
    return text.partition("Build ID: ")[2].split()[0]


def kept(identity: FileIdentity, pid: int = GHOST, region: Region | None = None) -> tuple[KeptFile, bytes]:
    files = Files()
    file = files.keep(identity, region or Region(0x1000, 0x2000, 0, identity, 0), pid=pid)
    head = b"" if file.fd is None else os.pread(file.fd, 4, 0)
    files.close()
    return file, head


def test_the_build_id_is_readelfs() -> None:
    descriptor = os.open(SLEEP, os.O_RDONLY)
    assert readelf_build_id(SLEEP) == build_id_of(descriptor)
    os.close(descriptor)


def test_a_file_of_a_process_that_is_gone_is_found_by_its_build_id() -> None:
    file, head = kept(FileIdentity(SLEEP, "file", readelf_build_id(SLEEP)))
    assert (b"\x7fELF", "") == (head, file.reason)


def test_another_build_at_the_same_path_is_refused_with_the_reason() -> None:
    file, _ = kept(FileIdentity(SLEEP, "file", "00" * 20))
    assert (None, "the file was replaced since it was mapped") == (file.fd, file.reason)


def test_without_a_build_id_device_and_inode_decide() -> None:
    status = Path(SLEEP).stat()
    device = (os.major(status.st_dev), os.minor(status.st_dev))
    file, _ = kept(FileIdentity(SLEEP, "file", "", device, status.st_ino))
    assert readelf_build_id(SLEEP) == file.build_id
    file, _ = kept(FileIdentity(SLEEP, "file", "", device, status.st_ino + 1))
    assert file.fd is None


@pytest.mark.live
def test_where_stat_names_another_device_the_kernels_link_decides(programs: Programs) -> None:
    """As on btrfs, where /proc/PID/maps shows the superblock's device and stat() the subvolume's."""
    program = programs.build("deep.c")
    with running(program, "5") as process:
        model = Processes([process.pid])
        model.scan()
        known = model.newest(process.pid)
        assert known is not None
        [region] = [region for region in known.program.regions() if region.file.path == str(program)]
        elsewhere = replace(region.file, device=(0, 99))
        found, head = kept(elsewhere, process.pid, region)
        other, _ = kept(replace(elsewhere, inode=elsewhere.inode + 1), process.pid, region)
    assert (b"\x7fELF", readelf_build_id(str(program))) == (head, found.build_id)
    assert other.fd is None


@pytest.mark.live
def test_a_program_that_was_deleted_while_it_runs_is_reached(programs: Programs, tmp_path: Path) -> None:
    program = tmp_path / "gone"
    shutil.copy(programs.build("deep.c"), program)
    with running(program, "5") as process:
        program.unlink()
        found = read_process(process.pid)
        assert found is not None
        model = Processes([process.pid])
        model.scan()
        known = model.newest(process.pid)
        assert known is not None
        [region] = [region for region in known.program.regions() if region.file.path == str(program)]
        assert region.file.deleted
        _, head = kept(region.file, process.pid, region)
    assert b"\x7fELF" == head


def test_one_file_seen_under_two_identities_is_open_once() -> None:
    status, build_id = Path(SLEEP).stat(), readelf_build_id(SLEEP)
    by_inode = FileIdentity(SLEEP, "file", "", (os.major(status.st_dev), os.minor(status.st_dev)), status.st_ino)
    files = Files()
    region = Region(0, 1, 0, by_inode, 0)
    assert files.keep(by_inode, region, pid=GHOST) is files.keep(FileIdentity(SLEEP, "file", build_id), region, pid=GHOST)
    files.close()


def test_no_more_files_are_opened_than_allowed() -> None:
    identity = FileIdentity(SLEEP, "file", readelf_build_id(SLEEP))
    files = Files(limit=0)
    assert "too many open files" == files.keep(identity, Region(0, 1, 0, identity, 0), pid=GHOST).reason


def test_links_and_dots_stay_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"inside")
    (tmp_path / "link").symlink_to("/file")
    (tmp_path / "out").symlink_to("../../../../../../etc/passwd")
    for name in ("/file", "/link", "/../../file"):
        descriptor = open_in_root(str(tmp_path), name)
        assert descriptor is not None, name
        assert b"inside" == os.read(descriptor, 9)
        os.close(descriptor)
    assert open_in_root(str(tmp_path), "/out") is None
    assert open_in_root(str(tmp_path), "/link", follow=False) is None


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    assert [None] * 4 == [open_in_root(str(tmp_path), name) for name in ("/fifo", "/folder", "/none", "/a\0b")]
    assert [None] * 2 == [open_regular(name) for name in ("/dev/zero", str(tmp_path / "none"))]


def test_a_descriptor_gives_all_bytes_or_none(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        memory = Descriptor(file.fileno())
        assert [b"234", None, None, None] == [memory.read(*place) for place in ((2, 3), (8, 3), (-1, 2), (1 << 70, 1))]
