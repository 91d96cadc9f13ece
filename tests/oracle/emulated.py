"""Steps a static program of another machine in qemu-user, through its gdbstub, and writes what stepper.c writes of x86-64 programs.

There a call leaves its return address in a register, so an entry has no slot: it is told by address and stack pointer at the call.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from oracle.gdb_remote import Exited, Remote
from oracle.image import FunctionTable
from oracle.truth import Flag, Kind, Record, register_numbers

from unspool.formats.elf.file import Elf
from unspool.model.arch import AARCH64, S390X, Arch

_STACK_SIZE = 8 << 20
_UNIFORM_EVERY = 53


@dataclass(frozen=True, slots=True)
class Machine:
    """How one machine's program is emulated, and what its instructions do to the list of pending returns."""

    arch: Arch
    emulator: str
    compiler: str
    is_call: Callable[[bytes], bool]
    is_jump: Callable[[bytes], bool]
    is_exclusive: Callable[[bytes], int]
    read_registers: Callable[[bytes], tuple[int, int, dict[int, int]]]


def _word(code: bytes) -> int:
    return int.from_bytes(code[:4], "little")


def _aarch64_call(code: bytes) -> bool:
    word = _word(code)
    return word >> 26 == 0x25 or word & 0xFFFFFC1F == 0xD63F0000  # bl, blr


def _aarch64_jump(code: bytes) -> bool:
    word = _word(code)
    return word & 0xFFFFFC1F in {0xD65F0000, 0xD61F0000} or word in {0xD65F0BFF, 0xD65F0FFF}  # ret, br, retaa, retab


def _aarch64_exclusive(code: bytes) -> int:
    """The distance to the instruction after the store-exclusive that ends the sequence begun here; 0 when none begins."""
    if _word(code) & 0x3FC00000 != 0x08400000:  # ldxr, ldaxr
        return 0
    for at in range(4, len(code) - 3, 4):
        if int.from_bytes(code[at : at + 4], "little") & 0x3FC00000 == 0x08000000:  # stxr, stlxr
            return at + 4
    return 0


def _aarch64_registers(data: bytes) -> tuple[int, int, dict[int, int]]:
    values = struct.unpack_from("<33Q", data)
    return values[32], values[31], dict(enumerate(values[:32]))


def _s390x_call(code: bytes) -> bool:
    if code[0] == 0x0D:  # basr %r14,%rN
        return code[1] >> 4 == 14 and bool(code[1] & 15)
    return code[:2] in {b"\xc0\xe5", b"\xa7\xe5"}  # brasl, bras


def _s390x_jump(code: bytes) -> bool:
    return code[0] == 0x07 and bool(code[1] >> 4) and bool(code[1] & 15)  # bcr: br, ber, ...


def _s390x_registers(data: bytes) -> tuple[int, int, dict[int, int]]:
    values = struct.unpack_from(">18Q", data)
    return values[1], values[17], dict(enumerate(values[2:18]))


MACHINES = (
    Machine(AARCH64, "qemu-aarch64", "aarch64-linux-gnu-gcc", _aarch64_call, _aarch64_jump, _aarch64_exclusive, _aarch64_registers),
    Machine(S390X, "qemu-s390x", "s390x-linux-gnu-gcc", _s390x_call, _s390x_jump, lambda _: 0, _s390x_registers),
)


@dataclass(slots=True)
class _Pending:
    number: int
    ra: int
    sp: int


@dataclass(slots=True)
class Stepper:
    """One emulated run: the connection, the true list, and the records that are written."""

    machine: Machine
    remote: Remote
    program: Path
    output: Path
    k: int
    max_steps: int
    pc: int = 0
    sp: int = 0
    values: dict[int, int] = field(default_factory=dict)
    initial_sp: int = 0
    pending: list[_Pending] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    seen: dict[int, int] = field(default_factory=dict)
    code: dict[int, bytes] = field(default_factory=dict)
    next_number: int = 1
    steps: int = 0
    skipped: int = 0

    def run(self) -> None:
        """Step to the end, or as far as is allowed."""
        elf = Elf(self.program.read_bytes(), file=str(self.program))
        self._functions = FunctionTable(elf)
        self._elf = elf
        with self.output.open("wb") as file:
            self._file = file
            self._look()
            self.initial_sp = self.sp
            self._put(Record.HEADER, struct.pack("<QQQ", elf.entry, 0, self.sp))
            self._put(Record.MAPS, self._maps(elf))
            try:
                while self.steps < self.max_steps:
                    self._sample()
                    self._step()
            except Exited:
                pass
            self._put(Record.END, struct.pack("<5Q", self.steps, 0, self.skipped, 0, 0))

    _functions: FunctionTable = field(init=False)
    _elf: Elf = field(init=False)
    _file: object = field(init=False)

    def _step(self) -> None:
        code = self.code.get(self.pc)
        if code is None:
            code = self.code[self.pc] = self.remote.read(self.pc, 64) or self.remote.read(self.pc, 8) or bytes(8)
        before, distance = self.pc, self.machine.is_exclusive(code)
        if distance:
            self.remote.run_to(self.pc + distance)
        else:
            self.remote.step()
        self.steps += 1
        self._look()
        if self.machine.is_call(code):
            self._push(before + self._size(code))
        elif self.machine.is_jump(code) and self.pc != before + self._size(code):
            self._jumped()
        else:
            self._drop_dead()

    def _size(self, code: bytes) -> int:
        if self.machine.arch is AARCH64:
            return 4
        return (2, 4, 4, 6)[code[0] >> 6]  # z/Architecture Principles of Operation, "Instruction Formats"

    def _push(self, ra: int) -> None:
        entry = _Pending(self.next_number, ra, self.sp)
        self.next_number += 1
        self.pending.append(entry)
        self._put(Record.ENTRY, struct.pack("<QQQI", entry.number, ra, self.sp, Kind.CALL))

    def _jumped(self) -> None:
        """A jump through a register: a return, a landing in a caller, or a tail call or a switch."""
        self._drop_dead()
        top = self.pending[-1] if self.pending else None
        if top and top.ra == self.pc and top.sp == self.sp and not self.dropped:
            self._fate(self.pending.pop().number, returned=True)
            return
        if top and top.sp == self.sp and self._same_function(self.pc, top.ra - 1) and not self._starts_function(self.pc):
            self.dropped.append(self.pending.pop().number)
        self._land()

    def _drop_dead(self) -> None:
        while self.pending and self.pending[-1].sp < self.sp:
            self.dropped.append(self.pending.pop().number)

    def _land(self) -> None:
        for index, number in enumerate(self.dropped):
            self._fate(number, returned=False, outermost=index == len(self.dropped) - 1)
        self.dropped.clear()

    def _fate(self, number: int, *, returned: bool, outermost: bool = False) -> None:
        self._put(Record.FATE, struct.pack("<QQII", number, 0 if returned else self.pc, 1 if returned else 2, outermost))

    def _same_function(self, one: int, other: int) -> bool:
        places = [self._elf.file_offset(address) for address in (one, other)]
        starts = {self._functions.start(place) if place is not None else None for place in places}
        return len(starts) == 1 and None not in starts

    def _starts_function(self, address: int) -> bool:
        place = self._elf.file_offset(address)
        return place is not None and self._functions.start(place) == place

    def _look(self) -> None:
        self.pc, self.sp, self.values = self.machine.read_registers(self.remote.registers())

    def _sample(self) -> None:
        flags = Flag(0)
        if self.seen.get(self.pc, 0) < self.k:
            self.seen[self.pc] = self.seen.get(self.pc, 0) + 1
            flags |= Flag.PER_PC
        if self.steps % _UNIFORM_EVERY == 0:
            flags |= Flag.UNIFORM
        if not flags:
            return
        if self.dropped:  # between the change of the stack pointer and the jump the list has no meaning
            self.skipped += 1
            return
        top = max(self.initial_sp, *(entry.sp for entry in self.pending), self.sp) + 512
        stack = self.remote.read(self.sp, top - self.sp)
        if stack is None:
            self.skipped += 1
            return
        self._put(Record.STATE, self._state(flags, stack))

    def _state(self, flags: Flag, stack: bytes) -> bytes:
        arch = self.machine.arch
        values = dict(self.values)
        if arch is S390X:
            for number in range(16):  # f0-f15 are the stub's registers 35-50 (gdb-xml/s390-fpr.xml after acr and fpc)
                index = arch.registers.index(f"f{number}")
                values[index] = int.from_bytes(self.remote.register(35 + number), "big")
        registers = [*(values[number] for number in register_numbers(arch)), self.pc, 0]
        head = struct.pack(f"<QQII{len(registers)}Q", self.steps, 0, 1, flags, *registers)
        counts = struct.pack("<III", len(self.pending), 1, 1)
        ids = struct.pack(f"<{len(self.pending)}Q", *(entry.number for entry in reversed(self.pending)))
        return head + counts + ids + struct.pack("<QQQI", self.sp, self.sp + len(stack), self.sp, len(stack)) + stack

    def _maps(self, elf: Elf) -> bytes:
        lines = []
        for load in elf.loads:
            start, end = load.address & ~0xFFF, (load.address + load.file_size + 0xFFF) & ~0xFFF
            mode = "r" + ("w" if load.flags & 2 else "-") + ("x" if load.flags & 1 else "-") + "p"
            lines.append(f"{start:x}-{end:x} {mode} {load.offset & ~0xFFF:08x} 00:01 1 {self.program}\n")
        low, high = (self.initial_sp - _STACK_SIZE) & ~0xFFF, (self.initial_sp + 0x10000) & ~0xFFF
        return ("".join(lines) + f"{low:x}-{high:x} rw-p 00000000 00:00 0 [stack]\n").encode()

    def _put(self, kind: Record, payload: bytes) -> None:
        self._file.write(struct.pack("<II", kind, len(payload)) + payload)  # type: ignore[attr-defined]


def step(machine: Machine, program: Path, output: Path, *, k: int, max_steps: int) -> None:
    """Step the program in its emulator and write the states."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "stub"
        process = subprocess.Popen(
            [machine.emulator, "-g", str(place), str(program)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with Remote(place) as remote:
                Stepper(machine, remote, program, output, k, max_steps).run()
        finally:
            process.kill()
            process.wait()


def machine_of(compiler: str) -> Machine | None:
    """The machine that a compiler makes programs for, None for the one that this is."""
    return next((machine for machine in MACHINES if machine.compiler == compiler), None)


def machines() -> Iterator[Machine]:
    """Every machine that can be emulated."""
    return iter(MACHINES)
