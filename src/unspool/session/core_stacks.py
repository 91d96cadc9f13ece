"""The stacks in a core dump: threads walked in the dump's memory, their frames named from the files that were mapped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unspool.errors import BadInput
from unspool.model.arch import X86_64
from unspool.model.module import Mapping as Mapped
from unspool.model.symbol import Named, Unnamed
from unspool.session.naming import ModuleKey, Places
from unspool.session.naming import Place as NamedPlace
from unspool.session.stacks import NamedFrame, ProcessStacks, ThreadStack, refused
from unspool.session.walking import DEFAULT, Walking, walker
from unspool.symbols.files import OpenFile, open_in_root
from unspool.symbols.mapped_files import vdso
from unspool.symbols.reasons import Reason
from unspool.symbols.symbolizer import Symbolizer
from unspool.targets.coredump import CoreDump
from unspool.targets.stopping import Refused
from unspool.unwind.file_sections import sections_of
from unspool.unwind.image import UnwindData, UnwindDataProvider


def stacks_of_core(
    path: Path,
    how: Walking = DEFAULT,
    *,
    tids: Collection[int] | None = None,
    named: bool = True,
    lines: bool = True,
    sysroot: Path | None = None,
) -> ProcessStacks:
    """Every thread's stack (or those of `tids`), the one that crashed first; NoSuchTarget, BadRequest, Unsupported or BadInput for no core.

    Files that were mapped are looked for below `sysroot`, None for this machine.
    """
    with Symbolizer(lines=lines) as symbolizer, CoreDump(path, sysroot=sysroot) as core:
        # The C library walks x86-64 stacks only.
        walk = walker(lambda: provider_for_core(core), how if core.arch is X86_64 else replace(how, method="python"))
        threads = [
            ThreadStack(thread.tid, core.name, refused(thread.thread) if isinstance(thread.thread, Refused) else walk(thread.thread))
            for thread in core.threads
            if tids is None or thread.tid in tids
        ]
        if named:
            threads = _named(core, threads, symbolizer, sysroot)
        return ProcessStacks(core.pid, core.name, tuple(threads), core.space)


def provider_for_core(core: CoreDump) -> UnwindDataProvider:
    """What `unspool.unwind` asks for code of the dump without an FDE in memory."""

    def provide(mapping: Mapped) -> Sequence[UnwindData]:
        file = core.files.get(mapping.path)
        try:
            return list(sections_of(file.elf, mapping)) if file is not None and file.elf is not None else ()
        except BadInput:
            return ()

    return provide


def _named(core: CoreDump, threads: list[ThreadStack], symbolizer: Symbolizer, sysroot: Path | None) -> list[ThreadStack]:
    places = Places(core.pid)
    for address in {frame.lookup_pc for thread in threads for frame in thread.stack.frames}:
        places.add(core.space, address)
    names = _names(core, places, symbolizer, sysroot)
    return [
        replace(
            thread,
            frames=tuple(
                NamedFrame(frame, place, names[place])
                for frame in thread.stack.frames
                for place in [places.place(core.space, frame.lookup_pc)]
            ),
        )
        for thread in threads
    ]


def _names(core: CoreDump, places: Places, symbolizer: Symbolizer, sysroot: Path | None) -> Mapping[NamedPlace, Named]:
    names: dict[NamedPlace, Named] = {NamedPlace("", None): Reason.NOT_MAPPED.because()}
    for key, mapping in places.mappings.items():
        symbolizer.add(key, _source(core, mapping, sysroot))
        offsets = sorted(places.offsets[key])
        named = symbolizer.names(key, offsets)
        names |= {_place(mapping, offset, key): name for offset, name in zip(offsets, named, strict=True)}
    return names


def _place(mapping: Mapped, offset: int, key: ModuleKey) -> NamedPlace:
    return NamedPlace(mapping.path, offset, key)


def _source(core: CoreDump, mapping: Mapped, sysroot: Path | None) -> OpenFile | Unnamed:
    if mapping.kind == "vdso":
        return vdso(core.memory, mapping)
    if mapping.kind != "file":
        return Reason.ANONYMOUS.because()
    file = core.files.get(mapping.path)
    if file is None or file.missing:
        return Reason.FILE_UNREACHABLE.because(file.missing if file is not None else "it was deleted")
    try:
        # It is the file that was mapped: the dump proved that. The build id is checked once more where it is parsed.
        return OpenFile(open_in_root(None, f"{sysroot or ''}{mapping.path}"), mapping.path, mapping.build_id)
    except OSError as error:
        return Reason.FILE_UNREACHABLE.because(error.strerror or "")
