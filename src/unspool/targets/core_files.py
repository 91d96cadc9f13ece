"""The files that were mapped into a process that was dumped: found again, and used only when proved to be the same."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unspool.errors import BadInput
from unspool.formats.core_notes import MappedFile
from unspool.formats.elf import Elf
from unspool.model.memory import Memory
from unspool.targets.core_memory import Piece, mapped

_DELETED = " (deleted)"
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class CoreFile:
    """A program or library that was mapped. `build_id` is that of what was mapped, "" when the dump does not hold it.

    `missing` says why the file at the path cannot serve, "" when it is the mapped one: then `data` are its bytes.
    """

    path: str
    build_id: str
    missing: str = ""
    data: mmap.mmap | None = None
    elf: Elf | None = None

    def flags(self, offset: int) -> int:
        """The permissions (SegmentFlag) of the segment that holds a byte of the file or its page; 0 when it is not known."""
        for segment in self.elf.loads if self.elf else ():
            if segment.offset // _PAGE * _PAGE <= offset < segment.offset + segment.file_size:
                return segment.flags
        return 0


class CoreFiles:
    """The files of NT_FILE, each opened once."""

    def __init__(self, files: tuple[MappedFile, ...], dumped: Memory, sysroot: Path | None) -> None:
        """Look at all of them: below `sysroot`, None for this machine."""
        self._entries = files
        self._sysroot = sysroot
        self.by_path: dict[str, CoreFile] = {}
        starts = {entry.path: entry.start for entry in reversed(files) if entry.offset == 0}
        for entry in files:
            if entry.path not in self.by_path:
                self.by_path[entry.path] = self._found(entry.path, starts.get(entry.path), dumped)

    def pieces(self) -> Iterator[Piece]:
        """The memory that the proved files showed. What the process changed of it is in the dump, which is asked first."""
        for entry in self._entries:
            data = self.by_path[entry.path].data
            if data is not None:
                size = min(entry.end - entry.start, len(data) - entry.offset)
                if size > 0:
                    yield Piece(entry.start, size, data, entry.offset)

    def _found(self, path: str, start: int | None, dumped: Memory) -> CoreFile:
        build_id = "" if start is None else _build_id(dumped, start)
        if path.endswith(_DELETED):
            return CoreFile(path, build_id, "it was deleted")
        data = mapped(str(self._sysroot / path.lstrip("/")) if self._sysroot else path)
        if data is None:
            return CoreFile(path, build_id, "it is not on this machine")
        try:
            elf = Elf(data, file=path)
            same = elf.build_id == build_id if build_id else not elf.build_id and _same_start(dumped, start, data)
        except BadInput as error:
            return CoreFile(path, build_id, str(error))
        if not same:
            return CoreFile(path, build_id, "another build is at its path" if build_id else "the dump does not say which build was mapped")
        return CoreFile(path, build_id, "", data, elf)


def _build_id(dumped: Memory, start: int) -> str:
    try:
        return Elf(dumped, base=start, image=True).build_id
    except BadInput:
        return ""


def _same_start(dumped: Memory, start: int | None, data: mmap.mmap) -> bool:
    size = min(_PAGE, len(data))
    return start is not None and dumped.read(start, size) == data[:size]
