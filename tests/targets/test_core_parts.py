"""The parts of a core dump, put together byte by byte: notes of other machines, shadow stacks, where a stack began; and any bytes."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from elf_bytes import ElfBytes, Part
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unspool.errors import BadInput, BadRequest, NoSuchTarget, UnspoolError, Unsupported
from unspool.formats.auxv import AuxType
from unspool.formats.core_notes import CoreNote, MappedFile, parse_files
from unspool.formats.elf import FileType, Layout, SegmentType
from unspool.model.arch import AARCH64, S390X, X86_64, Arch
from unspool.model.memory import Bytes
from unspool.model.module import AddressSpace, Mapping
from unspool.model.thread import Thread
from unspool.targets.core_memory import CoreMemory, Piece
from unspool.targets.coredump import CoreDump
from unspool.targets.initial_stack import initial_sp
from unspool.targets.shadow_stack import shadow_stack
from unspool.targets.stopping import Refused

STACK = 0x7FFD_0000_0000
WIDE = Layout(64, "little")


def status(order: str, tid: int, registers: bytes, signal: int = 6) -> bytes:
    """Struct elf_prstatus of a 64-bit machine."""
    return struct.pack(order + "12xh2x16xi12x64x", signal, tid) + registers + bytes(8)


def core(arch: Arch, registers: bytes, *notes: tuple[int, bytes], memory: bytes = b"") -> bytes:
    order = "<" if arch.byte_order == "little" else ">"
    elf = ElfBytes(64, order, FileType.CORE, arch.elf_machine)
    body = elf.note(b"CORE", CoreNote.PRSTATUS, status(order, 77, registers))
    body += b"".join(elf.note(b"LINUX", kind, data) for kind, data in notes)
    elf.parts = [Part("notes", body, 7, segment=SegmentType.NOTE)]
    if memory:
        elf.parts.append(Part("memory", memory, 1, address=STACK, segment=SegmentType.LOAD, permissions=6))
    return elf.bytes()


def only_thread(path: Path, data: bytes) -> Thread | Refused:
    path.write_bytes(data)
    with CoreDump(path) as dump:
        [thread] = dump.threads
        assert (77, 6) == (thread.tid, thread.signal)
        return thread.thread


def test_aarch64_registers_and_the_mask_of_signed_pointers(tmp_path: Path) -> None:
    registers = struct.pack("<34Q", *range(100, 134))
    thread = only_thread(tmp_path / "core", core(AARCH64, registers, (CoreNote.ARM_PAC_MASK, struct.pack("<QQ", 1, 0x7F << 48))))
    assert isinstance(thread, Thread)
    assert (132, 131, 130) == (thread.registers.pc, thread.registers.sp, thread.registers.get(30))
    assert 0x7F << 48 == thread.pac_mask


def test_s390x_registers_with_the_floating_point_ones(tmp_path: Path) -> None:
    """Functions keep r14 in floating-point registers; DWARF numbers them 16 f0, 17 f2, ... 24 f8."""
    registers = struct.pack(">18Q2I", 0, 0x1234, *range(100, 116), 1, 2) + bytes(200)
    floats = struct.pack(">II16Q", 0, 0, *range(200, 216))
    thread = only_thread(tmp_path / "core", core(S390X, registers, (CoreNote.FPREGSET, floats)))
    assert isinstance(thread, Thread)
    assert (0x1234, 115) == (thread.registers.pc, thread.registers.sp)
    assert (200, 202, 201, 208) == tuple(thread.registers.get(number) for number in (16, 17, 20, 24))


def x86_64_registers(code_segment: int = 0x33) -> bytes:
    words = [0] * 27
    words[16], words[17], words[19] = 0x401000, code_segment, STACK + 64
    return struct.pack("<27Q", *words)


def test_code_of_32_bits_is_refused_thread_by_thread(tmp_path: Path) -> None:
    assert isinstance(only_thread(tmp_path / "core", core(X86_64, x86_64_registers(0x23))), Refused)


def test_a_shadow_stack_gives_the_return_addresses(tmp_path: Path) -> None:
    """From the pointer in NT_X86_SHSTK up; marks of signal frames and of switched stacks are no return addresses."""
    words = [0xDEAD, 0x401111, (1 << 63) | (STACK + 8), 0x402222, (STACK + 5 * 8) | 1, 0x403333, 0]
    memory = struct.pack("<7Q", *words)
    thread = only_thread(
        tmp_path / "core", core(X86_64, x86_64_registers(), (CoreNote.X86_SHSTK, struct.pack("<Q", STACK + 8)), memory=memory)
    )
    assert isinstance(thread, Thread)
    assert (0x401111, 0x402222, 0x403333) == thread.shadow_stack


def test_without_its_note_or_its_memory_there_is_no_shadow_stack() -> None:
    space = AddressSpace.of([Mapping(STACK, STACK + 64, True, True, False, 0, "")])  # noqa: FBT003
    memory = Bytes(STACK, bytes(32))
    assert shadow_stack(memory, space, b"") is None
    assert shadow_stack(memory, space, struct.pack("<Q", STACK)) is None
    assert shadow_stack(memory, space, struct.pack("<Q", STACK + 3)) is None
    assert shadow_stack(memory, space, struct.pack("<Q", 0)) is None


@pytest.mark.parametrize("arguments", [0, 1, 5])
@pytest.mark.parametrize("environment", [0, 1, 700])
def test_a_stack_began_where_argc_is(arguments: int, environment: int) -> None:
    strings = STACK + 0x20000
    words = [arguments, *[strings] * arguments, 0, *[strings + 9] * environment, 0]
    start = STACK + 0x20000 - 0x8000
    above = start + 8 * len(words) + 64
    auxv = struct.pack("<6Q", AuxType.ENTRY, 0x401000, AuxType.RANDOM, above, 0, 0)
    data = (bytes(start - STACK) + struct.pack(f"<{len(words)}Q", *words) + auxv).ljust(0x20000, b"\0")
    assert start == initial_sp(Bytes(STACK, data), auxv, X86_64)


def test_a_stack_without_its_vector_began_nowhere() -> None:
    auxv = struct.pack("<6Q", AuxType.ENTRY, 0x401000, AuxType.RANDOM, STACK + 0x2000, 0, 0)
    assert initial_sp(Bytes(STACK, bytes(0x2000)), auxv, X86_64) is None
    assert initial_sp(Bytes(STACK, b"\1" * 0x1000 + auxv + bytes(0x1000)), auxv, X86_64) is None
    assert initial_sp(Bytes(STACK, auxv), auxv, X86_64) is None
    assert initial_sp(Bytes(STACK, b""), b"", X86_64) is None


def test_mapped_files_have_offsets_in_pages_and_names_with_any_bytes() -> None:
    data = struct.pack("<QQ6Q", 2, 4096, 0x1000, 0x3000, 2, 0x9000, 0xA000, 0) + b"/a b\0/c\n\xff\0"
    files = list(parse_files(data, WIDE))
    assert [MappedFile(0x1000, 0x3000, 8192, "/a b"), MappedFile(0x9000, 0xA000, 0, "/c\n\udcff")] == files


def test_names_beyond_the_count_are_not_looked_at() -> None:
    data = struct.pack("<QQ3Q", 1, 4096, 0x1000, 0x3000, 0) + b"/a" + bytes(10 << 20)
    assert [MappedFile(0x1000, 0x3000, 0, "/a")] == list(parse_files(data, WIDE))


@pytest.mark.parametrize("data", [b"", struct.pack("<QQ", 1 << 40, 4096), struct.pack("<QQ3Q", 2, 4096, 1, 2, 3)])
def test_a_count_of_files_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="NT_FILE"):
        list(parse_files(data, WIDE))


def test_of_two_pieces_the_first_one_counts_and_a_read_may_span_several() -> None:
    memory = CoreMemory()
    memory.add([Piece(0x1000, 4, b"dump", 0), Piece(0x1004, 4, b"..ed..", 2)])
    memory.add([Piece(0x0FFE, 12, b"filefilefile", 0)])
    assert b"fidump" == memory.read(0x0FFE, 6)
    assert memory.read(0x1009, 2) is None
    assert memory.read(0x0FF0, 4) is None
    assert b"" == memory.read(0x1000, 0)
    assert memory.read(0x1000, 1 << 40) is None


def test_what_is_no_dump_has_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(NoSuchTarget):
        CoreDump(tmp_path / "nothing")
    with pytest.raises(NoSuchTarget):
        CoreDump(Path("/dev/zero"))
    with pytest.raises(BadRequest):
        CoreDump(Path("/bin/ls"))
    (tmp_path / "other").write_bytes(ElfBytes(64, "<", FileType.CORE, machine=243).bytes())
    with pytest.raises(Unsupported):
        CoreDump(tmp_path / "other")
    (tmp_path / "text").write_text("no ELF file")
    with pytest.raises(BadInput):
        CoreDump(tmp_path / "text")


@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=24))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_a_dump_or_an_error(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    files = struct.pack("<QQ3Q", 1, 4096, STACK, STACK + 4096, 0) + b"/bin/ls\0"
    auxv = struct.pack("<6Q", AuxType.ENTRY, 0x401000, AuxType.RANDOM, STACK + 0x100, 0, 0)
    notes = [(CoreNote.FILE, files), (CoreNote.AUXV, auxv), (CoreNote.X86_SHSTK, struct.pack("<Q", STACK))]
    data = bytearray(core(X86_64, x86_64_registers(), *notes, memory=bytes(256)))
    for position, value in damage:
        data[position % len(data)] = value
    (tmp_path / "core").write_bytes(bytes(data))
    with contextlib.suppress(UnspoolError), CoreDump(tmp_path / "core") as dump:
        for thread in dump.threads:
            if isinstance(thread.thread, Thread):
                thread.thread.memory.read(thread.thread.registers.pc, 16)
