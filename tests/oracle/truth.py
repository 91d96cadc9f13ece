"""What the stepper (stepper.c, emulated.py) wrote: sampled states of a program, each with the true list of its pending return points."""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from oracle.image import Disk, Files, ImageMemory

from unspool.formats.proc_maps import parse_maps
from unspool.model.arch import X86_64, Arch
from unspool.model.memory import Bytes
from unspool.model.module import AddressSpace
from unspool.model.registers import Registers
from unspool.model.thread import Birth, EntryPoints, Thread

_HEAD = struct.Struct("<II")
_STATE_HEAD = struct.Struct("<QQII")
_STATE_COUNTS = struct.Struct("<III")
_RUN = struct.Struct("<QI")
_PAGE = 4096


Records = Callable[[], Iterator[tuple[int, bytes]]]
"""Gives the records from the first one on, as often as it is called."""


class Kind(enum.IntEnum):
    """What put an entry on the list (`enum kind` of pending.h)."""

    CALL = 1
    SIGNAL = 2
    RESTORER = 3
    COROUTINE = 4
    LANDING = 5
    URETPROBE = 6
    NOTHING = 7


class Record(enum.IntEnum):
    """Types of records (`enum record` of records.h)."""

    HEADER = 1
    MAPS = 2
    ENTRY = 3
    FATE = 4
    STATE = 5
    END = 6
    HITS = 7
    VDSO = 8
    BIRTH = 9


class Flag(enum.IntFlag):
    """Why a state was taken, whether a jump was under way in it, and whether the sampler in the kernel was triggered there."""

    UNIFORM = 1
    IN_JUMP = 2
    PER_PC = 4
    ENTERED = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """A pending return point: the address after the call (or the interrupted pc) and the stack word that holds it."""

    ra: int
    slot: int
    kind: Kind

    @property
    def is_address(self) -> bool:
        """Whether it stands for code that will run on: not a handler's return to the signal trampoline."""
        return self.kind not in {Kind.RESTORER, Kind.NOTHING}

    @property
    def exact(self) -> bool:
        """Whether `ra` is the very instruction, not the one after a call."""
        return self.kind in {Kind.SIGNAL, Kind.COROUTINE, Kind.LANDING}


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of an entry that did not stay pending."""

    returned: bool
    landing: int = 0
    outermost: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """One thread at one instant. `entries` are ids, innermost first."""

    step: int
    time_ns: int
    tid: int
    flags: Flag
    registers: Registers
    entries: tuple[int, ...]
    stack: tuple[Bytes, ...]
    space: AddressSpace
    birth: Birth | None = None


@dataclass(slots=True)
class Run:
    """One stepped program: everything but the states, which `states` reads again from the records."""

    records: Records
    files: Files = field(default_factory=Disk)
    arch: Arch = X86_64
    ends: EntryPoints = field(default_factory=EntryPoints)
    entries: dict[int, Entry] = field(default_factory=dict)
    fates: dict[int, Fate] = field(default_factory=dict)
    hits: dict[int, int] = field(default_factory=dict)
    vdso: Bytes | None = None
    steps: int = 0
    skipped: int = 0
    lost_jumps: int = 0
    _memories: dict[int, StateMemory] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, arch: Arch = X86_64) -> Run:
        """Everything that later records say about earlier states."""
        return cls.of(partial(read_records, path), arch=arch)

    @classmethod
    def of(cls, records: Records, files: Files | None = None, arch: Arch = X86_64) -> Run:
        """The run that such records tell of."""
        run = cls(records, files or Disk(), arch)
        for kind, payload in records():
            run._take(kind, payload)
        return run

    def _take(self, kind: int, payload: bytes) -> None:
        match kind:
            case Record.ENTRY:
                number, ra, slot, what = struct.unpack("<QQQI", payload)
                self.entries[number] = Entry(ra, slot, Kind(what))
            case Record.FATE:
                number, landing, fate, outermost = struct.unpack("<QQII", payload)
                self.fates[number] = Fate(fate == 1, landing, bool(outermost))
            case Record.HEADER:
                entry, interpreter, sp = struct.unpack("<QQQ", payload)
                self.ends = EntryPoints(entry or None, interpreter or None, sp)
            case Record.VDSO:
                self.vdso = Bytes(struct.unpack_from("<Q", payload)[0], payload[8:])
            case Record.HITS:
                self.hits = dict(struct.iter_unpack("<QQ", payload))  # type: ignore[arg-type]
            case Record.END:
                self.steps, _, self.skipped, _, self.lost_jumps = struct.unpack("<5Q", payload)
            case _:
                pass

    def states(self) -> Iterator[State]:
        """Every state in the order of its step."""
        space = AddressSpace.of(())
        known = KnownPages()
        births: dict[int, Birth] = {}
        for kind, payload in self.records():
            if kind == Record.MAPS:
                space = parse_maps(payload)
            elif kind == Record.BIRTH:
                tid, *birth = struct.unpack("<4Q", payload)
                births[tid] = Birth(*birth)
            elif kind == Record.STATE:
                state = _state(payload, space, known, self.arch)
                yield replace(state, birth=births.get(state.tid))

    def forget_memories(self) -> None:
        """Read files again from now on: `files` was changed."""
        self._memories.clear()

    def thread(self, state: State) -> Thread:
        """The state as every unwinder takes it.

        Its memory shows the state that was asked for last: one memory for all states, so that unwinders keep what they know of the code.
        """
        memory = self._memories.get(id(state.space))
        if memory is None or memory.image.space is not state.space:
            memory = self._memories[id(state.space)] = StateMemory(ImageMemory(state.space, self.vdso, self.files))
        memory.stack = state.stack
        return Thread(state.registers, memory, state.space, self.ends, birth=state.birth)


class StateMemory:
    """The memory of one state: its stack, and the files that are mapped."""

    def __init__(self, image: ImageMemory) -> None:
        """Show the files; the stack is set for each state."""
        self.image = image
        self.stack: tuple[Bytes, ...] = ()

    def read(self, address: int, size: int) -> bytes | None:
        """The stack's bytes, else the files'."""
        for part in self.stack:
            data = part.read(address, size)
            if data is not None:
                return data
        return self.image.read(address, size)


class KnownPages:
    """The stack bytes that states up to now have told of, by page."""

    def __init__(self) -> None:
        """Know nothing."""
        self._pages: dict[int, bytearray] = {}

    def write(self, address: int, data: bytes) -> None:
        """Take changed bytes."""
        at = 0
        while at < len(data):
            page, offset = divmod(address + at, _PAGE)
            part = data[at : at + _PAGE - offset]
            self._pages.setdefault(page, bytearray(_PAGE))[offset : offset + len(part)] = part
            at += len(part)

    def read(self, start: int, end: int) -> Bytes:
        """The bytes of a range."""
        first, last = start // _PAGE, (end - 1) // _PAGE
        data = b"".join(bytes(self._pages.get(page, bytes(_PAGE))) for page in range(first, last + 1))
        return Bytes(start, data[start - first * _PAGE : end - first * _PAGE])


def read_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """The records of a file; one that was cut off ends them."""
    with path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            kind, size = _HEAD.unpack(head)
            payload = file.read(size)
            if len(payload) < size:
                return
            yield kind, payload


def register_numbers(arch: Arch) -> range:
    """The DWARF numbers of the registers that a state holds, before the pc and the thread pointer."""
    return range(16) if arch is X86_64 else range(32)


def _state(payload: bytes, space: AddressSpace, known: KnownPages, arch: Arch) -> State:
    step, time_ns, tid, flags = _STATE_HEAD.unpack_from(payload)
    count = len(register_numbers(arch)) + 2
    *values, pc, thread_pointer = struct.unpack_from(f"<{count}Q", payload, _STATE_HEAD.size)
    at = _STATE_HEAD.size + 8 * count
    entries, ranges, runs = _STATE_COUNTS.unpack_from(payload, at)
    at += _STATE_COUNTS.size
    ids = struct.unpack_from(f"<{entries}Q", payload, at)
    at += 8 * entries
    bounds = struct.unpack_from(f"<{2 * ranges}Q", payload, at)
    at += 16 * ranges
    for _ in range(runs):
        address, size = _RUN.unpack_from(payload, at)
        at += _RUN.size
        known.write(address, payload[at : at + size])
        at += size
    stack = tuple(known.read(low, high) for low, high in _pairs(bounds))
    registers = Registers(arch, pc, dict(enumerate(values)), thread_pointer if arch is X86_64 else None)
    return State(step, time_ns, tid, Flag(flags), registers, ids, stack, space)


def _pairs(values: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(values[::2], values[1::2], strict=True)
