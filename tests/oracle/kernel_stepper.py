"""Steps the only vCPU of a guest through its kernel by QEMU's gdbstub (QEMU documentation, "GDB usage").

Long string instructions are run over, and long stretches of user code up to a breakpoint at a usual way into the kernel.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from oracle.kernel_truth import LONGEST, Instant, Operation, decode

from unspool.targets.guest.gdbstub import packet, parse_registers
from unspool.targets.guest.kernel import GuestKernel
from unspool.targets.guest.registers import VcpuState

_PATIENCE = 120.0
# qqemu.sstepbits: ENABLE=1, NOIRQ=2, NOTIMER=4.
_QUIET, _LOUD = 7, 1
_ENTRIES = ("entry_SYSCALL_64", "asm_exc_page_fault", "asm_sysvec_apic_timer_interrupt")
_WORDS = struct.Struct("<17QII")
_REPEATS = 3
_USER = 3
_MOST_USER = 400
_MOST_STOPS = 50
# What an interrupt pushes at least; a call pushes 8.
_FRAME = 40


class Stub:
    """A gdb session with a machine of one vCPU, which stands still unless it is told to go."""

    def __init__(self, place: Path) -> None:
        """Connect, which stops the machine."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_PATIENCE)
        self._socket.connect(str(place))
        self._input = b""
        answer = self.ask(b"qSupported")
        if answer[:1] in {b"T", b"S"}:  # QEMU before 8.1 tells first that it was stopped
            answer = self._answer()
        assert b"PacketSize" in answer, answer
        self._sstep = 0

    def ask(self, request: bytes) -> bytes:
        """The answer to a request. The stub takes the next request for an acknowledgement."""
        self._socket.sendall(packet(request))
        return self._answer()

    def registers(self) -> bytes:
        """All registers, as `parse_registers` takes them."""
        return self.ask(b"g")

    def step(self, *, interrupts: bool) -> None:
        """Run one instruction; with `interrupts` the clock runs on, and an interrupt may be taken instead."""
        wanted = _LOUD if interrupts else _QUIET
        if self._sstep != wanted:
            assert self.ask(b"Qqemu.sstep=%x" % wanted) == b"OK"
            self._sstep = wanted
        self._stopped(self.ask(b"s"))

    def run(self, until: int | None = None) -> None:
        """Run to a breakpoint, one at `until` included."""
        if until is not None:
            self.breakpoint(until)
        self._stopped(self.ask(b"c"))
        if until is not None:
            self.ask(b"z1,%x,1" % until)

    def run_for(self, seconds: float, breakpoints: Sequence[int]) -> None:
        """Run for a while as if there were no breakpoints."""
        for address in breakpoints:
            self.ask(b"z1,%x,1" % address)
        self._socket.sendall(packet(b"c"))
        self._socket.settimeout(seconds)
        try:
            self._stopped(self._answer())
        except TimeoutError:
            self._socket.settimeout(_PATIENCE)
            self._socket.sendall(b"\x03")
            self._stopped(self._answer())
        self._socket.settimeout(_PATIENCE)
        for address in breakpoints:
            self.breakpoint(address)

    def breakpoint(self, address: int) -> None:
        """Stop before the instruction there."""
        assert self.ask(b"Z1,%x,1" % address) == b"OK"

    def __enter__(self) -> Self:
        """The session."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Let the machine run on, without breakpoints."""
        self._socket.settimeout(5.0)
        try:
            self.ask(b"D;1")
        except OSError:
            pass
        finally:
            self._socket.close()

    @staticmethod
    def _stopped(answer: bytes) -> None:
        if answer[:1] not in {b"T", b"S"}:
            raise EOFError(f"the guest ended: {answer!r}")

    def _answer(self) -> bytes:
        while True:
            begin = self._input.find(b"$")
            end = self._input.find(b"#", begin)
            if begin >= 0 and end >= 0 and len(self._input) >= end + 3:
                body = self._input[begin + 1 : end]
                self._input = self._input[end + 3 :]
                return body
            data = self._socket.recv(65536)
            if not data:
                raise EOFError("the guest ended")
            self._input += data


class Stepper:
    """The vCPU, before each instruction of the kernel: `instant` and, when it is asked for, `vcpu`.

    Now and then (every `interrupt_every` steps or so) the clock runs until an interrupt is taken; 0 is never. `interrupt` makes one of
    its own. `unseen` counts runs in which other tasks may have run; `lost`: such a run did not come back.
    """

    def __init__(
        self, stub: Stub, kernel: GuestKernel, *, interrupt_every: int = 0, seed: int = 0, interrupt: Callable[[], object] = lambda: None
    ) -> None:
        """Set breakpoints at the usual ways into the kernel."""
        self.stub = stub
        self.kernel = kernel
        self.random = random.Random(seed)
        self.every = interrupt_every
        self.entries = [address for name in _ENTRIES if (address := kernel.address(name)) is not None]
        self.interrupt = interrupt
        self.unseen = 0
        self.lost = False
        for address in self.entries:
            stub.breakpoint(address)
        self._data = b""
        self._countdown = self._next()
        self._repeats = 0
        self.instant = self._look()

    def code(self) -> bytes:
        """The bytes at the pc."""
        return self.kernel.memory.read(self.instant.pc, 16) or self.kernel.memory.read(self.instant.pc, 2) or b"\x90\x90\x90"

    def vcpu(self) -> VcpuState:
        """All registers."""
        return parse_registers(self._data)

    def step(self, code: bytes) -> Instant:
        """One instruction further, or out of user mode: where the CPU stands then."""
        before = self.instant
        operation, size = (Operation.OTHER, 0) if before.user else decode(code)
        if before.user:
            self._leave_user_mode()
        elif operation is Operation.STRING and self._repeats >= _REPEATS:
            self._run_to(before.pc + size)
        else:
            self._countdown -= 1
            if self._countdown == -1 and self.every:
                self.interrupt()
            self.stub.step(interrupts=operation is Operation.HALT or self._countdown < 0 < self.every)
        self.instant = self._look()
        self._repeats = self._repeats + 1 if self.instant.pc == before.pc else 0
        jumped = not before.pc <= self.instant.pc <= before.pc + LONGEST
        if self._countdown < 0 and jumped and abs(self.instant.sp - before.sp) >= _FRAME:
            self._countdown = self._next()
        return self.instant

    def wander(self, seconds: float, tries: int = 20) -> None:
        """Let the guest run to be stepped elsewhere: from user mode on, if it is found there."""
        self.lost = False
        for _ in range(tries):
            self.stub.run_for(seconds * self.random.uniform(0.5, 1.5), self.entries)
            self.instant = self._look()
            if self.instant.user:
                return

    def _leave_user_mode(self) -> None:
        """To the first instruction of the kernel. The clock has gone on while we stepped: to run is to be interrupted by it at once."""
        for _ in range(_MOST_USER):
            self.stub.step(interrupts=False)
            if not self._look().user:
                return
        self.unseen += 1
        self.stub.run()

    def _run_to(self, pc: int) -> None:
        """Run until the instruction is next, of the same task: interrupts and faults on the way come back here."""
        sp = self.instant.sp
        for _ in range(_MOST_STOPS):
            self.stub.run(pc)
            if self._look() == Instant(pc, sp, user=False):
                return
            self.unseen += 1
            self.stub.step(interrupts=False)
        self.lost = True

    def _next(self) -> int:
        return self.random.randrange(self.every // 2, self.every * 2) if self.every else 0

    def _look(self) -> Instant:
        self._data = self.stub.registers()
        words = _WORDS.unpack(bytes.fromhex(self._data[: 2 * _WORDS.size].decode()))
        return Instant(words[16], words[7], words[18] & 3 == _USER)
