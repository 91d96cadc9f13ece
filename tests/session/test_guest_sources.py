"""A guest names files, but never one of this host: only its own memory and the user's folder are looked into."""

from __future__ import annotations

import os
from pathlib import Path

from unspool.capture.guest_wire import GuestModule
from unspool.model.symbol import Unnamed
from unspool.session.guest_sources import source_of
from unspool.symbols.files import OpenFile


def memory_file(data: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, data)
    return descriptor


def bytes_of(source: OpenFile | Unnamed) -> bytes:
    assert isinstance(source, OpenFile), source
    data = os.pread(source.descriptor, 1000, 0)
    source.close()
    return data


def sysroot(folder: Path) -> Path:
    (folder / "root" / "bin").mkdir(parents=True)
    (folder / "root" / "bin" / "app").write_bytes(b"copy")
    (folder / "root" / "bin" / "outside").symlink_to(folder / "secret")
    (folder / "root" / "bin" / "inside").symlink_to("/bin/app")
    (folder / "secret").write_bytes(b"secret")
    return folder / "root"


def test_whole_bytes_of_the_guest_come_first(tmp_path: Path) -> None:
    assert b"guest" == bytes_of(source_of(GuestModule("/bin/app", "", "file", 5), memory_file(b"guest"), sysroot(tmp_path), whole=True))


def test_the_sysroot_stands_in_for_what_is_missing(tmp_path: Path) -> None:
    root = sysroot(tmp_path)
    assert b"copy" == bytes_of(source_of(GuestModule("/bin/app", "", "file", 5), memory_file(b"part"), root, whole=False))
    assert b"copy" == bytes_of(source_of(GuestModule("/bin/inside", "", "file", 5), None, root, whole=False))


def test_part_of_a_file_is_better_than_nothing() -> None:
    assert b"part" == bytes_of(source_of(GuestModule("/bin/app", "", "file", 5), memory_file(b"part"), None, whole=False))


def test_no_path_leads_out_of_the_sysroot(tmp_path: Path) -> None:
    """Neither "..", nor an absolute path, nor a symbolic link."""
    root = sysroot(tmp_path)
    for path in ("../secret", "/../secret", "/bin/../../secret", str(tmp_path / "secret"), "/bin/outside", "/etc/passwd", "\0", ""):
        assert isinstance(source_of(GuestModule(path, "", "file", 5), None, root, whole=False), Unnamed), path


def test_without_a_sysroot_no_file_is_opened_and_no_debug_file_is_found() -> None:
    assert isinstance(source_of(GuestModule("/etc/passwd", "", "file", 5), None, None, whole=False), Unnamed)
    source = source_of(GuestModule("/bin/sh", "", "file", 5), memory_file(b"x"), None, whole=True)
    assert isinstance(source, OpenFile)
    assert source.root is not None
    # Where the symbolizer looks for what a debug link names is a folder that has nothing in it, and never will.
    assert [] == list(Path(f"/proc/self/fd/{source.root}").iterdir())
    source.close()
