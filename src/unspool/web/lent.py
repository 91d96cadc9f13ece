"""Recordings that root may read, lent to the user that the server becomes: bytes are copied as root, and parsed by that user only."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from unspool.errors import RecordingError
from unspool.store.place import wal_of
from unspool.store.reader import check_file, copy_of
from unspool.web.opened import Opened


class Lent:
    """The files, each to be opened once with `opened`. As a context manager it removes what was copied."""

    def __init__(self, paths: list[Path], user: tuple[int, int] | None) -> None:
        """Copy what `user` (and group) may not read into a folder of that user's; None: nothing is given up, so nothing is lent."""
        self._held = contextlib.ExitStack()
        for path in paths:
            check_file(path)
        try:
            self._places = [(path, path if user is None or _may_read(path, user) else self._copied(path, user)) for path in paths]
        except BaseException:
            self._held.close()
            raise

    def opened(self) -> list[Opened]:
        """The recordings in memory; RecordingError when one is none. The copies are gone afterwards."""
        with self._held:
            return [_opened(path, place) for path, place in self._places]

    def _copied(self, path: Path, user: tuple[int, int]) -> Path:
        folder = self._held.enter_context(tempfile.TemporaryDirectory(prefix="unspool-", ignore_cleanup_errors=True))
        try:
            copy = copy_of(path, Path(folder))
        except OSError as error:
            hint = "It is copied for whom the server becomes: let that user read it, or set TMPDIR to a folder with room."
            raise RecordingError(f"{path}: {error.strerror}", hint=hint) from error
        for name in (Path(folder), copy, wal_of(copy)):
            with contextlib.suppress(FileNotFoundError):
                os.chown(name, *user)
        return copy


def _opened(path: Path, place: Path) -> Opened:
    try:
        return Opened.of(place, path.name)
    except RecordingError as error:
        raise RecordingError(str(error).replace(str(place), str(path)), hint=error.hint) from error


def _may_read(path: Path, user: tuple[int, int]) -> bool:
    """Whether that user may open the file; one that is not there counts as readable, so that it is named when it is opened."""
    with _as(user):
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
        except FileNotFoundError:
            return True
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _as(user: tuple[int, int]) -> Iterator[None]:
    """For a moment this process acts as that user, who belongs to no other groups."""
    uid, gid = os.geteuid(), os.getegid()
    os.setgroups([])
    os.setegid(user[1])
    os.seteuid(user[0])
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
