"""Stacks of addresses become stored stacks: each address is looked up once a program, each stack stored once."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from unspool.capture.files import Files, KeptFile
from unspool.capture.kernel_modules import KERNEL, KernelModules
from unspool.capture.processes import Process, Program
from unspool.capture.regions import FileIdentity, Region
from unspool.model.module import ModuleKind
from unspool.model.verdict import Judgement, Stop, Trust, Verdict

REMEMBERED_BYTES = 32 << 20
"""Addresses of stacks that are remembered at most, for all programs together; what is forgotten is only worked out again."""

_ADDRESS_BITS = 56
_ADDRESS_MASK = (1 << _ADDRESS_BITS) - 1
_SIGN = 1 << (_ADDRESS_BITS - 1)
_TRUST_MASK = 0x0F
_EXACT = 0x10
_STOPS = {int(stop): stop for stop in Stop}
_TRUSTS = {int(trust): trust for trust in Trust}
_VERDICTS = {int(verdict): verdict for verdict in Verdict}


class Sink(Protocol):
    """Where a recording goes: `store.writer.Writer`, or a fake. The same arguments give the same number."""

    def process(
        self, pid: int, start_ns: int, comm: str, exe: str | None = None, parent: int | None = None, *, cgroup: str | None = None
    ) -> int:
        """A program of a process."""

    def exited(self, process: int, exit_ns: int) -> None:
        """When it ended."""

    def thread(self, process: int, tid: int, comm: str) -> int:
        """A thread."""

    def module(self, path: str, build_id: str = "", kind: ModuleKind = "file") -> int:
        """A file."""

    def frame(self, module: int | None, address: int, offset: int | None, space: str, trust: Trust) -> int:
        """A place in code."""

    def stack(self, frames: tuple[int, ...], kernel_frames: int, stop: Stop, stop_module: int | None, judgement: Judgement) -> int:
        """A stack."""

    def sample(self, time_ns: int, process: int, thread: int, cpu: int, trigger: str, detail: str, weight: int, stack: int) -> None:  # noqa: PLR0913, PLR0917 (a row)
        """A sample."""

    def counter(self, name: str, value: int) -> None:
        """A total since the start."""


class Place(NamedTuple):
    """A frame that waits for its name: where to look it up. `file` is None for what has none; `offset` is the byte of it to look up.

    `address` is the one to look up in the process (jit, kernel): inside the call instruction for a return address.
    """

    frame: int
    kind: ModuleKind
    path: str
    file: KeptFile | None
    offset: int
    address: int
    pid: int


class Tally:
    """How many samples ended for one reason, in one module ("" when none caused it), with one verdict."""

    __slots__ = ("module", "samples", "stop", "verdict")

    def __init__(self, stop: Stop, module: str, verdict: Verdict) -> None:
        """Nothing counted yet."""
        self.stop = stop
        self.module = module
        self.verdict = verdict
        self.samples = 0


class RawStack(NamedTuple):
    """A stack as the kernel sent it: `addresses` are its bytes, kernel addresses first, user addresses with their marks in the top byte."""

    stop: int
    stop_address: int
    verdict: int
    reason: int
    first_bad_frame: int | None
    n_kernel: int
    addresses: bytes


class Frames:
    """Turns stacks into rows of a sink, and keeps what is to be named.

    `remembered` counts the bytes of addresses that are remembered here and in programs; `forget` is to be called when they are too many.
    """

    def __init__(self, sink: Sink, files: Files, kernel: KernelModules, is_jit: Callable[[Process], bool]) -> None:
        """Store in `sink`; `is_jit` tells whether a process describes the code that it makes at run time (a perf map)."""
        self._sink = sink
        self._files = files
        self._kernel = kernel
        self._is_jit = is_jit
        self._kernel_frames: dict[int, int] = {}
        self._kernel_stacks: dict[bytes, tuple[int, ...]] = {}
        self._judgements: dict[tuple[int, int, int | None], Judgement] = {}
        self._modules: dict[FileIdentity, tuple[int, KeptFile | None]] = {}
        self._tallies: dict[tuple[Stop, str, Verdict], Tally] = {}
        self.remembered = 0
        self._unnamed: dict[int, Place] = {}
        self._taken: set[int] = set()

    @property
    def tallies(self) -> list[Tally]:
        """What was counted, by reason, module and verdict."""
        return list(self._tallies.values())

    def stack(self, raw: RawStack, process: Process, program: Program, time_ns: int) -> tuple[int, Tally]:
        """The number of the stored stack, and where its samples are counted."""
        cut = 8 * raw.n_kernel
        kernel, user = raw.addresses[:cut], raw.addresses[cut:]
        frames = self._kernel_stack(kernel) + self._user_stack(user, process, program, time_ns)
        stop = _STOPS.get(raw.stop, Stop.NONE)
        judgement = self._judgement(raw)
        path, module = "", None
        if raw.stop_address and not stop.is_end:
            path, module = self._stop_module(raw.stop_address, process, program, time_ns)
        return self._sink.stack(frames, raw.n_kernel, stop, module, judgement), self._tally(stop, path, judgement.verdict)

    def _kernel_stack(self, addresses: bytes) -> tuple[int, ...]:
        if not addresses:
            return ()
        known = self._kernel_stacks.get(addresses)
        if known is None:
            words = struct.unpack(f"<{len(addresses) // 8}Q", addresses)
            # The innermost is the very instruction; a caller's address is the one after its call.
            lookups = ((word, word - bool(depth)) for depth, word in enumerate(words))
            known = tuple(self._kernel_frames.get(lookup) or self._kernel_frame(word, lookup) for word, lookup in lookups)
            self._kernel_stacks[addresses] = known
            self.remembered += len(addresses)
        return known

    def _user_stack(self, addresses: bytes, process: Process, program: Program, time_ns: int) -> tuple[int, ...]:
        """The leaf apart from its callers: of an interpreter's stacks nearly all differ, but few of them in more than the leaf."""
        if not addresses:
            return ()
        if time_ns < program.changed_ns:
            return self._user_frames(addresses, {}, process, program, time_ns)
        callers = program.callers.get(addresses[8:])
        if callers is None:
            callers = self._user_frames(addresses[8:], program.frames, process, program, time_ns)
            program.callers[addresses[8:]] = callers
            self.remembered += len(addresses)
        return self._user_frames(addresses[:8], program.frames, process, program, time_ns) + callers

    def _user_frames(self, addresses: bytes, known: dict[int, int], process: Process, program: Program, time_ns: int) -> tuple[int, ...]:
        frames = []
        for word in struct.unpack(f"<{len(addresses) // 8}Q", addresses):
            frame = known.get(word)
            if frame is None:
                frame = known[word] = self._user_frame(word, process, program, time_ns)
            frames.append(frame)
        return tuple(frames)

    def _tally(self, stop: Stop, module: str, verdict: Verdict) -> Tally:
        known = self._tallies.get((stop, module, verdict))
        if known is None:
            known = self._tallies[stop, module, verdict] = Tally(stop, module, verdict)
        return known

    def forget(self, programs: Iterable[Program]) -> None:
        """Forget the stacks that were worked out; the frames are few, and stay."""
        self._kernel_stacks.clear()
        for program in programs:
            program.stacks.clear()
            program.callers.clear()
        self.remembered = 0

    def take_unnamed(self) -> list[Place]:
        """The frames that came since the last call, each once."""
        places = list(self._unnamed.values())
        self._taken.update(self._unnamed)
        self._unnamed.clear()
        return places

    def _remember(self, place: Place) -> None:
        if place.frame not in self._taken:
            self._unnamed.setdefault(place.frame, place)

    def _judgement(self, raw: RawStack) -> Judgement:
        key = (raw.verdict, raw.reason, raw.first_bad_frame)
        known = self._judgements.get(key)
        if known is None:
            verdict = _VERDICTS.get(raw.verdict, Verdict.UNRELIABLE)
            known = self._judgements[key] = Judgement(verdict, _STOPS.get(raw.reason, Stop.NONE), raw.first_bad_frame)
        return known

    def _kernel_frame(self, address: int, lookup: int) -> int:
        path = self._kernel.find(lookup)
        module = self._sink.module(path, "", "kernel")
        frame = self._kernel_frames[lookup] = self._sink.frame(module, address, None, "kernel", Trust.KERNEL)
        self._remember(Place(frame, "kernel", path, None, 0, lookup, 0))
        return frame

    def _user_frame(self, word: int, process: Process, program: Program, time_ns: int) -> int:
        marks = word >> _ADDRESS_BITS
        address = ((word & _ADDRESS_MASK) ^ _SIGN) - _SIGN
        # What is looked up of a return address is the call before it (model.stack.Frame.lookup_pc); here the marks say which it is.
        lookup = address if marks & _EXACT else address - 1
        trust = _TRUSTS.get(marks & _TRUST_MASK, Trust.SCAN)
        region = program.find(lookup, time_ns)
        shown = address & (2**64 - 1)
        if region is None:
            return self._sink.frame(None, shown, None, "user", trust)
        if region.file.kind == "anon":
            return self._anonymous(shown, lookup, region, process, trust)
        module, kept = self._module(region, process)
        offset = region.file_offset(address)
        frame = self._sink.frame(module, shown, offset, "user", trust)
        self._remember(Place(frame, region.file.kind, region.file.path, kept, region.file_offset(lookup), lookup, process.pid))
        return frame

    def _anonymous(self, shown: int, lookup: int, region: Region, process: Process, trust: Trust) -> int:
        kind: ModuleKind = "jit" if self._is_jit(process) else "anon"
        # Code made at run time belongs to one process: the path keeps two processes' code at one address apart.
        path = f"/tmp/perf-{process.pid}.map" if kind == "jit" else region.file.path  # noqa: S108 (the name that perf gave it)
        frame = self._sink.frame(self._sink.module(path, "", kind), shown, None, "user", trust)
        self._remember(Place(frame, kind, path, None, 0, lookup, process.pid))
        return frame

    def _module(self, region: Region, process: Process) -> tuple[int, KeptFile | None]:
        identity = region.file
        known = self._modules.get(identity)
        if known is not None and (known[1] is None or known[1].fd is not None):
            return known
        if identity.kind != "file":
            known = (self._sink.module(identity.path, identity.build_id, identity.kind), None)
        else:
            kept = self._files.keep(identity, region, pid=process.pid, parent=process.parent)
            known = (self._sink.module(identity.path, kept.build_id, "file"), kept)
        self._modules[identity] = known
        return known

    def _stop_module(self, address: int, process: Process, program: Program, time_ns: int) -> tuple[str, int | None]:
        if address >> 63:
            return KERNEL, self._sink.module(KERNEL, "", "kernel")
        region = program.find(address, time_ns)
        if region is None:
            return "", None
        path = region.file.path
        if region.file.kind == "anon":
            return path, self._sink.module(path, "", "anon")
        return path, self._module(region, process)[0]


def totals(counters: Mapping[str, int]) -> tuple[int, int]:
    """Samples taken and samples lost, from counters by name: what is lost has a name that is `lost` or begins with `lost-`."""
    lost = sum(value for name, value in counters.items() if name == "lost" or name.startswith("lost-"))
    return counters.get("samples", 0), lost
