"""Samples in memory, taken out window by window as profiles: a recording for what is looked at or sent at once, and never stored."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar

from unspool.model.guest import Guest, told_apart
from unspool.model.module import ModuleKind
from unspool.model.symbol import Named, Unnamed
from unspool.model.verdict import Judgement, Stop, Trust
from unspool.profile.arrays import grouped
from unspool.profile.columns import (
    NO_OFFSET,
    NONE,
    About,
    Entries,
    Event,
    Frames,
    Function,
    Module,
    Profile,
    Stacks,
    Task,
    Timed,
)
from unspool.profile.slices import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

MOST_SAMPLES = 1_000_000
"""Samples that wait to be taken at most; 56 bytes each."""

MOST_STACKS, MOST_FRAMES, MOST_THREADS = 100_000, 300_000, 50_000
"""What is remembered at most before everything is begun anew (`Windows.full`)."""

_UNKNOWN = "[unknown]"
_COLUMNS = ("time_ns", "thread", "cpu", "event", "weight", "stack", "vcpu")
_TIME, _THREAD, _CPU, _EVENT, _WEIGHT, _STACK, _VCPU = range(len(_COLUMNS))

T = TypeVar("T", bound=Hashable)
StackRow = tuple[tuple[int, ...], int, Stop, "int | None", Judgement, int]
FrameRow = tuple["int | None", int, "int | None", str, Trust]


class _Rows(Generic[T]):
    """Rows, each once; the number of the first is 1, as in a recording."""

    def __init__(self) -> None:
        self.rows: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, row: T) -> int:
        number = self._numbers.setdefault(row, len(self.rows) + 1)
        if number > len(self.rows):
            self.rows.append(row)
        return number

    def __getitem__(self, number: int) -> T:
        return self.rows[number - 1]

    def __len__(self) -> int:
        return len(self.rows)


class Windows:
    """A sink (`capture.frames.Sink`, `guest_sink.GuestSink`) that keeps everything in memory.

    `dropped` counts the samples that found no room.
    `lost` is what the kernel could not give, by the counters of the last `Recorder.count`.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self.dropped = 0
        self.counters: dict[str, int] = {}
        self._guests: dict[tuple[str, str, int, int, int], Guest] = {}
        self._processes: _Rows[tuple[int, int, str, str | None, str | None, int | None]] = _Rows()
        self._threads: _Rows[tuple[int, int, str]] = _Rows()
        self._modules: _Rows[tuple[str, str, ModuleKind, int | None]] = _Rows()
        self._frames: _Rows[FrameRow] = _Rows()
        self._stacks: _Rows[StackRow] = _Rows()
        self._events: _Rows[Event] = _Rows()
        self._names: dict[int, Named] = {}
        self._samples = array("q")

    @property
    def full(self) -> bool:
        """Whether it is time to begin anew, so that a session of weeks does not fill the memory."""
        return len(self._stacks) > MOST_STACKS or len(self._frames) > MOST_FRAMES or len(self._threads) > MOST_THREADS

    def guest(self, guest: Guest) -> int:
        """The guest between two boots; what is said of its kernel may change, and the last word stays."""
        key = (guest.name, guest.uuid, guest.vmm_pid, guest.vmm_start_ns, guest.generation)
        self._guests[key] = guest
        return list(self._guests).index(key) + 1

    def process(  # noqa: PLR0913 (a row)
        self,
        pid: int,
        start_ns: int,
        comm: str,
        exe: str | None = None,
        parent: int | None = None,
        *,
        cgroup: str | None = None,
        guest: int | None = None,
    ) -> int:
        """A program of a process; nobody here asks for its parent."""
        del parent
        return self._processes.number((pid, start_ns, comm, exe, cgroup, guest))

    def exited(self, process: int, exit_ns: int) -> None:
        """Of no interest here."""

    def thread(self, process: int, tid: int, comm: str) -> int:
        """A thread."""
        return self._threads.number((process, tid, comm))

    def module(self, path: str, build_id: str = "", kind: ModuleKind = "file", *, guest: int | None = None) -> int:
        """A file; without a build id it is another one in each guest."""
        return self._modules.number((path, build_id, kind, None if build_id else guest))

    def frame(self, module: int | None, address: int, offset: int | None, space: str, trust: Trust) -> int:
        """A place in code; in a file it is known by its offset, wherever the file is mapped."""
        return self._frames.number((module, address if offset is None else 0, offset, space, trust))

    def stack(
        self,
        frames: tuple[int, ...],
        kernel_frames: int,
        stop: Stop,
        stop_module: int | None,
        judgement: Judgement,
        *,
        kernel_whole: bool | None = None,
    ) -> int:
        """A stack; `kernel_whole` as `store.writer.Writer.stack` has it."""
        kernel_end = NONE if kernel_whole is None else int(kernel_whole)
        return self._stacks.number((frames, kernel_frames, stop, stop_module, judgement, kernel_end))

    def sample(  # noqa: PLR0913, PLR0917 (a row)
        self,
        time_ns: int,
        process: int,
        thread: int,
        cpu: int,
        trigger: str,
        detail: str,
        weight: int,
        stack: int,
        *,
        vcpu: int | None = None,
    ) -> None:
        """A sample; when nobody takes them any more, the new ones are only counted."""
        del process
        if len(self._samples) >= MOST_SAMPLES * len(_COLUMNS):
            self.dropped += 1
            return
        event = self._events.number(Event(trigger, detail))
        self._samples.extend((time_ns, thread, cpu, event, weight, stack, NONE if vcpu is None else vcpu))

    def counter(self, name: str, value: int) -> None:
        """A total since the start."""
        self.counters[name] = value

    def name(self, frame: int, named: Named) -> None:
        """A frame's names; profiles that are made from now on show them."""
        self._names[frame] = named

    def take(self) -> Window:
        """The samples since the last call."""
        import numpy as np

        rows = np.array(self._samples, dtype=np.int64).reshape(-1, len(_COLUMNS))
        self._samples = array("q")
        return Window(rows)

    def profile(self, windows: Iterable[Window], about: About) -> Profile:
        """The samples of those windows, with `timed`."""
        return _Builder(self, Window.joined(windows)).profile(about)


@dataclass(frozen=True, slots=True)
class Window:
    """Some samples of one `Windows`, a row each; they mean nothing without it."""

    rows: Ints

    def __len__(self) -> int:
        """How many samples."""
        return len(self.rows)

    @staticmethod
    def joined(windows: Iterable[Window]) -> Window:
        """All of them, by time."""
        import numpy as np

        parts = [window.rows for window in windows]
        rows = np.concatenate(parts) if parts else np.zeros((0, len(_COLUMNS)), dtype=np.int64)
        return Window(rows[np.argsort(rows[:, _TIME], kind="stable")])


@dataclass(slots=True)
class _Builder:
    """Makes a profile that holds what the samples use, and nothing else."""

    source: Windows
    window: Window
    functions: _Rows[Function] = field(default_factory=_Rows)
    files: _Rows[str] = field(default_factory=_Rows)
    calls: list[tuple[int, int, int, int, bool]] = field(default_factory=list)

    def profile(self, about: About) -> Profile:
        source, rows = self.source, self.window.rows
        used_stacks, stack = grouped(rows[:, _STACK])
        used_threads, task = grouped(rows[:, _THREAD])
        timed = Timed(
            time_ns=rows[:, _TIME],
            cpu=rows[:, _CPU],
            vcpu=rows[:, _VCPU],
            task=task,
            event=rows[:, _EVENT] - 1,
            stack=stack,
            weight=rows[:, _WEIGHT],
        )
        stacks, used_frames = self._stacks(used_stacks.tolist())
        frames = self._frames(used_frames.tolist())
        return Profile(
            about=about,
            modules=tuple(Module(*row[:3]) for row in source._modules.rows),  # noqa: SLF001 (the same module's)
            functions=tuple(self.functions.rows),
            files=tuple(self.files.rows),
            tasks=tuple(self._task(number) for number in used_threads.tolist()),
            events=tuple(source._events.rows),  # noqa: SLF001
            frames=frames,
            entries=self._entries(),
            stacks=stacks,
            counted=counted(timed),
            timed=timed,
            guests=told_apart(source._guests.values()),  # noqa: SLF001
        )

    def _task(self, number: int) -> Task:
        process, tid, comm = self.source._threads[number]  # noqa: SLF001
        pid, _, name, exe, cgroup, guest = self.source._processes[process]  # noqa: SLF001
        return Task(pid, tid, name, comm, exe or "", cgroup or "", _place(guest))

    def _stacks(self, numbers: list[int]) -> tuple[Stacks, Ints]:
        import numpy as np

        rows = [self.source._stacks[number] for number in numbers]  # noqa: SLF001
        lengths = np.array([len(row[0]) for row in rows], dtype=np.int64)
        flat = np.fromiter(chain.from_iterable(row[0] for row in rows), dtype=np.int64, count=int(lengths.sum()))
        used, places = grouped(flat)
        judgements = [row[4] for row in rows]

        def column(values: list[int]) -> Ints:
            return np.array(values, dtype=np.int64)

        stacks = Stacks(
            start=np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths))),
            frames=places,
            kernel_frames=column([row[1] for row in rows]),
            stop=column([int(row[2]) for row in rows]),
            stop_module=column([_place(row[3]) for row in rows]),
            verdict=column([int(judgement.verdict) for judgement in judgements]),
            reason=column([int(judgement.reason) for judgement in judgements]),
            bad=column([NONE if judgement.first_bad_frame is None else judgement.first_bad_frame for judgement in judgements]),
            kernel_end=column([row[5] for row in rows]),
        )
        return stacks, used

    def _frames(self, numbers: list[int]) -> Frames:
        import numpy as np

        rows = [self.source._frames[number] for number in numbers]  # noqa: SLF001
        start = [0]
        for number, row in zip(numbers, rows, strict=True):
            self._call(number, row)
            start.append(len(self.calls))
        return Frames(
            address=np.array([row[1] for row in rows], dtype=np.uint64),
            offset=np.array([NO_OFFSET if row[2] is None else row[2] for row in rows], dtype=np.uint64),
            module=np.array([_place(row[0]) for row in rows], dtype=np.int64),
            trust=np.array([int(row[4]) for row in rows], dtype=np.int64),
            entry_start=np.array(start, dtype=np.int64),
        )

    def _call(self, number: int, row: FrameRow) -> None:
        """Add the calls behind a frame; one without a name stands as module+offset."""
        module = _place(row[0])
        named = self.source._names.get(number)  # noqa: SLF001
        if named is None or isinstance(named, Unnamed):
            name = _UNKNOWN if module == NONE or row[2] is None else f"{Module(*self.source._modules[module + 1][:3]).name}+{row[2]:#x}"  # noqa: SLF001
            self.calls.append((self.functions.number(Function(name, module, named=False)) - 1, NONE, 0, 0, False))
            return
        for symbol in named:
            function = self.functions.number(Function(symbol.function, module)) - 1
            file = self.files.number(symbol.file) - 1 if symbol.file else NONE
            self.calls.append((function, file, symbol.line or 0, symbol.offset, symbol.inlined))

    def _entries(self) -> Entries:
        import numpy as np

        columns = np.array(self.calls, dtype=np.int64).reshape(-1, 5).T
        return Entries(columns[0], columns[1], columns[2], columns[3], columns[4].astype(bool))


def _place(number: int | None) -> int:
    return NONE if number is None else number - 1
