"""A profile: counted stacks as NumPy columns, beside the tables of what they are made of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from unspool.model.guest import HOST, Guest
from unspool.model.module import ModuleKind
from unspool.model.verdict import Stop, Trust, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

NONE = -1
"""An index that points nowhere: no module, no file, no bad frame."""
NO_USER_STACK = "[no user stack]"
UNKNOWN = "unknown"
"""What is said of an imported profile's frames and stacks where it says nothing itself."""
NO_OFFSET = 2**64 - 1
"""The offset of a frame that lies in no file."""


@dataclass(frozen=True, slots=True)
class Module:
    """A file, the vDSO, the kernel, or anonymous code; `path` as the process saw it."""

    path: str
    build_id: str = ""
    kind: ModuleKind = "file"

    @property
    def name(self) -> str:
        """The last part of the path.

        >>> Module("/usr/lib/libc.so.6").name
        'libc.so.6'
        """
        return self.path.rstrip("/").rpartition("/")[2] or self.path or "[anon]"


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a module (an index into `Profile.modules`, or NONE); an address without a name stands as module+offset."""

    name: str
    module: int = NONE
    named: bool = True


@dataclass(frozen=True, slots=True)
class Task:
    """A thread and its process. `exe` and `cgroup` are empty when they are not known; `guest` is an index into `Profile.guests` or NONE."""

    pid: int
    tid: int
    process: str
    thread: str
    exe: str = ""
    cgroup: str = ""
    guest: int = NONE


@dataclass(frozen=True, slots=True)
class Event:
    """What took a sample: the trigger, and what exactly (a system call's name)."""

    trigger: str
    detail: str = ""

    def __str__(self) -> str:
        """As `record --on` takes it."""
        return f"{self.trigger}:{self.detail}" if self.detail else self.trigger


@dataclass(frozen=True, slots=True)
class Frames:
    """The distinct frames, a row each.

    Frame i is the calls `entry_start[i]:entry_start[i + 1]` of `Entries`, innermost inlined call first.
    """

    address: NDArray[np.uint64]
    offset: NDArray[np.uint64]
    module: Ints
    trust: Ints
    entry_start: Ints


@dataclass(frozen=True, slots=True)
class Entries:
    """The calls behind frames, inlined ones included.

    `function` is an index, `file` an index or NONE, `line` 0 when it is not known, `offset` bytes from the function's start.
    """

    function: Ints
    file: Ints
    line: Ints
    offset: Ints
    inlined: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Stacks:
    """The distinct stacks. Stack i is `frames[start[i]:start[i + 1]]`, innermost first, kernel frames before user frames.

    `stop` and `reason` hold numbers of `Stop`, `verdict` those of `Verdict`; `stop_module` is an index or NONE;
    `bad` is the first user frame not to believe (0 = innermost) or NONE; `kernel_end` is 1 where the kernel's part leads to its entry,
    0 where it does not, NONE where there is none or nothing is known of it.
    """

    start: Ints
    frames: Ints
    kernel_frames: Ints
    stop: Ints
    stop_module: Ints
    verdict: Ints
    reason: Ints
    bad: Ints
    kernel_end: Ints

    def __len__(self) -> int:
        """How many stacks."""
        return len(self.start) - 1

    @property
    def is_whole(self) -> NDArray[np.bool_]:
        """Whether each reaches an accepted end."""
        import numpy as np

        return np.isin(self.stop, [int(stop) for stop in Stop if stop.is_end])

    @property
    def is_kernel(self) -> NDArray[np.bool_]:
        """Whether each was taken in the kernel."""
        return self.kernel_frames > 0


@dataclass(frozen=True, slots=True)
class Counted:
    """How often each stack was seen in each thread by each event: indices, number of samples, and the sum of their weights.

    `vcpu` is the guest's virtual CPU, NONE for samples of the host.
    """

    task: Ints
    event: Ints
    stack: Ints
    vcpu: Ints
    count: Ints
    weight: Ints

    def __len__(self) -> int:
        """How many rows."""
        return len(self.stack)


@dataclass(frozen=True, slots=True)
class Timed:
    """Single samples in order of time (`time_ns` CLOCK_MONOTONIC), for formats that show time.

    `cpu` is NONE when it is not known, `vcpu` for samples of the host.
    """

    time_ns: Ints
    cpu: Ints
    vcpu: Ints
    task: Ints
    event: Ints
    stack: Ints
    weight: Ints

    def __len__(self) -> int:
        """How many samples."""
        return len(self.stack)


@dataclass(frozen=True, slots=True)
class About:
    """Where a profile comes from. Times in nanoseconds: `started_ns` since 1970, `monotonic_ns` the same moment on the samples' clock."""

    hostname: str = ""
    kernel: str = ""
    arch: str = ""
    cpus: int = 0
    started_ns: int = 0
    monotonic_ns: int = 0
    duration_s: float = 0.0
    frequency: float = 0.0
    trigger: str = "cpu"
    command: str = ""
    finished: bool = True
    lost: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)

    @property
    def period_ns(self) -> int:
        """CPU time a sample stands for; 0 when samples count events."""
        return round(1e9 / self.frequency) if self.frequency and self.trigger == "cpu" else 0


@dataclass(frozen=True)
class Profile:
    """Counted stacks, and the tables their columns point into. `timed` is None unless single samples were asked for.

    `guests` are the virtual machines that tasks run in; empty in a recording of the host alone.
    """

    about: About
    modules: tuple[Module, ...]
    functions: tuple[Function, ...]
    files: tuple[str, ...]
    tasks: tuple[Task, ...]
    events: tuple[Event, ...]
    frames: Frames
    entries: Entries
    stacks: Stacks
    counted: Counted
    timed: Timed | None = None
    guests: tuple[Guest, ...] = ()

    @cached_property
    def samples(self) -> int:
        """The number of samples."""
        return int(self.counted.count.sum())

    @cached_property
    def weight(self) -> int:
        """The sum of their weights."""
        return int(self.counted.weight.sum())

    def module_name(self, index: int) -> str:
        """The short name of a module; empty for NONE."""
        return "" if index == NONE else self.modules[index].name

    def guest_of(self, task: Task) -> Guest | None:
        """The guest a task runs in; None on the host."""
        return None if task.guest == NONE else self.guests[task.guest]

    def machine_name(self, task: Task) -> str:
        """The guest's name as the user sees it; HOST for a task of this host."""
        guest = self.guest_of(task)
        return HOST if guest is None else guest.label

    def kernel_of(self, task: Task) -> str:
        """The release of the kernel a task runs on; empty when it is not known."""
        guest = self.guest_of(task)
        return self.about.kernel if guest is None else guest.kernel_release

    def mark(self, stack: int) -> str:
        """What stands at the root of a stack that cannot be taken as it is; empty for a whole one that nothing speaks against."""
        stacks = self.stacks
        stop, reason = Stop(int(stacks.stop[stack])), Stop(int(stacks.reason[stack]))
        return mark(stop, self.module_name(int(stacks.stop_module[stack])), Verdict(int(stacks.verdict[stack])), reason)

    def keep(self, stacks: NDArray[np.bool_]) -> Profile:
        """The samples whose stack is marked in `stacks`."""
        rows = stacks[self.counted.stack]
        counted = Counted(*(getattr(self.counted, name)[rows] for name in Counted.__slots__))
        if self.timed is None:
            return replace(self, counted=counted)
        moments = stacks[self.timed.stack]
        return replace(self, counted=counted, timed=Timed(*(getattr(self.timed, name)[moments] for name in Timed.__slots__)))


def ending_of(stop: Stop) -> str:
    """Whole, cut, none, or unknown for the stack of a profile that does not say where its stacks end."""
    return UNKNOWN if stop is Stop.NONE else stop.ending


def trust_label(trust: int) -> str:
    """The word for a number of `Frames.trust`."""
    return UNKNOWN if trust == NONE else Trust(trust).label


def mark(stop: Stop, module: str = "", verdict: Verdict = Verdict.NONE, reason: Stop = Stop.NONE) -> str:
    """The words for why a stack cannot be taken as it is; empty for a whole one that nothing speaks against.

    >>> mark(Stop.NO_UNWIND_INFO, "libfoo.so")
    '[cut: no-unwind-info in libfoo.so]'
    >>> mark(Stop.EXITED)
    '[no user stack: exited]'
    >>> mark(Stop.END_PROCESS_ENTRY, verdict=Verdict.UNRELIABLE, reason=Stop.HEURISTIC_USED)
    '[unreliable: heuristic-used]'
    """
    if stop.ending == "none":
        return NO_USER_STACK if stop is Stop.NO_USER_STACK else f"{NO_USER_STACK[:-1]}: {stop.label}]"
    if not stop.is_end and stop is not Stop.NONE:
        return f"[cut: {stop.label} in {module}]" if module else f"[cut: {stop.label}]"
    return f"[unreliable: {reason.label}]" if verdict is Verdict.UNRELIABLE else ""
