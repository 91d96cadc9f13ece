"""A process made of bytes: one program with functions and CFI, a stack, and a thread that stands somewhere in it.

program = Program()
main = program.function(CALL + RET, def_cfa..)      its address
thread = program.thread(pc, [word, word, ...])      the words from sp upwards
"""

from __future__ import annotations

import struct
from collections.abc import Mapping as Values
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from formats.dwarf.cfi_builder import RA, RSP, Section, def_cfa, offset

from unspool.model.arch import X86_64, Arch
from unspool.model.memory import Bytes, Layered
from unspool.model.module import AddressSpace, Mapping
from unspool.model.registers import Registers
from unspool.model.thread import EntryPoints, Thread

BASE = 0x400000
TEXT = BASE + 0x1000
FRAMES = BASE + 0x8000
HDR = BASE + 0xC000
END = BASE + 0xE000
STACK = 0x7FFF0000
STACK_END = STACK + 0x4000
INITIAL_SP = STACK_END - 0x100
ANON = 0x500000
UPROBES = 0x7FFFFFFFE000

CALL = b"\xe8\0\0\0\0"
NOP = b"\x90"
RET = b"\xc3"
PLAIN_CIE = (def_cfa(RSP, 8), offset(RA, 1))


@dataclass
class Program:
    """An ELF image at BASE: text, .eh_frame and its search table, as the kernel maps it."""

    arch: Arch = X86_64
    initial: tuple[bytes, ...] = PLAIN_CIE
    header: bool = True
    text: bytearray = field(default_factory=bytearray)
    mappings: list[Mapping] = field(default_factory=list)
    memory: list[Bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        """An empty program: its first function is the entry point."""
        self.order = "<" if self.arch.byte_order == "little" else ">"
        self.section = Section(FRAMES, order=self.order)
        self.cie = self.section.cie(*self.initial, ra=self.arch.ra)
        self.entry = TEXT

    def function(self, code: bytes, *cfi: bytes, frames: bool = True, cie: int | None = None, lead: int = 0) -> int:
        """Add a function, aligned; its address. `lead`: bytes before the code that the FDE covers, too."""
        self.text += NOP * (-len(self.text) % 16)
        at = TEXT + len(self.text)
        self.text += code
        if frames:
            self.section.fde(self.cie if cie is None else cie, at - lead, len(code) + lead, *cfi)
        return at

    def image(self) -> bytes:
        """The bytes at BASE."""
        frames, hdr = self.section.bytes(), self.section.hdr(HDR)
        segments = [(1, 5, 0, BASE, END - BASE), (0x6474E550, 4, HDR - BASE, HDR, len(hdr))]
        head = struct.pack(
            f"{self.order}4sBBBB8xHHIQQQIHHHHHH",
            *(b"\x7fELF", 2, 1 if self.order == "<" else 2, 1, 0, 2, self.arch.elf_machine, 1),
            *(self.entry, 64, 0, 0, 64, 56, len(segments) if self.header else 1, 64, 0, 0),
        )
        for kind, flags, at, address, size in segments:
            head += struct.pack(f"{self.order}IIQQQQQQ", kind, flags, at, address, address, size, size, 0x1000)
        image = bytearray(END - BASE)
        for at, data in ((BASE, head), (TEXT, self.text), (FRAMES, frames), (HDR, hdr)):
            image[at - BASE : at - BASE + len(data)] = data
        return bytes(image)

    def thread(self, pc: int, words: Sequence[int], registers: Values[int, int] | None = None, **options: object) -> Thread:
        """A thread at pc with these words on its stack from sp on; the last of them lies right below the initial sp."""
        stack = b"".join(struct.pack(f"{self.order}Q", word & (1 << 64) - 1) for word in words)
        sp = INITIAL_SP - len(stack)
        content = bytes(sp - STACK) + stack + bytes(STACK_END - INITIAL_SP)
        values = {self.arch.sp: sp} | dict(registers or {})
        space = AddressSpace.of(
            [
                Mapping(BASE, END, readable=True, writable=False, executable=True, offset=0, path="/bin/program", inode=1),
                Mapping(STACK, STACK_END, readable=True, writable=True, executable=False, offset=0, path="[stack]"),
                Mapping(ANON, ANON + 0x1000, readable=True, writable=False, executable=True, offset=0, path=""),
                Mapping(UPROBES, UPROBES + 0x1000, readable=False, writable=False, executable=True, offset=0, path="[uprobes]"),
                *self.mappings,
            ]
        )
        memory = Layered((Bytes(BASE, self.image()), Bytes(STACK, content), Bytes(ANON, (CALL + NOP * 11) * 256), *self.memory))
        thread = Thread(Registers(self.arch, pc, values), memory, space, EntryPoints(process=self.entry, initial_sp=INITIAL_SP))
        return replace(thread, **options)  # type: ignore[arg-type]


def sp_of(thread: Thread, index: int = 0) -> int:
    """The address of the stack's word of that index."""
    return thread.registers.sp + index * thread.registers.arch.word
