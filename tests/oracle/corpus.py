"""The corpus: states of many programs with their truth, and all bytes of files that an unwinder asks for, in one compressed file."""

from __future__ import annotations

import functools
import lzma
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from oracle.truth import Record, Run

from unspool.model.arch import ARCHES

FOLDER = Path(__file__).parent / "corpus"
_HEAD = struct.Struct("<II")
# Records of the corpus besides those of a run: a file's path, some of its bytes, its functions; then a run's name and machine.
FILE, CHUNK, FUNCTIONS, RUN = 20, 21, 22, 23


class SparseFiles:
    """The files of the corpus: of each those bytes that were ever asked for."""

    def __init__(self) -> None:
        """No file yet."""
        self._files: dict[str, _Sparse] = {}

    def file(self, path: str) -> _Sparse:
        """The file, empty when it is new."""
        return self._files.setdefault(path, _Sparse())

    def read(self, path: str, offset: int, size: int) -> bytes:
        """All `size` bytes, else b""."""
        file = self._files.get(path)
        return file.read(offset, size) if file else b""

    def function(self, path: str, offset: int) -> int | None:
        """What identifies the function that holds that byte."""
        file = self._files.get(path)
        return file.function(offset) if file else None

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all files."""
        return tuple(self._files)


@dataclass(slots=True)
class _Sparse:
    starts: list[int] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    function_starts: list[int] = field(default_factory=list)
    functions: list[tuple[int, int]] = field(default_factory=list)

    def read(self, offset: int, size: int) -> bytes:
        index = bisect_right(self.starts, offset) - 1
        if index < 0:
            return b""
        inner = offset - self.starts[index]
        data = self.chunks[index][inner : inner + size]
        return data if len(data) == size else b""

    def function(self, offset: int) -> int | None:
        index = bisect_right(self.function_starts, offset) - 1
        if index < 0 or offset >= self.functions[index][0]:
            return None
        return self.functions[index][1]


@dataclass(slots=True)
class Program:
    """One stepped program of the corpus."""

    name: str
    run: Run


@functools.cache
def load(path: Path) -> tuple[Program, ...]:
    """The programs of a corpus file."""
    files = SparseFiles()
    programs: list[tuple[str, int, list[tuple[int, bytes]]]] = []
    current = _Sparse()
    for kind, payload in _records(lzma.decompress(path.read_bytes())):
        match kind:
            case 20:
                current = files.file(payload.decode())
            case 21:
                current.starts.append(struct.unpack_from("<Q", payload)[0])
                current.chunks.append(payload[8:])
            case 22:
                for start, end, identity in struct.iter_unpack("<QQQ", payload):
                    current.function_starts.append(start)
                    current.functions.append((end, identity))
            case 23:
                programs.append((payload[4:].decode(), struct.unpack_from("<I", payload)[0], []))
            case _:
                programs[-1][2].append((kind, payload))
    return tuple(Program(name, Run.of(functools.partial(iter, records), files, ARCHES[machine])) for name, machine, records in programs)


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        kind, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield kind, data[at : at + size]
        at += size


def record(kind: int | Record, payload: bytes) -> bytes:
    """One record."""
    return _HEAD.pack(kind, len(payload)) + payload
