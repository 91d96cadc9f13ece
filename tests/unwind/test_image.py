"""Where unwind data comes from: the mapped file, found by its header; a section read through; a file beside the process."""

from __future__ import annotations

from dataclasses import replace

import pytest
from formats.dwarf.cfi_builder import RA, RSP, Section, advance, def_cfa, def_cfa_offset, offset, undefined
from unwind.process_builder import BASE, CALL, END, HDR, NOP, RET, TEXT, Program

from unspool.errors import BadInput
from unspool.formats.dwarf import FrameSection
from unspool.model.arch import X86_64
from unspool.model.memory import Bytes, Layered
from unspool.model.module import AddressSpace, Mapping
from unspool.model.verdict import Stop
from unspool.unwind.api import Unwinder, unwind_user
from unspool.unwind.image import Images, Listed, Relay, UnwindData

STATED = 0x1000
BIAS = TEXT - STATED


def bare() -> tuple[Program, int, int]:
    """A program whose functions have no unwind data in memory: an entry point that calls a leaf."""
    program = Program(header=False)
    start = program.function(CALL + NOP * 3, frames=False)
    leaf = program.function(NOP * 4 + RET, frames=False)
    return program, start, leaf


def frame_section(start: int, leaf: int, *, debug: bool) -> UnwindData:
    """The same functions' data as their file states it."""
    section = Section(0x9000, debug=debug)
    cie = section.cie(def_cfa(RSP, 8), offset(RA, 1), augmentation="" if debug else "zR", version=4 if debug else 1)
    section.fde(cie, start - BIAS, 8, undefined(RA))
    section.fde(cie, leaf - BIAS, 5, advance(2), def_cfa_offset(16))
    return UnwindData("debug_frame" if debug else "eh_frame", section.bytes(), 0x9000, BIAS)


@pytest.mark.parametrize("debug", [False, True], ids=["eh_frame", "debug_frame"])
def test_a_files_unwind_data_serves_where_memory_has_none(debug: object) -> None:
    program, start, leaf = bare()
    thread = program.thread(leaf + 2, [1, start + 5])
    assert Stop.NO_UNWIND_INFO is unwind_user(thread).stop
    asked: list[str] = []

    def provider(mapping: Mapping) -> list[UnwindData]:
        asked.append(mapping.path)
        return [frame_section(start, leaf, debug=bool(debug))]

    unwinder = Unwinder(unwind_data=provider)
    stack = unwinder.unwind(thread)
    assert [leaf + 2, start + 5] == [frame.ip for frame in stack.frames]
    assert Stop.END_PROCESS_ENTRY is stack.stop
    assert stack == unwinder.unwind(thread)
    assert ["/bin/program"] == asked


def test_what_is_mapped_goes_before_what_a_file_says() -> None:
    program = Program()
    start = program.function(CALL + NOP * 3, undefined(RA))
    leaf = program.function(NOP * 4 + RET, def_cfa_offset(16))
    thread = program.thread(leaf, [1, start + 5])
    unwinder = Unwinder(unwind_data=lambda _: [frame_section(start, leaf, debug=True)])
    assert unwind_user(thread) == unwinder.unwind(thread)


def test_a_header_without_table_leads_to_a_section_that_is_read_through() -> None:
    program = Program()
    start = program.function(CALL + NOP * 3, undefined(RA))
    leaf = program.function(NOP * 4 + RET, advance(2), def_cfa_offset(16))
    thread = program.thread(leaf + 2, [1, start + 5])
    assert isinstance(thread.memory, Layered)
    image, *rest = thread.memory.layers
    assert isinstance(image, Bytes)
    data = bytearray(image.data)
    data[HDR - BASE + 2 : HDR - BASE + 4] = b"\xff\xff"  # DW_EH_PE_omit for the count and the table
    found = unwind_user(replace(thread, memory=Layered((Bytes(BASE, bytes(data)), *rest))))
    assert unwind_user(thread) == found


def test_a_broken_entry_ends_a_section_that_is_read_through() -> None:
    section = Section(0)
    cie = section.cie(def_cfa(RSP, 8))
    section.fde(cie, 0x100, 16)
    section.fde(cie + 4, 0x200, 16)
    data = section.bytes()
    listed = Listed(FrameSection(Bytes(0, data), 0, len(data)))
    assert isinstance(listed.broken, BadInput)
    assert listed.find(0x108) is not None
    assert listed.find(0x208) is None


def test_the_header_is_found_below_the_code_in_the_same_file_only() -> None:
    program = Program()
    program.function(NOP * 8)
    image = program.image()

    def mapping(start: int, end: int, at: int, path: str) -> Mapping:
        return Mapping(start, end, readable=True, writable=False, executable=at > 0, offset=at, path=path, inode=len(path))

    other = mapping(BASE - 0x1000, BASE, 0, "/lib/other")
    head, text = mapping(BASE, TEXT, 0, "/bin/program"), mapping(TEXT, END, 0x1000, "/bin/program")
    memory = Relay(Layered((Bytes(BASE, image), Bytes(BASE - 0x1000, image[:0x1000]))))
    found = Images(memory, AddressSpace.of([other, head, text]), X86_64).of(text)
    assert found is not None
    assert 0 == found.bias
    assert Images(memory, AddressSpace.of([other, text]), X86_64).of(text) is None


def test_code_is_read_through_the_thread_that_is_walked_now() -> None:
    """The thread that came first may be gone, and its memory with it."""
    program = Program()
    start = program.function(CALL + NOP * 3, undefined(RA))
    leaf = program.function(NOP * 4 + RET)
    thread = program.thread(leaf, [start + 5])
    gone = replace(thread, memory=Bytes(0, b""))
    unwinder = Unwinder()
    assert Stop.NO_UNWIND_INFO is unwinder.unwind(replace(gone, registers=replace(gone.registers, pc=leaf + 1))).stop
    assert unwind_user(thread) == unwinder.unwind(thread)
