"""QEMU's machine protocol (QMP): its client, and registers through it, live or with the whole machine stopped.

The text of `info registers` is the only form in which QMP gives registers. Live, it is read while the vCPU runs (TCG), or by interrupting
it for a moment without holding it (KVM): no snapshot. `stop` drains and flushes every disk and tells libvirt of each stop
(docs/guest-back-ends.md), so it is used on request only.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from unspool.errors import BadInput, UnspoolError, Unsupported
from unspool.targets.guest.channel import CONNECT_SECONDS, LONGEST_MESSAGE, Channel, Endpoint, as_request, connect, refuse_paused
from unspool.targets.guest.hmp_text import vcpu_state
from unspool.targets.guest.registers import RefusalKind, Refused, VcpuState
from unspool.targets.guest.vcpu_threads import VcpuThreads
from unspool.targets.guest.watchdog import Watchdog

# 0xFF resets QEMU's parser, should we have died in the middle of a request (QEMU docs, qmp-spec, "Reset").
RESUME = b'\xff{"execute":"cont","id":"watchdog"}\n'
RESUMED = (b'"watchdog"',)
# A socket of the option -qmp-pretty sends a message in several lines; what is within is indented.
_OPENS, _ENDS = b"{", b"}"
_MOST_LINES = 100_000
_MOST_VCPUS = 4096
_LONGEST_REASON = 200


class Qmp:
    """A client; `events` counts the events by name. Raises what `Channel` raises, and Unsupported when QEMU refuses a command."""

    def __init__(self, channel: Channel) -> None:
        """Speak over that channel; `open` makes a client."""
        self.channel = channel
        self.events: Counter[str] = Counter()
        self._number = 0

    @classmethod
    def open(cls, endpoint: Endpoint) -> Self:
        """A client that has said hello; an UnspoolError when there is none to be had."""
        with as_request(f"the QMP socket {str(endpoint)!r}"):
            qmp = cls(connect(endpoint))
            try:
                qmp.greet()
            except BaseException:
                qmp.close()
                raise
            return qmp

    def greet(self) -> None:
        """The first exchange; TimeoutError when QEMU serves another client."""
        if "QMP" not in self._message(self.channel.deadline(CONNECT_SECONDS)):
            raise BadInput("what listens there does not speak QMP")
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 JSON
        """What the command returns."""
        self._number += 1
        request = {"execute": command, "id": self._number} | ({"arguments": arguments} if arguments else {})
        self.channel.send(json.dumps(request).encode() + b"\n")
        deadline = self.channel.deadline()
        for _ in range(_MOST_LINES):
            message = self._message(deadline)
            if message.get("id") != self._number:
                continue
            if "return" in message:
                return message["return"]
            error = message.get("error")
            reason = error.get("desc") if isinstance(error, dict) else error
            raise Unsupported(f"QEMU refuses {command}: {str(reason)[:_LONGEST_REASON]!r}", hint="")
        raise BadInput("QMP messages without an answer among them")

    def hmp(self, command: str, vcpu: int | None = None) -> str:
        """What the human monitor prints for a command, as that vCPU sees it."""
        where = {} if vcpu is None else {"cpu-index": vcpu}
        text = self.execute("human-monitor-command", **{"command-line": command}, **where)
        if not isinstance(text, str):
            raise BadInput("the monitor's answer is no text")
        return text

    def running(self) -> bool:
        """Whether the machine runs now (not paused, not shut down)."""
        status = self.execute("query-status")
        return isinstance(status, dict) and status.get("running") is True

    def vcpu_threads(self, pid: int) -> VcpuThreads:
        """The thread of each vCPU."""
        answer = self.execute("query-cpus-fast")
        found = {}
        for entry in answer[:_MOST_VCPUS] if isinstance(answer, list) else ():
            if isinstance(entry, dict):
                index, tid = entry.get("cpu-index"), entry.get("thread-id")
                if isinstance(index, int) and isinstance(tid, int) and index >= 0:
                    found[index] = tid
        if not found:
            raise BadInput("query-cpus-fast shows no vCPUs")
        return VcpuThreads(pid, found, shared=len(set(found.values())) < len(found))

    def notice(self) -> None:
        """Count the events that have arrived; the beginning of a message waits for its end."""
        messages, rest = _complete(self.channel.pending())
        self.channel.put_back(rest)
        for message in messages:
            with suppress(BadInput):
                self._count(_parsed(message))

    def close(self) -> None:
        """End the session."""
        self.channel.close()

    def _message(self, deadline: float) -> dict[str, Any]:
        text = line = self.channel.take_until(b"\n", deadline)
        while text.startswith(_OPENS + b"\r\n") and line.rstrip(b"\r\n") != _ENDS:
            line = self.channel.take_until(b"\n", deadline)
            text += line
            if len(text) > LONGEST_MESSAGE:
                raise BadInput("a QMP message that does not end")
        message = _parsed(text)
        self._count(message)
        return message

    def _count(self, message: dict[str, Any]) -> None:
        event = message.get("event")
        if isinstance(event, str) and (event in self.events or len(self.events) < 1000):
            self.events[event] += 1


class QmpRegisters:
    """A `VcpuSource` over QMP; `stopping` says whether the machine is stopped for each hold."""

    def __init__(self, qmp: Qmp, threads: VcpuThreads, *, stopping: bool) -> None:
        """Take over the client."""
        self.name = "qmp-stop" if stopping else "qmp-live"
        self.snapshot = stopping
        self.vcpus = tuple(sorted(threads.tids))
        self._qmp = qmp
        self._threads = threads
        self.skips_idle = True
        self._idle: set[int] = set()
        self._ended: Refused | None = None
        self._watchdog = Watchdog.start(qmp.channel.socket, RESUME, RESUMED) if stopping else None
        self._depth = 0

    @classmethod
    def open(cls, endpoint: Endpoint, pid: int, *, stopping: bool) -> Self:
        """Connect; an UnspoolError when that cannot be."""
        qmp = Qmp.open(endpoint)
        try:
            with as_request(f"the QMP socket {str(endpoint)!r}"):
                if stopping and not qmp.running():
                    refuse_paused()
                return cls(qmp, qmp.vcpu_threads(pid), stopping=stopping)
        except BaseException:
            qmp.close()
            raise

    @contextmanager
    def hold(self, vcpu: int) -> Iterator[VcpuState | Refused]:
        """The vCPU's state; with `stopping` the machine stands still in the block."""
        refused = self._ended or self._unfit(vcpu)
        if refused:
            yield refused
        elif self._watchdog is None:
            yield self._state(vcpu)
        else:
            yield from self._stopped(vcpu, self._watchdog)

    def close(self) -> None:
        """End the session; the machine runs on."""
        self._ended = self._ended or Refused("the QMP session was closed", RefusalKind.GONE)
        self._qmp.close()
        if self._watchdog:
            self._watchdog.close()

    def _stopped(self, vcpu: int, watchdog: Watchdog) -> Iterator[VcpuState | Refused]:
        if not watchdog.holding():
            yield self._end("the watchdog is gone")
            return
        self._depth += 1
        try:
            stopped = self._stop() if self._depth == 1 else None
            yield stopped or self._state(vcpu)
        finally:
            self._depth -= 1
            if not self._depth:
                self._resume(watchdog)

    def _unfit(self, vcpu: int) -> Refused | None:
        if vcpu not in self.vcpus:
            return Refused(f"there is no vCPU {vcpu}", RefusalKind.IMPOSSIBLE)
        if not self._depth:
            try:
                self._qmp.notice()
            except OSError:
                return self._end("the machine ended")
            if self._is_paused():
                return Refused("somebody else paused the machine")
            # All are asked now: once the machine stands still, every vCPU's thread waits.
            self._idle = {number for number in self.vcpus if self.skips_idle and self._threads.halted(number)}
        return Refused("the vCPU is idle", RefusalKind.HALTED) if vcpu in self._idle else None

    def _is_paused(self) -> bool:
        return self._qmp.events["STOP"] > self._qmp.events["RESUME"]

    def _stop(self) -> Refused | None:
        try:
            self._qmp.execute("stop")
        except (OSError, UnspoolError):
            return self._end("the machine does not obey")
        return None

    def _resume(self, watchdog: Watchdog) -> None:
        if self._ended is None:
            try:
                self._qmp.execute("cont")
            except (OSError, UnspoolError):
                self._end("the machine does not obey")
        if not watchdog.released() and self._ended is None:
            self._end("the watchdog let the machine run, because it was held too long")

    def _state(self, vcpu: int) -> VcpuState | Refused:
        try:
            return vcpu_state(self._qmp.hmp("info registers", vcpu), snapshot=self.snapshot)
        except TimeoutError:
            return Refused("the machine did not answer in time")
        except OSError:
            return self._end("the machine ended")
        except UnspoolError as error:
            return Refused(str(error))

    def _end(self, reason: str) -> Refused:
        self._ended = Refused(reason, RefusalKind.GONE)
        if self._watchdog:
            # It lets the machine run, if it is still held, and waits for that longer than we can.
            self._watchdog.abandon()
        self._qmp.close()
        return self._ended


def _complete(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages in it, and what is left."""
    found: list[bytes] = []
    start = end = 0
    for line in data.splitlines(keepends=True):
        end += len(line)
        opened = data.startswith(_OPENS + b"\r\n", start)
        if line.endswith(b"\n") and (not opened or line.rstrip(b"\r\n") == _ENDS):
            found.append(data[start:end])
            start = end
    return found, data[start:]


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInput("a QMP message that is no JSON") from None
    if not isinstance(message, dict):
        raise BadInput("a QMP message that is no object")
    return message
