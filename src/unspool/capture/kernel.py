"""The sampler in the kernel: loads the BPF programs, attaches them, takes their records."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from unspool.capture.counters import Counter
from unspool.capture.records import RECORD_MAX, RecordTrigger
from unspool.capture.request import Request
from unspool.errors import NotPermitted, UnspoolError, Unsupported
from unspool.model.verdict import Trust

if TYPE_CHECKING:
    from unspool.capture.frame_sections import FrameSections

NATIVE = Path(__file__).resolve().parent.parent / "native"
LIBRARY, OBJECT = NATIVE / "_unspool.so", NATIVE / "sampler.bpf.o"

BATCH_BYTES = 1 << 20
"""What one drain gives at most."""

CONFIG = struct.Struct("<12I8Q")
"""`struct sampler_config` of native/capture.h."""

METHODS = {Trust.SFRAME: 1, Trust.CFI: 2}
"""`enum method` of native/walk_state.h."""

_SYSCALLS_MAX = 512
_FILTER_NONE, _FILTER_TASKS = 0, 1
_TARGET_PROCESS, _TARGET_THREAD = 1, 2
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""The inode number of the machine's first PID namespace (include/linux/proc_ns.h, PROC_PID_INIT_INO)."""

_LOG_LINES = 12
_UNREAD_MAX = 16


class _UnreadFile(ctypes.Structure):
    """`struct unread_file` of native/capture.h."""

    _fields_ = (("key", ctypes.c_uint32), ("pid", ctypes.c_uint32), ("address", ctypes.c_uint64))


class Sampler:
    """The loaded programs, sampling from `start` to `stop`. Nothing stays in the kernel after `close`, nor after the process's end."""

    def __init__(self, request: Request) -> None:
        """Load the programs; NotPermitted, or Unsupported with the kernel's words."""
        self.request = request
        self._library = library()
        self._buffer = ctypes.create_string_buffer(max(BATCH_BYTES, RECORD_MAX))
        self._handle = self._load()
        try:
            for pid in request.pids:
                self.watch(pid)
            for tid in request.tids:
                self.watch(tid, thread=True)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Begin to take samples; NotPermitted or Unsupported."""
        if self.request.trigger.kind == "syscalls":
            answer = self._call("start_syscalls")
        else:
            answer = self._call("start_cpu", self.request.frequency, int(self.request.hardware))
        if answer:
            raise self._failure(-answer)

    @property
    def is_hardware(self) -> bool:
        """Whether the trigger `cpu` runs on the hardware's cycle counter."""
        return bool(self._call("is_hardware"))

    @property
    def pending(self) -> int:
        """How many samples wait for their deferred walk."""
        return int(self._call("pending"))

    def watch(self, number: int, *, thread: bool = False, on: bool = True) -> None:
        """Add a process (or thread) to those that are sampled, or take it away; of no use when everything is sampled."""
        kind = _TARGET_THREAD if thread else _TARGET_PROCESS
        answer = self._call("watch", kind, number, int(on))
        if answer and not (not on and answer == -errno.ENOENT):
            raise self._failure(-answer)

    def drain(self) -> bytes:
        """Whole records, as many as came since the last drain or as one call can give (about a megabyte); none: b""."""
        size = self._call("drain", self._buffer, len(self._buffer))
        if size < 0:
            raise self._failure(-size)
        data = ctypes.string_at(self._buffer, size)
        self._frame_sections.teach(self)
        return data

    def unread(self) -> list[tuple[int, int, int]]:
        """Files of the last drain whose unwind data was not found: key, process, address in the code."""
        files = (_UnreadFile * _UNREAD_MAX)()
        number = self._call("unread", files)
        return [(file.key, file.pid, file.address) for file in files[:number]]

    def frame_section(self, key: int, start: int, end: int) -> None:
        """Tell the kernel's walk where a file has its .eh_frame (Svma); a full table is no error, the file stays as it was."""
        self._call("frame_section", key, start, end)

    def counters(self) -> dict[str, int]:
        """What was counted since the programs were loaded, by label (`counters.Counter`)."""
        values = (ctypes.c_uint64 * len(Counter))()
        answer = self._call("counters", values, len(Counter))
        if answer:
            raise self._failure(-answer)
        return {counter.label: int(values[counter]) for counter in Counter}

    def stop(self) -> None:
        """Take no more samples."""
        self._call("stop")

    def flush(self) -> None:
        """Emit what is known of samples whose deferred walk has not run; call it after `stop` and before the last `drain`."""
        answer = self._call("flush")
        if answer:
            raise self._failure(-answer)

    def close(self) -> None:
        """Unload everything."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._library.unspool_sampler_close(handle)

    def __enter__(self) -> Self:
        """Give the loaded sampler."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Unload everything."""
        self.close()

    @functools.cached_property
    def _frame_sections(self) -> FrameSections:
        # What reads files is loaded at the first drain: nobody waits for the first sample then.
        from unspool.capture.frame_sections import FrameSections

        return FrameSections()

    def _load(self) -> ctypes.c_void_p | None:
        try:
            code = OBJECT.read_bytes()
        except OSError:
            raise _not_built(OBJECT) from None
        handle = self._library.unspool_sampler_load(code, len(code), configuration(self.request), self.request.ring_bytes)
        if not handle:
            raise self._failure(ctypes.get_errno())
        return ctypes.c_void_p(handle)

    def _call(self, name: str, *arguments: object) -> int:
        if self._handle is None:
            message = "the sampler is closed"
            raise ValueError(message)
        answer = getattr(self._library, f"unspool_sampler_{name}")(self._handle, *arguments)
        return answer or 0

    def _failure(self, number: int) -> UnspoolError:
        words = self._library.unspool_sampler_error().decode("utf-8", "replace").strip().splitlines()
        return failure(number, words)


def failure(number: int, log: list[str]) -> UnspoolError:
    """The error for an errno and what libbpf and the verifier said."""
    # The verifier says EACCES of a program that it does not accept.
    if number == errno.EPERM or (number == errno.EACCES and os.geteuid() != 0):
        return NotPermitted("the kernel does not permit to load the sampler")
    lines = [f"the sampler cannot run: {os.strerror(number)}", *log[-_LOG_LINES:]]
    return Unsupported("\n".join(lines))


def configuration(request: Request) -> bytes:
    """The bytes of `struct sampler_config`."""
    syscalls = request.trigger.kind == "syscalls"
    mask = [0] * (_SYSCALLS_MAX // 64)
    for number in request.trigger.syscalls:
        if 0 <= number < _SYSCALLS_MAX:
            mask[number // 64] |= 1 << number % 64
    return CONFIG.pack(
        RecordTrigger.SYSCALL if syscalls else RecordTrigger.CPU,
        _FILTER_NONE if request.everything else _FILTER_TASKS,
        os.getpid(),
        request.follow,
        request.kernel_frames,
        pid_namespace(),
        not request.trigger.syscalls,
        0,
        bool(request.tids),
        sum(METHODS[method] for method in request.methods),
        0,
        0,
        *mask,
    )


def pid_namespace() -> int:
    """The inode number of our PID namespace, 0 when it is the machine's first one."""
    with contextlib.suppress(OSError):
        number = Path("/proc/self/ns/pid").stat().st_ino
        return 0 if number == _FIRST_PID_NAMESPACE else number
    return 0


@functools.cache
def library() -> ctypes.CDLL:
    """The native library with its functions declared; Unsupported when it is not built."""
    try:
        found = ctypes.CDLL(str(LIBRARY), use_errno=True)
    except OSError as error:
        raise _not_built(LIBRARY, str(error)) from None
    handle, number, size = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
    _declare(found, "load", handle, ctypes.c_char_p, size, ctypes.c_char_p, size)
    _declare(found, "error", ctypes.c_char_p)
    _declare(found, "start_cpu", ctypes.c_int, handle, number, ctypes.c_int)
    _declare(found, "start_syscalls", ctypes.c_int, handle)
    _declare(found, "is_hardware", ctypes.c_int, handle)
    _declare(found, "watch", ctypes.c_int, handle, number, number, ctypes.c_int)
    _declare(found, "drain", ctypes.c_int64, handle, ctypes.c_void_p, size)
    _declare(found, "unread", number, handle, ctypes.c_void_p)
    _declare(found, "frame_section", ctypes.c_int, handle, number, size, size)
    _declare(found, "counters", ctypes.c_int, handle, ctypes.c_void_p, number)
    _declare(found, "stop", None, handle)
    _declare(found, "flush", ctypes.c_int, handle)
    _declare(found, "pending", number, handle)
    _declare(found, "close", None, handle)
    return found


def _declare(found: ctypes.CDLL, name: str, result: type | None, *arguments: type) -> None:
    function = getattr(found, f"unspool_sampler_{name}")
    function.restype = result
    function.argtypes = arguments


def _not_built(path: Path, detail: str = "") -> Unsupported:
    return Unsupported(f"{path.name} cannot be loaded" + (f": {detail}" if detail else ""), hint="`make native` builds it.")
