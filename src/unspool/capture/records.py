"""The records of the sampler as values: the twin of native/record.h."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from unspool.model.verdict import Judgement, Stop, Trust, Verdict

HEADER = struct.Struct("<IIQQIIIHHQQIBBBBHHI")
FIELDS = (
    *("size", "unread", "time_ns", "start_ns", "pid", "tid", "cpu", "trigger", "flags", "detail", "stop_address", "first_bad_frame"),
    *("stop", "verdict", "reason", "reserved", "n_kernel", "n_user", "space_generation"),
)
"""The names of the header's fields in `struct record`, in order; the addresses follow."""

KERNEL_FRAMES_MAX = 127
DEFERRED_FRAMES_MAX = 4096
RECORD_MAX = HEADER.size + 8 * (KERNEL_FRAMES_MAX + DEFERRED_FRAMES_MAX)

NO_BAD_FRAME = 0xFFFFFFFF
_ADDRESS_BITS = 56
_ADDRESS_MASK = (1 << _ADDRESS_BITS) - 1
_SIGN_BIT = 1 << (_ADDRESS_BITS - 1)
_HIGH_BITS = 0xFF << _ADDRESS_BITS
_TRUST_MASK = 0x0F
_EXACT = 0x10
_SIGNAL = 0x20


class RecordTrigger(enum.IntEnum):
    """What made the sample (`enum trigger`)."""

    NONE = 0
    CPU = 1
    SYSCALL = 2


class RecordFlag(enum.IntFlag):
    """How the sample was taken (`enum record_flag`)."""

    DEFERRED = 1
    COMPAT = 2
    IN_KERNEL = 4
    NOT_RESUMED = 8
    MISSING = 16


@dataclass(frozen=True, slots=True)
class UserFrame:
    """A user frame: `exact` says that the address is the very instruction, not the one after a call."""

    address: int
    trust: Trust
    exact: bool
    signal: bool


@dataclass(frozen=True, slots=True)
class RawSample:
    """One sample as the kernel took it: no address has a file or a name yet. Frames are innermost first; the kernel's are the inner ones.

    `time_ns` is CLOCK_MONOTONIC at the sample, also when the walk was deferred; `start_ns` the process's start in CLOCK_BOOTTIME.
    `detail` is the trigger's own: the number of the system call.
    """

    time_ns: int
    start_ns: int
    pid: int
    tid: int
    cpu: int
    trigger: RecordTrigger
    flags: RecordFlag
    detail: int
    stop: Stop
    stop_address: int
    judgement: Judgement
    kernel: tuple[int, ...]
    user: tuple[UserFrame, ...]


def user_frame(word: int) -> UserFrame:
    """The frame in a record's word: the address in bits 0-55, sign-extended, and the marks above."""
    address = word & _ADDRESS_MASK
    if address & _SIGN_BIT:
        address |= _HIGH_BITS
    marks = word >> _ADDRESS_BITS
    return UserFrame(address, Trust(marks & _TRUST_MASK), bool(marks & _EXACT), bool(marks & _SIGNAL))


def split(data: bytes) -> Iterator[memoryview]:
    """The records in what a drain gave; a record that does not fit ends it, for the kernel writes none."""
    view = memoryview(data)
    offset = 0
    while offset + HEADER.size <= len(view):
        (size,) = struct.unpack_from("<I", view, offset)
        if size < HEADER.size or offset + size > len(view):
            return
        yield view[offset : offset + size]
        offset += size


def sample(record: memoryview | bytes) -> RawSample:
    """The sample of one record."""
    values = dict(zip(FIELDS, HEADER.unpack_from(record), strict=True))
    words = struct.unpack_from(f"<{values['n_kernel'] + values['n_user']}Q", record, HEADER.size)
    bad = values["first_bad_frame"]
    judgement = Judgement(Verdict(values["verdict"]), Stop(values["reason"]), None if bad == NO_BAD_FRAME else bad)
    return RawSample(
        time_ns=values["time_ns"],
        start_ns=values["start_ns"],
        pid=values["pid"],
        tid=values["tid"],
        cpu=values["cpu"],
        trigger=RecordTrigger(values["trigger"]),
        flags=RecordFlag(values["flags"]),
        detail=values["detail"],
        stop=Stop(values["stop"]),
        stop_address=values["stop_address"],
        judgement=judgement,
        kernel=words[: values["n_kernel"]],
        user=tuple(user_frame(word) for word in words[values["n_kernel"] :]),
    )


def samples(data: bytes) -> list[RawSample]:
    """All samples in what a drain gave."""
    return [sample(record) for record in split(data)]
