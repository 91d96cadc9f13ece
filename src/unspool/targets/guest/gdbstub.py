"""Registers by QEMU's gdbstub: the whole machine is stopped for a moment, then runs on (GDB manual, appendix E; QEMU gdbstub).

What QEMU (7.2 to 10.0) does, found by trying, and what follows from it:
- Connecting stops the machine; so does any byte sent to a running one, and that byte is lost.
- The stop itself is synchronous, so the interrupt and the requests after it can be sent at once: one round trip a hold.
- `D;1` detaches and lets it run. A connection that is only closed leaves the machine as it is, also when it is stopped.
- A stop that we did not ask for was somebody else's (`virsh suspend`): the source ends there, and the machine stays as they want it.
- `c` and `D;1` let any machine run, also one that waits for its migration or whose disk failed. So one that stood still before we came is
  only left: `info status` gives the reason of every stop but a plain one, and of that QEMU before 8.1 says when our connecting made it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from unspool.errors import BadInput
from unspool.model.arch import X86_64
from unspool.model.registers import Registers
from unspool.targets.guest.channel import CONNECT_SECONDS, Channel, Endpoint, as_request, connect, new_socket, refuse_paused
from unspool.targets.guest.registers import RefusalKind, Refused, VcpuState
from unspool.targets.guest.vcpu_threads import VcpuThreads
from unspool.targets.guest.watchdog import Watchdog

_INTERRUPT, _CONTINUE = b"\x03", b"$c#63"
# What the watchdog says. A running machine takes the first byte as the wish to stop it, a stopped one ignores an interrupt: it is obeyed in
# both states. The question for the current thread comes first, because its answer tells the OK of the detachment from an earlier one.
DETACH = _INTERRUPT + b"$qC#b4$D;1#b0"
DETACHED = (b"$QC", b"$OK#9a")
# QEMU's i386-64bit.xml: rax rbx rcx rdx rsi rdi rbp rsp r8-r15 rip, eflags, cs ss ds es fs gs, fs_base gs_base k_gs_base,
# cr0 cr2 cr3 cr4 cr8 efer.
_LAYOUT = struct.Struct("<17Q7I9Q")
_DWARF_OF = (0, 3, 2, 1, 4, 5, 6, 7, *range(8, 16))
_STOP_REPLIES = (b"T", b"S")
_MOST_THREADS = 4096
_PROTECTED = 1
# QEMU monitor/hmp-cmds.c, hmp_info_status: no reason for a plain pause, and `debug` is a debugger's own.
_WAITS = re.compile(r"VM status: paused.*\((?!debug)[a-z-]+\)\s*$")
_REPORTS_STOPS = (8, 1)
"""Before that version, a stop that connecting made is told to the client."""


class Gdb:
    """A gdb session with a machine, under a watchdog; the machine may be stopped or running. Raises what `Channel` raises."""

    def __init__(self, channel: Channel, watchdog: Watchdog) -> None:
        """Speak over that channel; `attach` makes one."""
        self.channel = channel
        self.watchdog = watchdog
        self._waited = False
        self._stopped = False

    @property
    def stood_still(self) -> bool:
        """Whether the machine did not run when we came, and no stop was reported since, so that it is left as it is."""
        return self._waited and not self._stopped

    def resume(self) -> bool:
        """Let the machine run; False when the watchdog did so before, because it was held too long."""
        if not self.watchdog.watches():
            return False
        self.channel.send(_CONTINUE)
        if self.watchdog.released():
            return True
        # It detached at this very moment, and may have done so before the machine got the first byte of ours, which stopped it again.
        self.channel.send(_INTERRUPT + _CONTINUE)
        return False

    def detach(self) -> None:
        """Let the machine run and end the session, whatever state they are in; one that stood still before stays so."""
        if self.stood_still:
            self.leave()
            return
        # The watchdog does it, and only the watchdog: QEMU 7.2 crashes when it is told twice (gdbstub.c, handle_detach).
        self.watchdog.holding()
        self._let_go()
        self.watchdog.wait(self.channel.patience)
        self.channel.close()

    def leave(self) -> None:
        """End the session and leave the machine as it is."""
        self.watchdog.close()
        self.channel.close()

    def abandon(self) -> None:
        """End the session; a machine that is held is let run by the watchdog, which waits for it longer than we can."""
        self._let_go()
        self.channel.close()

    def _let_go(self) -> None:
        if self.watchdog.died():
            with suppress(OSError):
                self.channel.send(DETACH)
        self.watchdog.abandon()

    def greet(self) -> None:
        """The first exchange; TimeoutError when the stub serves another client."""
        answer = self.ask(b"qSupported", CONNECT_SECONDS)
        # QEMU before 8.1 reports the stop that our connecting made.
        if self._stopped:
            answer = self.receive(CONNECT_SECONDS)
        if b"PacketSize=" not in answer:
            raise BadInput("what listens there is no gdbstub")
        if not self._stopped:
            self._waited = bool(_WAITS.match(self.hmp("info status"))) or _version(self.hmp("info version")) < _REPORTS_STOPS

    def receive(self, seconds: float | None = None) -> bytes:
        """The next packet's contents; BadInput when its checksum is wrong."""
        deadline = self.channel.deadline(seconds)
        self.channel.take_until(b"$", deadline)
        packet = self.channel.take_until(b"#", deadline, extra=2)
        body, claimed = packet[:-3], packet[-2:]
        if claimed.lower() != b"%02x" % (sum(body) & 0xFF):
            raise BadInput("a gdb packet with a wrong checksum")
        self._stopped = self._stopped or body[:1] in _STOP_REPLIES
        return body

    def ask(self, request: bytes, seconds: float | None = None) -> bytes:
        """The answer to one request of a stopped machine."""
        self.channel.send(packet(request))
        return self.receive(seconds)

    def threads(self) -> tuple[int, ...]:
        """The gdb numbers of the vCPUs (the vCPU's index + 1)."""
        found: list[int] = []
        answer = self.ask(b"qfThreadInfo")
        while answer[:1] == b"m" and len(found) < _MOST_THREADS:
            # A number is `1`, or `p1.1` where the stub speaks of several processes.
            found += [_hex(word.rpartition(b".")[2]) for word in answer[1:].split(b",")]
            answer = self.ask(b"qsThreadInfo")
        if not found:
            raise BadInput("the gdbstub shows no vCPUs")
        return tuple(dict.fromkeys(found))

    def hmp(self, command: str) -> str:
        """What QEMU's human monitor prints for a command (the qRcmd packet)."""
        self.channel.send(packet(b"qRcmd," + command.encode().hex().encode()))
        text = bytearray()
        for _ in range(1 << 16):
            answer = self.receive()
            if answer[:1] != b"O" or answer == b"OK":
                return text.decode("utf-8", "replace")
            with suppress(ValueError):
                text += bytes.fromhex(answer[1:].decode("ascii", "replace"))
        raise BadInput("an answer of the gdbstub that does not end")


def _version(text: str) -> tuple[int, ...]:
    """The first two numbers of a version; one that is not understood is a late one."""
    match = re.match(r"(\d{1,3})\.(\d{1,3})\.", text)
    return tuple(map(int, match.groups())) if match else _REPORTS_STOPS


def packet(body: bytes) -> bytes:
    """A packet of the GDB remote protocol.

    >>> packet(b"c")
    b'$c#63'
    """
    return b"$%b#%02x" % (body, sum(body) & 0xFF)


def parse_registers(answer: bytes, *, snapshot: bool = True) -> VcpuState:
    """The state in a `g` packet's answer; BadInput when it is not that of QEMU's 64-bit x86 machine."""
    try:
        data = bytes.fromhex(answer.decode("ascii"))
        words = _LAYOUT.unpack_from(data)
    except (ValueError, struct.error):
        raise BadInput("the gdbstub's registers are not those of QEMU's x86-64 machines") from None
    general = dict(zip(_DWARF_OF, words[:16], strict=True))
    rip, rflags, cs = words[16], words[17], words[18]
    fs_base, gs_base, kernel_gs_base, cr0, _, cr3, cr4, _, efer = words[24:]
    cpl = cs & 3 if cr0 & _PROTECTED else 0
    registers = Registers(X86_64, rip, general, fs_base)
    return VcpuState(
        registers, cr0, cr3, cr4, efer, cs, cpl, rflags, fs_base, gs_base, kernel_gs_base, halted=False, snapshot=snapshot
    )  # fmt: skip


class GdbStub:
    """A `VcpuSource`: stops all vCPUs, reads one, lets them run. Holds may be nested, so that several vCPUs are read in one stop."""

    name = "gdbstub"
    snapshot = True

    def __init__(self, gdb: Gdb, vcpus: tuple[int, ...], threads: VcpuThreads | None = None) -> None:
        """The stub of a machine that was just let run; `threads` tell which vCPUs are idle."""
        self.vcpus = vcpus
        self._gdb = gdb
        self._threads = threads
        self.skips_idle = True
        self._idle: set[int] = set()
        self._depth = 0
        self._ended: Refused | None = None

    @classmethod
    def open(cls, endpoint: Endpoint, threads: VcpuThreads | None = None) -> Self:
        """Attach: the machine stops for some milliseconds, and runs on. An UnspoolError when it cannot be."""
        gdb = attach(endpoint)
        if gdb.stood_still:
            gdb.leave()
            refuse_paused()
        try:
            with as_request(f"the gdb socket {str(endpoint)!r}"):
                numbers = gdb.threads()
                parse_registers(gdb.ask(b"g"))
                gdb.resume()
        except BaseException:
            gdb.detach()
            raise
        return cls(gdb, tuple(sorted(number - 1 for number in numbers)), threads)

    @contextmanager
    def hold(self, vcpu: int) -> Iterator[VcpuState | Refused]:
        """The vCPU's state while the whole machine stands still."""
        refused = self._ended or self._unfit(vcpu)
        if refused:
            yield refused
            return
        if not self._gdb.watchdog.holding():
            yield self._end("the watchdog is gone")
            return
        self._depth += 1
        try:
            yield self._state(vcpu)
        finally:
            self._depth -= 1
            if not self._depth:
                self._resume()

    def close(self) -> None:
        """Detach; the machine runs on."""
        if self._ended is None:
            self._ended = Refused("the gdbstub was closed", RefusalKind.GONE)
            with suppress(OSError):
                if not self._foreign_stop():
                    self._gdb.detach()
        self._gdb.leave()

    def _unfit(self, vcpu: int) -> Refused | None:
        if vcpu not in self.vcpus:
            return Refused(f"there is no vCPU {vcpu}", RefusalKind.IMPOSSIBLE)
        if not self._depth:
            try:
                if self._foreign_stop():
                    return self._leave()
            except OSError:
                return self._end("the machine ended")
            # All are asked now: once the machine stands still, every vCPU's thread waits.
            skips = self._threads if self.skips_idle else None
            self._idle = {number for number in self.vcpus if skips and skips.halted(number)}
        return Refused("the vCPU is idle", RefusalKind.HALTED) if vcpu in self._idle else None

    def _foreign_stop(self) -> bool:
        """Whether a stop was reported that we did not ask for."""
        return any(mark in self._gdb.channel.pending() for mark in (b"$T", b"$S", b"$W", b"$X"))

    def _state(self, vcpu: int) -> VcpuState | Refused:
        requests = packet(b"Hg%x" % (vcpu + 1)) + packet(b"g")
        try:
            self._gdb.channel.send(requests if self._depth > 1 else _INTERRUPT + requests)
            answer = self._gdb.receive()
            if self._depth == 1:
                if answer[:1] not in _STOP_REPLIES:
                    return self._leave()
                answer = self._gdb.receive()
            if answer != b"OK":
                self._gdb.receive()
                return Refused(f"the gdbstub does not know vCPU {vcpu}", RefusalKind.IMPOSSIBLE)
            return parse_registers(self._gdb.receive())
        except TimeoutError:
            return self._end("the machine did not answer in time")
        except OSError:
            return self._end("the machine ended")
        except BadInput as error:
            return self._end(str(error))

    def _resume(self) -> None:
        """Let the machine run, unless it was not us who stopped it."""
        if self._ended is None:
            try:
                if not self._gdb.resume():
                    self._end("the watchdog let the machine run, because it was held too long")
            except OSError:
                self._end("the machine ended")

    def _end(self, reason: str) -> Refused:
        """No later hold works; the watchdog lets the machine run, if it is still held."""
        self._ended = Refused(reason, RefusalKind.GONE)
        self._gdb.abandon()
        return self._ended

    def _leave(self) -> Refused:
        """The same, but the machine stays paused as somebody else wants it."""
        self._ended = Refused("somebody else paused the machine", RefusalKind.GONE)
        self._gdb.leave()
        return self._ended


def attach(endpoint: Endpoint) -> Gdb:
    """A session with a machine that stands still from now on; an UnspoolError when there is none."""
    connection = new_socket(endpoint)
    # It must watch before the machine can stop.
    watchdog = Watchdog.start(connection, DETACH, DETACHED)
    watchdog.holding()
    try:
        with as_request(f"the gdb socket {str(endpoint)!r}"):
            gdb = Gdb(connect(endpoint, connection=connection), watchdog)
            try:
                gdb.greet()
            except BaseException:
                gdb.abandon()
                raise
    except BaseException:
        watchdog.close()
        raise
    return gdb


def _hex(word: bytes) -> int:
    try:
        return int(word, 16)
    except ValueError:
        raise BadInput("a thread of the gdbstub without a number") from None
