"""A VMM's control sockets without a VMM: fake QMP and gdb servers that know whether their machine runs, and may answer nonsense."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

GENERAL = tuple(range(0x100, 0x110))
RIP, CR0, CR3, EFER = 0xFFFF_FFFF_8100_0000, 0x8005_0033, 0x1000, 0xD01


def registers(*, cs: int = 0x10, rip: int = RIP) -> bytes:
    """QEMU's `g` packet: 608 bytes."""
    return struct.pack("<17Q7I9Q", *GENERAL, rip, 0x246, cs, 0x18, 0, 0, 0, 0, 0x11, 0x22, 0x33, CR0, 0, CR3, 0x6F0, 0, EFER) + bytes(372)


class FakeVmm:
    """A machine behind a socket: `running` is its state; a subclass speaks a protocol; `twist` changes every answer."""

    def __init__(self, path: Path, twist: Callable[[bytes], bytes] = lambda answer: answer) -> None:
        """Listen there."""
        self.running = True
        self.stops = 0
        self.twist = twist
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.client: socket.socket | None = None
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def wait_running(self, *, running: bool = True) -> bool:
        """Whether the machine comes into that state within a generous time."""
        with self.changed:
            return self.changed.wait_for(lambda: self.running is running, timeout=60)

    def close(self) -> None:
        """Stop serving."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        if self.client:
            with contextlib.suppress(OSError):
                self.client.shutdown(socket.SHUT_RDWR)
        self.thread.join(60)

    def send(self, answer: bytes) -> None:
        """One answer, twisted."""
        assert self.client is not None
        with contextlib.suppress(OSError):
            self.client.sendall(self.twist(answer))

    def set_running(self, *, running: bool) -> None:
        """The machine's new state."""
        with self.changed:
            self.stops += self.running and not running
            self.running = running
            self.changed.notify_all()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.client, _ = self.listener.accept()
                with self.client, contextlib.suppress(OSError):
                    self.greet()
                    while data := self.client.recv(65536):
                        self.receive(data)

    def greet(self) -> None:
        """What happens when a client comes."""

    def receive(self, data: bytes) -> None:
        """What happens when it says something."""


class FakeGdb(FakeVmm):
    """QEMU's gdbstub: a byte that comes while the machine runs stops it and is lost; `reason` is why it stands still, in parentheses."""

    vcpus = 2
    selected = 1
    state = registers()
    version = "7.2.22 (Debian)"
    reason = ""

    def greet(self) -> None:
        """Stop, and say so as QEMU before 8.1 does."""
        self.buffer = b""
        self.detachments = 0
        self.pause(reports=self.version.startswith("7"))

    def pause(self, *, reports: bool = True) -> None:
        """Stop the machine and report it."""
        if self.running:
            self.set_running(running=False)
            if reports:
                self.packet(b"T02thread:01;")

    def packet(self, body: bytes) -> None:
        """One packet."""
        self.send(b"$%b#%02x" % (body, sum(body) & 0xFF))

    def receive(self, data: bytes) -> None:
        """Byte by byte, as QEMU does."""
        for byte in data:
            if self.running:
                self.pause()
                continue
            self.buffer = self.buffer + bytes([byte]) if self.buffer or byte == ord("$") else b""
            if self.buffer[-3:-2] == b"#":
                request, self.buffer = self.buffer[1:-3], b""
                self.send(b"+")
                self.answer(request)

    def answer(self, request: bytes) -> None:
        """The few commands that are needed."""
        if request in {b"c", b"D;1"}:
            if request == b"D;1":
                self.detachments += 1
                self.packet(b"OK")
            self.set_running(running=True)
        elif request.startswith(b"Hg"):
            self.selected = int(request[2:].decode(), 16)
            self.packet(b"OK" if 1 <= self.selected <= self.vcpus else b"E22")
        elif request.startswith(b"qRcmd,"):
            self.monitor(bytes.fromhex(request[6:].decode()).decode())
        else:
            answers = {
                b"qSupported": b"PacketSize=1000;qXfer:features:read+",
                b"qC": b"QC01",
                b"qfThreadInfo": b"m01,02",
                b"qsThreadInfo": b"l",
                b"g": self.state.hex().encode(),
            }
            self.packet(answers.get(request, b""))

    def monitor(self, command: str) -> None:
        """The human monitor: what it prints comes in parts."""
        answers = {"info status": f"VM status: {'running' if self.running else 'paused'}{self.reason}\r\n", "info version": self.version}
        text = answers.get(command, "unknown command")
        for part in (text[:9], text[9:]):
            self.packet(b"O" + part.encode().hex().encode())
        self.packet(b"OK")


def hmp_registers(vcpu: int) -> str:
    """What `info registers` prints."""
    return (
        f"\r\nCPU#{vcpu}\r\nRAX=0000000000000001 RBX=0000000000000002 RCX=0000000000000003 RDX=0000000000000004\r\n"
        "RSI=0000000000000005 RDI=0000000000000006 RBP=0000000000000007 RSP=ffffc90000003f58\r\n"
        "R8 =0000000000000008 R9 =0000000000000009 R10=000000000000000a R11=000000000000000b\r\n"
        "R12=000000000000000c R13=000000000000000d R14=000000000000000e R15=000000000000000f\r\n"
        f"RIP={RIP:016x} RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\r\n"
        "CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]\r\n"
        "FS =0000 0000000000000011 00000000 00000000\r\nGS =0000 ffff8b910f800000 00000000 00000000\r\n"
        "TR =0040 fffffe0000003000 00004087 00008900 DPL=0 TSS64-avl\r\n"
        "GDT=     fffffe0000001000 0000007f\r\nIDT=     fffffe0000000000 00000fff\r\n"
        f"CR0={CR0:08x} CR2=000000003cb9d730 CR3={CR3:016x} CR4=000006b0\r\nEFER={EFER:016x}\r\n"
    )


class FakeQmp(FakeVmm):
    """QEMU's QMP server; `pretty` as with -qmp-pretty."""

    buffer = b""
    pretty = False

    def greet(self) -> None:
        """Say hello."""
        self.buffer = b""
        self.message({"QMP": {"version": {}, "capabilities": []}})

    def message(self, message: dict[str, object]) -> None:
        """One message: a line, or several."""
        text = json.dumps(message, indent=4) if self.pretty else json.dumps(message)
        self.send(text.replace("\n", "\r\n").encode() + b"\r\n")

    def receive(self, data: bytes) -> None:
        """Line by line; 0xFF resets the parser."""
        self.buffer += data.replace(b"\xff", b"")
        while b"\n" in self.buffer:
            line, _, self.buffer = self.buffer.partition(b"\n")
            request = json.loads(line)
            self.message({"return": self.answer(request)} | ({"id": request["id"]} if "id" in request else {}))

    def answer(self, request: dict[str, dict[str, object]]) -> object:
        """The few commands that are needed."""
        command = str(request["execute"])
        if command in {"stop", "cont"}:
            running = command == "cont"
            if running is not self.running:
                self.set_running(running=running)
                self.message({"event": "RESUME" if running else "STOP", "data": {}})
        answers: dict[str, object] = {
            "query-status": {"running": self.running},
            "query-cpus-fast": [{"cpu-index": 0, "thread-id": 1 << 30}, {"cpu-index": 1, "thread-id": (1 << 30) + 1}],
            "human-monitor-command": hmp_registers(int(str(request.get("arguments", {}).get("cpu-index", 0)))),
        }
        return answers.get(command, {})


class PrettyQmp(FakeQmp):
    """The same with a message in several lines."""

    pretty = True


@contextlib.contextmanager
def serving(kind: type[FakeVmm], path: Path, twist: Callable[[bytes], bytes] = lambda answer: answer) -> Iterator[FakeVmm]:
    """A fake that is closed when the block ends."""
    fake = kind(path, twist)
    try:
        yield fake
    finally:
        fake.close()
