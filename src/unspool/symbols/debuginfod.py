"""Debug files from debuginfod servers (debuginfod-client-config(7)): only when DEBUGINFOD_URLS is set, and kept where other tools look."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from unspool.symbols.files import MAX_SIZE, OpenFile, open_in_root

_BUILD_ID = re.compile(r"[0-9a-f]{8,128}")
_CHUNK = 1 << 18
_CONNECT_SECONDS = 10.0
_MISS_SECONDS = 600.0
"""How long an empty file in the cache says that no server has it (cache_miss_s of the client library)."""


class Readable(Protocol):
    """An answer of a server."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, b"" at the end."""


@dataclass(slots=True)
class Debuginfod:
    """The servers, and the folder where what they gave is kept; a server that cannot be reached is not asked again."""

    urls: tuple[str, ...]
    cache: Path
    seconds: float = 90.0
    max_size: int = MAX_SIZE
    _unreachable: set[str] = field(default_factory=set)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Debuginfod | None:
        """What the environment asks for; None when it names no server."""
        urls = tuple(url.rstrip("/") for url in environment.get("DEBUGINFOD_URLS", "").split() if url.startswith(("http://", "https://")))
        if not urls:
            return None
        client = cls(urls, _cache(environment))
        with contextlib.suppress(KeyError, ValueError):
            client.seconds = float(environment["DEBUGINFOD_TIMEOUT"]) or client.seconds
        with contextlib.suppress(KeyError, ValueError):
            client.max_size = int(environment["DEBUGINFOD_MAXSIZE"]) or client.max_size
        return client

    def debug_files(self, build_id: str) -> Iterator[OpenFile]:
        """The debug file of that build id, from the cache or the first server that has it; nothing when none has."""
        if not _BUILD_ID.fullmatch(build_id):
            return
        path = self.cache / build_id / "debuginfo"
        if self._is_missing(path) or not (path.exists() or self._fetched(build_id, path)):
            return
        with contextlib.suppress(OSError):
            yield OpenFile(open_in_root(None, str(path)), str(path))

    @staticmethod
    def _is_missing(path: Path) -> bool:
        """Whether it was asked for lately, and no server had it."""
        with contextlib.suppress(OSError):
            status = path.stat()
            if status.st_size:
                return False
            if time.time() - status.st_mtime < _MISS_SECONDS:
                return True
            path.unlink()
        return False

    def _fetched(self, build_id: str, path: Path) -> bool:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            answered = False
            for url in self.urls:
                outcome = self._fetch(f"{url}/buildid/{build_id}/debuginfo", url, path)
                if outcome:
                    return True
                answered = answered or outcome is False
            if answered:
                path.touch()
        return False

    def _fetch(self, address: str, url: str, path: Path) -> bool | None:
        """Whether the server gave the file; None when it could not be asked."""
        from http.client import HTTPException
        from urllib.error import HTTPError
        from urllib.request import urlopen

        if url in self._unreachable:
            return None
        try:
            with urlopen(address, timeout=_CONNECT_SECONDS) as answer, _new_file(path) as file:  # noqa: S310 (http and https only)
                return self._copied(answer, file)
        except HTTPError as error:
            return False if error.code == 404 else None
        except (OSError, HTTPException, ValueError):
            self._unreachable.add(url)
            return None

    def _copied(self, answer: Readable, file: _NewFile) -> bool:
        deadline, size = time.monotonic() + self.seconds, 0
        while piece := answer.read(_CHUNK):
            size += len(piece)
            if size > self.max_size or time.monotonic() > deadline:
                return False
            file.write(piece)
        return file.keep() if size else False


class _NewFile:
    """A file that appears under its name whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        descriptor, name = tempfile.mkstemp(prefix=".debuginfo.", dir=path.parent)
        self._temporary = Path(name)
        self._file = os.fdopen(descriptor, "wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def keep(self) -> bool:
        self._file.flush()
        self._temporary.replace(self._path)
        return True

    def close(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[_NewFile]:
    file = _NewFile(path)
    try:
        yield file
    finally:
        file.close()


def _cache(environment: Mapping[str, str]) -> Path:
    """Where the client library of elfutils keeps its files."""
    if environment.get("DEBUGINFOD_CACHE_PATH"):
        return Path(environment["DEBUGINFOD_CACHE_PATH"])
    base = environment.get("XDG_CACHE_HOME") or f"{environment.get('HOME', '/')}/.cache"
    return Path(base) / "debuginfod_client"
