"""Every process that was seen, over time: its programs, their mappings, its end; asked for an address at an instant."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from unspool.capture.proc import read_process, running
from unspool.capture.regions import FileIdentity, Region, Space, identity
from unspool.capture.sideband import Event, Exited, Forked, Mapped, Named

GRACE_NS = 30 * 10**9
"""How long an ended process is kept: a sample that was deferred in a system call may be delivered after the end of the thread."""

_SPACES = 4
"""How many programs of one process are kept: a shell's exec chain is short, and only samples in flight ask for the older ones."""


class Process:
    """One process from fork to exit: `start_ns` and `exit_ns` on CLOCK_MONOTONIC; `comm` and `exe` of its newest program."""

    __slots__ = ("comm", "exe", "exit_ns", "known_ns", "parent", "pid", "spaces", "start_ns", "threads")

    def __init__(self, pid: int, start_ns: int, *, parent: int = 0, comm: str = "") -> None:
        """A process without mappings."""
        self.pid = pid
        self.start_ns = start_ns
        self.parent = parent
        self.comm = comm
        self.exe = ""
        self.exit_ns: int | None = None
        # Events up to this instant are already in what /proc said.
        self.known_ns = 0
        self.spaces: list[Space] = [Space(start_ns)]
        self.threads: dict[int, str] = {}

    @property
    def space(self) -> Space:
        """The address space of the newest program."""
        return self.spaces[-1]

    def space_at(self, time_ns: int) -> Space:
        """The address space at that instant; the oldest that is kept when all are younger."""
        for space in reversed(self.spaces):
            if space.since_ns <= time_ns:
                return space
        return self.spaces[0]

    def exec(self, time_ns: int, comm: str) -> None:
        """A new program: nothing of the old one is mapped any more."""
        self.spaces.append(Space(time_ns))
        del self.spaces[:-_SPACES]
        self.comm = comm
        self.exe = ""
        self.threads.clear()

    def __repr__(self) -> str:
        """The process as a message names it."""
        return f"<{self.pid} {self.comm!r} from {self.start_ns}>"


class Processes:
    """All processes, fed with the sideband's events in order of time.

    `watched` limits it to those processes (and, with `follow`, their children); None is every process of the machine.
    """

    def __init__(self, watched: Iterable[int] | None = None, *, follow: bool = True) -> None:
        """A model that knows no process yet; `scan` reads those that run."""
        self._watched = None if watched is None else set(watched)
        self._follow = follow
        self._by_pid: dict[int, list[Process]] = {}
        self._ended: deque[Process] = deque()
        self._files: dict[tuple[object, ...], FileIdentity] = {}

    def scan(self) -> None:
        """Read every watched process that runs now from /proc; called after the sideband's rings were opened, so that nothing falls between."""
        for pid in running() if self._watched is None else sorted(self._watched):
            self.read(pid)

    def read(self, pid: int) -> Process | None:
        """Read one process from /proc and believe that over what was known; None when it is gone."""
        found = read_process(pid)
        if found is None:
            return None
        process = self._newest(pid)
        if process is None or process.exit_ns is not None:
            process = self._add(Process(pid, found.start_ns, parent=found.parent, comm=found.comm))
        elif found.exe and process.exe and found.exe != process.exe:
            process.exec(found.time_ns, found.comm)
        process.known_ns = found.time_ns
        # What is mapped at the first look has been mapped for an unknown time: since the start of the program is the safe answer.
        born = found.time_ns if len(process.space) else process.space.since_ns
        process.comm, process.exe, process.parent = found.comm, found.exe, found.parent
        for mapping in found.mappings:
            file = self._identity(mapping.path, "", mapping.device, mapping.inode, deleted=mapping.deleted)
            process.space.map(Region(mapping.start, mapping.end, mapping.offset, file, born))
        return process

    def find(self, pid: int, time_ns: int) -> Process | None:
        """The process that had this id at that instant; a process not heard of is looked up in /proc, None when it is gone there too."""
        known = self._by_pid.get(pid)
        if not known:
            return self.read(pid)
        for process in reversed(known):
            if process.start_ns <= time_ns:
                return process
        return known[0]

    def apply(self, event: Event) -> None:
        """Take one event; events come in order of time."""
        if isinstance(event, Mapped):
            self._mapped(event)
        elif isinstance(event, Named):
            self._named(event)
        elif isinstance(event, Forked):
            self._forked(event)
        else:
            self._exited(event)

    def forget(self, now_ns: int) -> list[Process]:
        """Drop the processes whose end is longer ago than GRACE_NS; they are given back."""
        dropped = []
        while self._ended and (self._ended[0].exit_ns or 0) + GRACE_NS < now_ns:
            process = self._ended.popleft()
            dropped.append(process)
            same = self._by_pid.get(process.pid, [])
            if process in same:
                same.remove(process)
            if not same:
                self._by_pid.pop(process.pid, None)
        return dropped

    def __iter__(self) -> Iterator[Process]:
        """Every process that is known, ended ones within their grace included."""
        for same in self._by_pid.values():
            yield from same

    def __len__(self) -> int:
        """How many processes are known."""
        return sum(map(len, self._by_pid.values()))

    def is_watched(self, pid: int) -> bool:
        """Whether this process is one of those asked for."""
        return self._watched is None or pid in self._watched

    def _newest(self, pid: int) -> Process | None:
        known = self._by_pid.get(pid)
        return known[-1] if known else None

    def _add(self, process: Process) -> Process:
        self._by_pid.setdefault(process.pid, []).append(process)
        return process

    def _at(self, event: Mapped | Named) -> Process | None:
        """The process of an event, None when the event needs no attention."""
        if not self.is_watched(event.pid):
            return None
        process = self._newest(event.pid)
        if process is None:
            # Its fork was lost or is older than the scan could see: /proc knows more than this event, or the process is gone.
            return self.read(event.pid) or self._add(Process(event.pid, event.time_ns))
        return process if event.time_ns > process.known_ns else None

    def _mapped(self, event: Mapped) -> None:
        process = self._at(event)
        if process is None:
            return
        file = self._identity(event.path, event.build_id, event.device, event.inode, deleted=event.deleted)
        region = Region(event.start, event.start + event.size, event.offset, file, event.time_ns)
        if not process.exe and file.kind == "file":
            process.exe = file.path
        process.space.map(region)

    def _identity(self, path: str, build_id: str, device: tuple[int, int], inode: int, *, deleted: bool) -> FileIdentity:
        key = (path, build_id, device, inode, deleted)
        known = self._files.get(key)
        if known is None:
            known = self._files[key] = identity(path, build_id, device, inode, deleted=deleted)
        return known

    def _named(self, event: Named) -> None:
        process = self._at(event)
        if process is None:
            return
        if event.exec:
            process.exec(event.time_ns, event.name)
        elif event.tid == event.pid:
            process.comm = event.name
        if event.tid != event.pid:
            process.threads[event.tid] = event.name

    def _forked(self, event: Forked) -> None:
        if event.pid == event.parent:
            return
        if self._watched is not None:
            if not self._follow or event.parent not in self._watched:
                return
            self._watched.add(event.pid)
        before = self._newest(event.pid)
        if before is not None and before.known_ns >= event.time_ns:
            return
        if before is not None and before.exit_ns is None:
            self._end(before, event.time_ns)
        parent = self._newest(event.parent)
        child = Process(event.pid, event.time_ns, parent=event.parent)
        if parent is not None:
            child.comm, child.exe = parent.comm, parent.exe
            child.spaces = [parent.space.forked(event.time_ns)]
        self._add(child)

    def _exited(self, event: Exited) -> None:
        process = self._newest(event.pid)
        if process is None:
            return
        if event.tid != event.pid:
            process.threads.pop(event.tid, None)
        elif process.exit_ns is None and event.time_ns > process.start_ns:
            self._end(process, event.time_ns)
            if self._watched is not None and self._follow:
                self._watched.discard(event.pid)

    def _end(self, process: Process, time_ns: int) -> None:
        process.exit_ns = time_ns
        self._ended.append(process)
