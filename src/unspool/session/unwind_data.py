"""Unwind data out of the files that a live process has mapped."""

from __future__ import annotations

from collections.abc import Sequence

from unspool.capture.files import Descriptor
from unspool.errors import BadInput
from unspool.formats.elf import Elf
from unspool.model.module import Mapping
from unspool.model.symbol import Unnamed
from unspool.symbols.mapped_files import open_mapping
from unspool.unwind.file_sections import sections_of
from unspool.unwind.image import UnwindData, UnwindDataProvider


def provider_for(pid: int) -> UnwindDataProvider:
    """What `unspool.unwind` asks for code of that process without an FDE in memory."""

    def provide(mapping: Mapping) -> Sequence[UnwindData]:
        if mapping.kind != "file":
            return ()
        file = open_mapping(pid, mapping)
        if isinstance(file, Unnamed):
            return ()
        try:
            return list(sections_of(Elf(Descriptor(file.descriptor), file=mapping.path), mapping))
        except BadInput:
            return ()
        finally:
            file.close()

    return provide
