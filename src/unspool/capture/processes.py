"""Every process that was seen, over time: its programs, their mappings, its end; asked for an address at an instant."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator

from unspool.capture.proc import control_group, read_process, running
from unspool.capture.regions import FileIdentity, Region, Space, identity
from unspool.capture.sideband import Event, Exited, Forked, Mapped, Named

GRACE_NS = 5 * 10**9
"""How long an ended process is kept: its last samples may still wait in the kernel's ring."""

SAME_START_NS = 50 * 10**6
"""How far two statements of a process's start may differ: /proc counts in ticks of 10 ms, a fork event comes a moment after the start."""

_ANCESTORS = 16
"""How far up a control group is looked for when processes are gone."""

_PROGRAMS = 4
"""How many programs of one process are kept: a shell's exec chain is short, and only samples in flight ask for the older ones."""


class Program(Space):
    """What a process runs from one exec to the next: its names and its address space.

    `row` and `thread_rows` are where the recorder notes under which numbers the program and its threads were stored; 0 is none.
    """

    __slots__ = ("comm", "exe", "row", "thread_rows", "threads")

    def __init__(self, since_ns: int, comm: str, exe: str = "") -> None:
        """A program without mappings."""
        super().__init__(since_ns)
        self.comm = comm
        self.exe = exe
        self.threads: dict[int, str] = {}
        self.row = 0
        self.thread_rows: dict[int, int] = {}

    def rename(self, comm: str) -> None:
        """The process's first thread has another name now."""
        if comm != self.comm:
            self.comm = comm
            self.row = 0
            self.thread_rows.clear()

    def rename_thread(self, tid: int, name: str) -> None:
        """A thread has this name now."""
        self.threads[tid] = name
        self.thread_rows.pop(tid, None)


class Process:
    """One process from fork to exit; `start_ns` and `exit_ns` on CLOCK_MONOTONIC. `cgroup` is None until somebody asked for it."""

    __slots__ = ("cgroup", "exit_ns", "known_ns", "parent", "pid", "programs", "start_ns")

    def __init__(self, pid: int, start_ns: int, *, parent: int = 0, comm: str = "") -> None:
        """A process without mappings."""
        self.pid = pid
        self.start_ns = start_ns
        self.parent = parent
        self.exit_ns: int | None = None
        self.cgroup: str | None = None
        # Events up to this instant are already in what /proc said.
        self.known_ns = 0
        self.programs: list[Program] = [Program(start_ns, comm)]

    @property
    def program(self) -> Program:
        """The newest program."""
        return self.programs[-1]

    @property
    def in_exec(self) -> bool:
        """Whether a new program was announced, and nothing of it mapped yet.

        The kernel tells of an exit here that is none: it stops the perf events of a thread that executes a set-user-ID program, or one that
        it may not read, and reports the thread dead to everybody (begin_new_exec() and perf_event_exit_task(), Linux 6.18).
        """
        return len(self.programs) > 1 and not len(self.program)

    def program_at(self, time_ns: int) -> Program:
        """The program that ran at that instant; the oldest that is kept when all are younger."""
        for program in reversed(self.programs):
            if program.since_ns <= time_ns:
                return program
        return self.programs[0]

    def exec(self, time_ns: int, comm: str) -> None:
        """A new program: nothing of the old one is mapped any more."""
        self.programs.append(Program(time_ns, comm))
        del self.programs[:-_PROGRAMS]

    def __repr__(self) -> str:
        """The process as a message names it."""
        return f"<{self.pid} {self.program.comm!r} from {self.start_ns}>"


class Processes:
    """All processes, fed with the sideband's events in order of time.

    `watched` limits it to those processes (and, with `follow`, their children); None is every process of the machine.
    """

    def __init__(self, watched: Iterable[int] | None = None, *, follow: bool = True) -> None:
        """A model that knows no process yet; `scan` reads those that run. `new_files` grows with every file's first mapping."""
        self._watched = None if watched is None else set(watched)
        self._follow = follow
        self._by_pid: dict[int, list[Process]] = {}
        self._ended: deque[Process] = deque()
        self._files: dict[tuple[object, ...], FileIdentity] = {}
        self.new_files: list[tuple[FileIdentity, Region, Process]] = []

    def scan(self) -> None:
        """Read every watched process that runs now from /proc; called after the sideband's rings were opened: nothing falls between."""
        for pid in running() if self._watched is None else sorted(self._watched):
            self.read(pid)

    def read(self, pid: int) -> Process | None:
        """Read one process from /proc and believe that over what was known; None when it is gone."""
        found = read_process(pid)
        if found is None:
            return None
        process = self.newest(pid)
        if process is not None and abs(process.start_ns - found.start_ns) >= SAME_START_NS:
            if process.exit_ns is None:
                self._end(process, found.time_ns)
            process = None
        if process is None:
            process = self._add(Process(pid, found.start_ns, parent=found.parent, comm=found.comm))
        elif found.exe and process.program.exe and found.exe != process.program.exe:
            process.exec(found.time_ns, found.comm)
        program = process.program
        # What is mapped at the first look has been mapped for an unknown time: since the start of the program is the safe answer.
        born = found.time_ns if len(program) else program.since_ns
        process.known_ns, process.parent, program.exe = found.time_ns, found.parent, found.exe or program.exe
        program.rename(found.comm)
        for mapping in found.mappings:
            file = self._identity(mapping.path, "", mapping.device, mapping.inode, deleted=mapping.deleted)
            program.map(Region(mapping.start, mapping.end, mapping.offset, file, born))
        return process

    def find(self, pid: int, start_ns: int) -> Process:
        """The process with this id that was started then (CLOCK_MONOTONIC); one not heard of is looked up in /proc.

        When it is gone there too it is given without mappings, and stays known as that.
        """
        known = self._by_pid.get(pid, ())
        best = min(known, key=lambda process: abs(process.start_ns - start_ns), default=None)
        if best is not None and abs(best.start_ns - start_ns) < SAME_START_NS:
            return best
        read = self.read(pid)
        if read is not None and abs(read.start_ns - start_ns) < SAME_START_NS:
            return read
        process = Process(pid, start_ns)
        # Not the newest: events that come are about a younger process, or there are none.
        self._by_pid.setdefault(pid, []).insert(0, process)
        self._end(process, time.monotonic_ns())
        return process

    def newest(self, pid: int) -> Process | None:
        """The youngest process with this id, None when none was heard of."""
        known = self._by_pid.get(pid)
        return known[-1] if known else None

    def cgroup(self, process: Process) -> str:
        """The control group it was in when this was first asked; one that is gone has its parent's; empty when neither is known.

        Asked at a process's first sample, not at its fork: most processes have none, and their parents move them a moment after the fork.
        """
        if process.cgroup is None:
            process.cgroup = self._cgroup(process)
        return process.cgroup

    def _cgroup(self, process: Process | None) -> str:
        for _ in range(_ANCESTORS):
            if process is None:
                break
            found = process.cgroup or (control_group(process.pid) if process.exit_ns is None else None)
            if found:
                return found
            process = self.newest(process.parent)
        return ""

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

    def _add(self, process: Process) -> Process:
        self._by_pid.setdefault(process.pid, []).append(process)
        return process

    def _at(self, event: Mapped | Named) -> Process | None:
        """The process of an event, None when the event needs no attention."""
        if self._watched is not None and event.pid not in self._watched:
            return None
        process = self.newest(event.pid)
        if process is None:
            # Its fork was lost or is older than the scan could see: /proc knows more than this event, or the process is gone.
            return self.read(event.pid) or self._add(Process(event.pid, event.time_ns))
        return process if event.time_ns > process.known_ns else None

    def _mapped(self, event: Mapped) -> None:
        process = self._at(event)
        if process is None:
            return
        known = len(self._files)
        file = self._identity(event.path, event.build_id, event.device, event.inode, deleted=event.deleted)
        region = Region(event.start, event.start + event.size, event.offset, file, event.time_ns)
        if len(self._files) > known and file.kind == "file":
            self.new_files.append((file, region, process))
        program = process.program
        # The kernel maps the program first, then its interpreter (load_elf_binary() in fs/binfmt_elf.c).
        if not program.exe and file.kind == "file":
            program.exe = file.path
        program.map(region)

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
            process.program.rename(event.name)
        else:
            process.program.rename_thread(event.tid, event.name)

    def _forked(self, event: Forked) -> None:
        if event.pid == event.parent:
            return
        if self._watched is not None:
            if not self._follow or event.parent not in self._watched:
                return
            self._watched.add(event.pid)
        before = self.newest(event.pid)
        if before is not None and before.known_ns >= event.time_ns:
            return
        if before is not None and before.exit_ns is None:
            self._end(before, event.time_ns)
        parent = self.newest(event.parent)
        child = Process(event.pid, event.time_ns, parent=event.parent)
        if parent is not None:
            program = parent.program_at(event.time_ns)
            child.program.comm, child.program.exe = program.comm, program.exe
            child.program.inherit(program)
        self._add(child)

    def _exited(self, event: Exited) -> None:
        process = self.newest(event.pid)
        if process is None:
            return
        if event.tid != event.pid:
            process.program.threads.pop(event.tid, None)
            process.program.thread_rows.pop(event.tid, None)
        elif process.exit_ns is None and event.time_ns > process.start_ns and not process.in_exec:
            self._end(process, event.time_ns)
            if self._watched is not None and self._follow:
                self._watched.discard(event.pid)

    def _end(self, process: Process, time_ns: int) -> None:
        process.exit_ns = time_ns
        self._ended.append(process)
