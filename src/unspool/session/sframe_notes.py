"""Which files of a recording carry SFrame data that was not used, and the rule that it breaks."""

from __future__ import annotations

from collections.abc import Iterable

from unspool.capture.files import Descriptor
from unspool.capture.frames import Place
from unspool.errors import BadInput
from unspool.formats.elf import Elf, SegmentType
from unspool.unwind.sframe_section import Refused, RegisteredSection

PROPERTY = "sframe-refused "
"""Before the file's path in the recording's `machine` table; the value is the reason."""


def refused_sections(places: Iterable[Place]) -> dict[str, str]:
    """The recording's properties that name them. The walk drops such a section at the first pc that meets the damage, and asks the CFI."""
    files = {place.file: place.path for place in places if place.kind == "file" and place.file is not None}
    reasons = {path: refusal(Descriptor(file.fd), path) for file, path in files.items() if file.fd is not None}
    return {PROPERTY + path: reason for path, reason in reasons.items() if reason}


def refusal(file: Descriptor, path: str) -> str:
    """Why the file's SFrame section is not used; "" when it is, or when the file has none."""
    try:
        elf = Elf(file, file=path)
        for segment in elf.segments:
            if segment.type == SegmentType.GNU_SFRAME:
                text = [load for load in elf.loads if load.executable]
                return _checked(file, segment.offset, segment.file_size, range(text[0].address, text[-1].address + text[-1].memory_size))
    except (BadInput, IndexError):
        return ""
    return ""


def _checked(file: Descriptor, offset: int, size: int, text: range) -> str:
    section = RegisteredSection.open(_Moved(file, offset), range(1, 1 + size), text)
    return section.reason if isinstance(section, Refused) else ""


class _Moved:
    """A file's bytes from an offset on as memory that starts at address 1: a section at 0 would be refused."""

    def __init__(self, file: Descriptor, offset: int) -> None:
        self._file = file
        self._offset = offset - 1

    def read(self, address: int, size: int) -> bytes | None:
        """The bytes of the section."""
        return self._file.read(address + self._offset, size)
