"""A kernel by hand: functions with ORC entries, stacks in memory, and the registers of a CPU that runs there."""
# ruff: noqa: D102, FBT003 - the protocol it stands for says what each method is; a mapping is a line of flags

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from unspool.formats.kallsyms import KernelSymbol
from unspool.formats.orc import OrcEntry, OrcRegister, OrcType
from unspool.model.arch import X86_64
from unspool.model.memory import Bytes, Layered
from unspool.model.module import AddressSpace, Mapping
from unspool.model.registers import Registers
from unspool.model.thread import EntryPoints, Thread
from unspool.model.verdict import Stop, Verdict
from unspool.unwind.kernel_walk import IRQ_STACK, TASK_STACK, KernelStack

TEXT = 0xFFFF_FFFF_8100_0000
TASK = 0xFFFF_C900_0001_0000
IRQ = 0xFFFF_C900_0080_0000
SIZE = 0x4000
TASK_TOP, IRQ_TOP = TASK + SIZE, IRQ + SIZE
FUNCTION = 0x100
CALL = b"\xe8\0\0\0\0"
USER_CS, KERNEL_CS = 0x33, 0x10


def call(offset: int = 8, *, bp: tuple[OrcRegister, int] = (OrcRegister.UNDEFINED, 0), base: OrcRegister = OrcRegister.SP) -> OrcEntry:
    return OrcEntry(base, offset, bp[0], bp[1], OrcType.CALL, signal=False, end=False)


def saved(offset: int = 0, kind: OrcType = OrcType.REGS, *, signal: bool = True) -> OrcEntry:
    return OrcEntry(OrcRegister.SP, offset, OrcRegister.UNDEFINED, 0, kind, signal, end=False)


END = OrcEntry(OrcRegister.UNDEFINED, 0, OrcRegister.UNDEFINED, 0, OrcType.END_OF_STACK, signal=False, end=True)
UNKNOWN = OrcEntry(OrcRegister.UNDEFINED, 0, OrcRegister.UNDEFINED, 0, OrcType.UNDEFINED, signal=False, end=False)


@dataclass
class Kernel:
    """Functions of 256 bytes, one after the other; each byte 0x20 behind a function's start is the end of a call."""

    names: list[str] = field(default_factory=list)
    rows: list[OrcEntry | None] = field(default_factory=list)
    code: bytearray = field(default_factory=bytearray)
    labels: dict[str, int] = field(default_factory=dict)
    init: set[str] = field(default_factory=set)
    """Functions that were given back after the start."""

    def function(self, name: str, row: OrcEntry | None = None, code: bytes = b"") -> int:
        """Add a function; its address."""
        body = bytearray(b"\x90" * FUNCTION)
        body[0x20 - len(CALL) : 0x20] = CALL
        body[: len(code)] = code
        self.names.append(name)
        self.rows.append(row)
        self.code += body
        return TEXT + FUNCTION * (len(self.names) - 1)

    def index(self, pc: int) -> int | None:
        index = (pc - TEXT) // FUNCTION
        return index if 0 <= index < len(self.names) else None

    def orc(self, pc: int) -> OrcEntry | None:
        index = self.index(pc)
        return None if index is None else self.rows[index]

    def has_orc(self) -> bool:
        return any(self.rows)

    def is_text(self, pc: int) -> bool:
        return self.index(pc) is not None and not self.is_init_text(pc)

    def is_init_text(self, pc: int) -> bool:
        symbol = self.symbol(pc)
        return symbol is not None and symbol.name in self.init

    def symbol(self, pc: int) -> KernelSymbol | None:
        index = self.index(pc)
        return None if index is None else KernelSymbol(TEXT + FUNCTION * index, self.names[index], "")

    def address(self, name: str) -> int | None:
        if name in self.labels:
            return self.labels[name]
        return TEXT + FUNCTION * self.names.index(name) if name in self.names else None

    def thread(self, pc: int, sp: int, task: list[int], irq: list[int] | None = None, *, snapshot: bool = True, **registers: int) -> Thread:
        """A CPU at pc; `task` and `irq` are the words at the top ends of the two stacks."""
        memory = Layered((Bytes(TEXT, bytes(self.code)), stack(TASK, task), stack(IRQ, irq or [])))
        names = {"bp": 6, "r10": 10, "r13": 13, "di": 5, "dx": 1}
        values = {X86_64.sp: sp} | {names[name]: value for name, value in registers.items()}
        return Thread(Registers(X86_64, pc, values), memory, space(), EntryPoints(), snapshot=snapshot)


def stack(start: int, words: list[int]) -> Bytes:
    return Bytes(start, bytes(SIZE - 8 * len(words)) + struct.pack(f"<{len(words)}Q", *words))


def space() -> AddressSpace:
    return AddressSpace.of(
        (
            Mapping(TASK, TASK_TOP, True, True, False, 0, TASK_STACK),
            Mapping(IRQ, IRQ_TOP, True, True, False, 0, IRQ_STACK),
        )
    )


def pt_regs(ip: int, sp: int, cs: int = USER_CS, **registers: int) -> list[int]:
    """The 21 words of struct pt_regs."""
    order = ("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "orig_ax")
    return [registers.get(name, 0) for name in order] + [ip, cs, 0x246, sp, 0x2B if cs & 3 else 0x18]


USER = pt_regs(0x401000, 0x7FFE_0000_1000)
"""What a system call left at the top of the stack."""

RETURN = 0x20
"""Where a function goes on after its call."""


def said(kernel: Kernel, found: KernelStack) -> tuple[list[str], Stop, Stop, int | None]:
    """Names of the frames, the stop, the verdict's reason, the first bad frame."""
    symbols = [kernel.symbol(frame.lookup_pc) for frame in found.stack.frames]
    names = ["?" if symbol is None else symbol.name for symbol in symbols]
    judgement = found.stack.judgement
    assert (judgement.verdict is Verdict.RELIABLE) == (judgement.reason is Stop.NONE)
    return names, found.stack.stop, judgement.reason, judgement.first_bad_frame


def at(kernel: Kernel, name: str, offset: int = RETURN) -> int:
    address = kernel.address(name)
    assert address is not None
    return address + offset


def syscall(kernel: Kernel) -> list[int]:
    """The words of copy <- vfs_read <- do_syscall_64 <- the entry, from copy's return address upwards."""
    return [at(kernel, "vfs_read"), 0xB9, at(kernel, "do_syscall_64"), at(kernel, "entry_SYSCALL_64_after_hwframe"), *USER]


def that_reads() -> Kernel:
    """A kernel with the functions of a system call that copies what it read."""
    kernel = Kernel()
    kernel.function("entry_SYSCALL_64_after_hwframe", saved())
    kernel.function("do_syscall_64", call(8))
    kernel.function("vfs_read", call(16, bp=(OrcRegister.PREV_SP, -16)))
    kernel.function("copy", call(8))
    return kernel
