"""Where a recording's file goes: a new file that only its owner can read, never one that somebody else prepared."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from unspool.errors import RecordingError
from unspool.store.schema import create_statements

MAGIC = b"DUCK"
MAGIC_OFFSET = 8
"""A DuckDB file says DUCK after an eight-byte checksum."""


def wal_of(path: Path) -> Path:
    """The write-ahead log that DuckDB keeps beside a file that is being written."""
    return path.with_name(path.name + ".wal")


def check_name(path: Path) -> None:
    """RecordingError when DuckDB cannot open a file of that name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        message = f"the name of {str(path).encode(errors='backslashreplace').decode()} is not UTF-8"
        raise RecordingError(message, hint="Choose another name; the format's library opens no others.") from None


def reserve(path: Path, *, replace: bool = False) -> int:
    """Make a new, empty file at `path`, mode 0600, for `fill`; its descriptor. RecordingError when something stands there.

    `replace` removes a recording that stands there, or an empty file, but nothing else.
    """
    check_name(path)
    if replace:
        _remove_recording(path)
    if os.path.lexists(wal_of(path)):
        raise RecordingError(
            f"{wal_of(path)} is in the way",
            hint="It belongs to a recording that was killed. Move both files away, or choose another name with -o.",
        )
    try:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise RecordingError(f"{path} exists", hint="Choose another name with -o, or move the file away.") from None
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error.strerror}", hint="Choose another place with -o.") from error


def fill(descriptor: int) -> None:
    """Make the reserved file a recording without rows; OSError when the disk is full. Again is harmless."""
    content = empty_recording()
    if os.pwrite(descriptor, content, 0) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def give_up(path: Path, descriptor: int) -> None:
    """Take the reserved file away again, which nothing was written into, and close its descriptor."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            path.unlink()
    os.close(descriptor)


def is_busy(error: Exception) -> bool:
    """Whether DuckDB refuses a file because somebody has it: another process has its lock, or this process writes it."""
    message = str(error)
    return "Could not set lock" in message or "different configuration" in message


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """While this lasts, new files are readable by their owner only (DuckDB makes the log anew after each checkpoint)."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@functools.cache
def empty_recording() -> bytes:
    """An empty database: DuckDB refuses to open an empty file, so it is made in a directory of our own and copied into the new file."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="unspool-") as directory:
        file = Path(directory, "empty.unspool")
        with duckdb.connect(str(file), config={"threads": "1"}) as connection:
            for statement in create_statements():
                connection.execute(statement)
        return file.read_bytes()


def _remove_recording(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RecordingError(f"{path} cannot be replaced: {error.strerror}", hint="Choose another name with -o.") from error
    try:
        # Python makes no file object of a directory, and reading a device may wait for ever.
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        head = os.pread(descriptor, MAGIC_OFFSET + len(MAGIC), 0) if is_file else b""
    finally:
        os.close(descriptor)
    # A recorder that was killed before its first commit leaves an empty file.
    if head[MAGIC_OFFSET:] != MAGIC and not (is_file and not head):
        raise RecordingError(f"{path} exists and is not a recording", hint="Choose another name with -o.")
    # The log goes first: a file without its log is still a recording, a log without its file is in the way.
    wal_of(path).unlink(missing_ok=True)
    path.unlink()
