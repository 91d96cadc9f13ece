"""Walks threads with the C library: the model's thread in, the model's stack out; the same frames, stop and verdict as `unspool.unwind`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Self

from unspool.model.arch import X86_64
from unspool.model.memory import Memory
from unspool.model.module import AddressSpace
from unspool.model.stack import Frame, Stack
from unspool.model.thread import Birth, Thread
from unspool.model.verdict import PROOFS, Judgement, Stop, Trust, Verdict
from unspool.native import structures
from unspool.native.judgement import judge
from unspool.native.library import load

MAX_FRAMES = 1 << 18
"""Frames of one stack at most, where nothing else is asked for: more than fit the largest usual stack (8 MiB)."""

_FIRST_ROOM = 512
_GROWTH = 8


class Walker:
    """Walks threads of one address space and keeps what it learned of their code; close it, or use it in a `with` statement.

    Memory is read anew for every walk. When the thread's memory has an attribute `pid`, the library reads the process itself.
    """

    def __init__(self, thread: Thread, methods: frozenset[Trust] = PROOFS) -> None:
        """Open a context for the thread's address space; Unsupported when the library is not built.

        `methods`: the unwind data that may be used, of SFRAME (asked first) and CFI.
        """
        self.methods = methods
        self._library = load()
        self._space = thread.space
        self._ends = thread.ends
        self._memory = thread.memory
        self._pid: int | None = getattr(thread.memory, "pid", None)
        self._room = _FIRST_ROOM
        mappings = _mappings(thread.space)
        ends = structures.Ends(thread.ends.process or 0, thread.ends.interpreter or 0, thread.ends.initial_sp or 0)
        self._context: int | None = self._library.unspool_open(mappings, len(mappings), ctypes.byref(ends))
        if self._context is None:
            raise MemoryError
        self._library.unspool_use_methods(self._context, sum(_METHODS[method] for method in methods))
        # The function object must live as long as the context that calls it.
        self._failures: list[BaseException] = []
        self._reader = structures.READER(_reader(thread.memory, self._failures))
        if self._pid is None:
            self._library.unspool_use_reader(self._context, self._reader, None)
        else:
            self._library.unspool_use_process(self._context, self._pid)

    def serves(self, thread: Thread) -> bool:
        """Whether the thread is of this walker's address space, at the same generation, with memory from the same source."""
        same_memory = thread.memory is self._memory or (self._pid is not None and getattr(thread.memory, "pid", None) == self._pid)
        return self._context is not None and same_memory and thread.space is self._space and thread.ends == self._ends

    def walk(self, thread: Thread, max_frames: int = MAX_FRAMES) -> Stack:
        """The thread's stack with its verdict; ValueError when max_frames < 1."""
        if max_frames < 1:
            message = f"max_frames is {max_frames}, and a stack has at least one frame"
            raise ValueError(message)
        if thread.kernel_thread:
            return Stack((), Stop.NO_USER_STACK, Judgement(Verdict.NONE, Stop.NO_USER_STACK))
        if thread.registers.arch is not X86_64:
            return Stack((), Stop.UNSUPPORTED_RULE, Judgement(Verdict.UNRELIABLE, Stop.UNSUPPORTED_RULE, 0), "the C walk knows x86-64 only")
        self._library.unspool_forget(self._context)
        birth = thread.birth or _UNKNOWN
        self._library.unspool_use_birth(self._context, birth.ip, birth.sp, birth.creator_sp)
        given = _thread(thread)
        while True:
            room = min(max_frames, self._room)
            result = structures.Stack(frames=(structures.Frame * room)(), capacity=room)
            self._library.unspool_walk(self._context, ctypes.byref(given), ctypes.byref(result))
            if self._failures:
                raise self._failures.pop()
            if result.stop != Stop.FRAME_LIMIT or room == max_frames:
                break
            self._room *= _GROWTH
        frames = tuple(_frame(result.frames[index]) for index in range(result.count))
        stop = Stop(result.stop)
        reason = None if result.verdict == Verdict.RELIABLE else (result.first_bad_frame, Stop(result.reason))
        return Stack(frames, stop, judge(frames, stop, reason, thread), _detail(stop, result.stop_address, max_frames))

    def close(self) -> None:
        """Give the context's memory back."""
        if self._context is not None:
            self._library.unspool_close(self._context)
            self._context = None

    def __enter__(self) -> Self:
        """The walker."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """Close it when nobody did."""
        if getattr(self, "_context", None) is not None:
            self.close()


_METHODS = {Trust.SFRAME: 1, Trust.CFI: 2}
"""`enum method` of native/walk_state.h."""

_UNKNOWN = Birth(0, 0, 0)

_last: list[Walker] = []


def walk(thread: Thread, *, max_frames: int = MAX_FRAMES, methods: frozenset[Trust] = PROOFS) -> Stack:
    """The thread's stack with its verdict, walked by the C library; what was learned of the last address space is kept for the next call.

    `methods`: the unwind data that may be used, of SFRAME (asked first) and CFI.
    Unsupported when the library is not built, ValueError when max_frames < 1.
    """
    walker = _last.pop() if _last else None
    if walker is None or walker.methods != methods or not walker.serves(thread):
        if walker is not None:
            walker.close()
        walker = Walker(thread, methods)
    try:
        return walker.walk(thread, max_frames)
    finally:
        _last.append(walker)


def _reader(memory: Memory, failures: list[BaseException]) -> Callable[[int | None, int, int, int], int]:
    """The memory as unspool_read; what it raises ends the reads and is raised again behind the C code, which exceptions cannot cross."""

    def read(_user: int | None, address: int, to: int, size: int) -> int:
        if failures:
            return 1
        try:
            data = memory.read(address, size)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)
            return 1
        if data is None or len(data) != size:
            return 1
        ctypes.memmove(to, data, size)
        return 0

    return read


def _mappings(space: AddressSpace) -> ctypes.Array[structures.Mapping]:
    files: dict[tuple[str, int, tuple[int, int]], int] = {}
    mappings = tuple(space)
    array = (structures.Mapping * len(mappings))()
    for to, mapping in zip(array, mappings, strict=True):
        to.start, to.end, to.offset = mapping.start, mapping.end, mapping.offset
        if mapping.kind == "file":
            to.file = files.setdefault((mapping.path, mapping.inode, mapping.device), len(files) + 1)
        to.flags = _flags(
            (structures.WRITABLE, mapping.writable),
            (structures.EXECUTABLE, mapping.executable),
            (structures.VDSO, mapping.kind == "vdso"),
            (structures.UPROBES, mapping.path == "[uprobes]"),
        )
    return array


def _flags(*flags: tuple[int, bool]) -> int:
    return sum(flag for flag, is_set in flags if is_set)


def _thread(thread: Thread) -> structures.Thread:
    registers = thread.registers
    given = structures.Thread(ip=registers.pc, thread_pointer=registers.thread_pointer or 0)
    for number, value in registers.values.items():
        if number < len(given.values):
            given.values[number] = value
            given.known |= 1 << number
    if thread.original_returns is not None:
        given.original_count = len(thread.original_returns)
        given.original_returns = _words(thread.original_returns)
    return given


def _words(values: Iterable[int]) -> ctypes.Array[ctypes.c_uint64]:
    words = tuple(values)
    return (ctypes.c_uint64 * (len(words) or 1))(*words)


def _frame(frame: structures.Frame) -> Frame:
    flags = frame.flags
    cfa = frame.cfa if flags & structures.CFA else None
    return Frame(frame.ip, frame.sp, Trust(frame.trust), bool(flags & structures.EXACT), cfa, bool(flags & structures.SIGNAL))


def _detail(stop: Stop, address: int, max_frames: int) -> str:
    if stop is Stop.FRAME_LIMIT:
        return f"{max_frames} frames were asked for"
    return "" if stop.is_end or not address else f"at {address:#x}"
