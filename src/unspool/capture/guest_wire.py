"""What the decoder of guest memory is asked and answers, as JSON says it, and the checks that make values of it again.

The decoder reads memory that somebody hostile may have written: nothing it says is believed before its type, length and range are right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from unspool.model.arch import X86_64
from unspool.model.module import ModuleKind
from unspool.model.registers import Registers
from unspool.model.verdict import Judgement, Stop, Trust, Verdict
from unspool.targets.guest.registers import VcpuState

MAX_FRAMES = 1024
MAX_TEXT = 4096
MAX_NAMES = 4096
MAX_TASKS = 65536
MAX_MODULES = 65536
MAX_FILE = 64 << 20
"""Bytes of a guest's file that are taken for its names."""
_WORD = 1 << 64
_KINDS: tuple[ModuleKind, ...] = ("file", "vdso", "anon", "jit", "kernel")
_STATE_NUMBERS = ("cr0", "cr3", "cr4", "efer", "cs", "cpl", "rflags", "fs_base", "gs_base")
_STATE_FLAGS = ("halted", "snapshot")
_Value = TypeVar("_Value")


class BadAnswer(Exception):
    """An answer that breaks its format: the decoder cannot be believed any more."""


class GuestFrame(NamedTuple):
    """A frame: its address, the module it lies in (None: nothing is mapped there) and the byte of that module."""

    ip: int
    trust: Trust
    exact: bool
    module: int | None
    offset: int | None

    @property
    def back(self) -> int:
        """How far before the address (and the offset) lies what is looked up: one for a return address (`Frame.lookup_pc`)."""
        return 0 if self.exact else 1


@dataclass(frozen=True, slots=True)
class GuestModule:
    """A file of the guest, its kernel or a kernel module; `size` is the file's, 0 where its bytes cannot be had."""

    path: str
    build_id: str
    kind: ModuleKind
    size: int = 0


@dataclass(frozen=True, slots=True)
class GuestTask:
    """A task as the guest's kernel knows it: `pid` is the thread's number, `tgid` the process's; `start_ns` counts from its boot."""

    pid: int
    tgid: int
    comm: str
    start_ns: int
    name: str
    state: str = ""


@dataclass(frozen=True, slots=True)
class GuestStack:
    """A task's stack: frames innermost first, the kernel's `kernel_frames` before the user's.

    `kernel_whole`: the kernel's part leads to the kernel's entry, whatever becomes of the user's part; False when it is not `in_kernel`.
    """

    task: GuestTask
    frames: tuple[GuestFrame, ...]
    kernel_frames: int
    stop: Stop
    judgement: Judgement
    detail: str
    modules: Mapping[int, GuestModule]
    in_kernel: bool = False
    kernel_whole: bool = False


@dataclass(frozen=True, slots=True)
class KernelFound:
    """The kernel that runs in the guest; `same_boot`: it is the one that was lost, and it has not been started anew.

    `missing` says in sentences what it does not have of what stacks need: types (BTF), unwind tables (ORC).
    """

    release: str
    version: str
    build_id: str
    base: int
    symbols: int
    same_boot: bool = False
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why the decoder has no stack, in words; `lost`: the kernel it knew is not there any more, the guest has (or is being) rebooted."""

    reason: str
    lost: bool = False


def state_to_wire(state: VcpuState) -> dict[str, Any]:
    """A vCPU's state as JSON says it."""
    numbers = {name: getattr(state, name) for name in (*_STATE_NUMBERS, *_STATE_FLAGS, "kernel_gs_base")}
    return {"pc": state.registers.pc, "values": list(state.registers.values.items()), **numbers}


def state_of(wire: Mapping[str, Any]) -> VcpuState:
    """The state again; read by the decoder, which may trust the sampler."""
    registers = Registers(X86_64, wire["pc"], dict(wire["values"]), wire["fs_base"])
    return VcpuState(registers=registers, **{name: wire[name] for name in (*_STATE_NUMBERS, *_STATE_FLAGS, "kernel_gs_base")})


def task_to_wire(task: GuestTask) -> list[object]:
    """A task as JSON says it."""
    return [task.pid, task.tgid, task.comm[:MAX_TEXT], task.start_ns, task.name[:MAX_TEXT], task.state]


def stack_to_wire(stack: GuestStack) -> dict[str, object]:
    """A stack as JSON says it; its `modules` are those that were not said before."""
    judgement = stack.judgement
    return {
        "task": task_to_wire(stack.task),
        "frames": [[frame.ip, int(frame.trust), frame.exact, frame.module, frame.offset] for frame in stack.frames[:MAX_FRAMES]],
        "kernel": stack.kernel_frames,
        "stop": int(stack.stop),
        "judgement": [int(judgement.verdict), int(judgement.reason), judgement.first_bad_frame, judgement.detail[:MAX_TEXT]],
        "detail": stack.detail[:MAX_TEXT],
        "modules": [
            [number, module.path[:MAX_TEXT], module.build_id, module.kind, module.size] for number, module in stack.modules.items()
        ],
        "in_kernel": stack.in_kernel,
        "kernel_whole": stack.kernel_whole,
    }


def checked_stack(answer: object) -> GuestStack | Failed:
    """The stack in an answer; BadAnswer when there is none."""
    fields = _fields(answer)
    if "failed" in fields:
        return _failed(fields)
    frames = tuple(_frame(item) for item in _items(fields, "frames", MAX_FRAMES))
    modules = {_number(item[0], MAX_MODULES): _module(item[1:]) for item in _rows(fields, "modules", 5, MAX_MODULES)}
    verdict, reason, bad, detail = _row(fields.get("judgement"), 4)
    return GuestStack(
        task=checked_task(fields.get("task")),
        frames=frames,
        kernel_frames=_number(fields.get("kernel"), len(frames) + 1),
        stop=_member(Stop, fields.get("stop")),
        judgement=Judgement(_member(Verdict, verdict), _member(Stop, reason), _optional(bad, MAX_FRAMES + 1), _text(detail)),
        detail=_text(fields.get("detail")),
        modules=modules,
        in_kernel=fields.get("in_kernel") is True,
        kernel_whole=fields.get("kernel_whole") is True,
    )


def checked_kernel(answer: object) -> KernelFound | Failed:
    """The kernel in an answer."""
    fields = _fields(answer)
    if "failed" in fields:
        return _failed(fields)
    words = [_text(fields.get(name)) for name in ("release", "version", "build_id", "missing")]
    base, symbols = (_number(fields.get(name), _WORD) for name in ("base", "symbols"))
    return KernelFound(words[0], words[1], words[2], base, symbols, same_boot=fields.get("same_boot") is True, missing=words[3])


def checked_names(answer: object, count: int) -> list[tuple[str, int] | None]:
    """A function and the offset in it for each address asked for, None where there is none."""
    items = _items(_fields(answer), "names", MAX_NAMES)
    if len(items) != count:
        raise BadAnswer("a wrong number of names")
    return [None if item is None else _name(item) for item in items]


def checked_tasks(answer: object) -> list[GuestTask] | Failed:
    """All tasks of the guest."""
    fields = _fields(answer)
    return _failed(fields) if "failed" in fields else [checked_task(item) for item in _items(fields, "tasks", MAX_TASKS)]


def checked_task(item: object) -> GuestTask:
    """A task."""
    pid, tgid, comm, start_ns, name, state = _row(item, 6)
    return GuestTask(_number(pid, 1 << 31), _number(tgid, 1 << 31), _text(comm), _number(start_ns, 1 << 63), _text(name), _text(state))


def _failed(fields: Mapping[str, object]) -> Failed:
    return Failed(_text(fields.get("failed")), fields.get("lost") is True)


def _frame(item: object) -> GuestFrame:
    ip, trust, exact, module, offset = _row(item, 5)
    return GuestFrame(_number(ip, _WORD), _member(Trust, trust), exact is True, _optional(module, MAX_MODULES), _optional(offset, _WORD))


def _module(row: Sequence[object]) -> GuestModule:
    path, build_id, kind, size = row
    identity = _text(build_id)
    if kind not in _KINDS or not all(digit in "0123456789abcdef" for digit in identity):
        raise BadAnswer("a module that is none")
    return GuestModule(_text(path), identity, kind, _number(size, MAX_FILE + 1))


def _name(item: object) -> tuple[str, int]:
    function, offset = _row(item, 2)
    if not function:
        raise BadAnswer("an empty name")
    return _text(function), _number(offset, _WORD)


def _fields(answer: object) -> Mapping[str, object]:
    if not isinstance(answer, dict):
        raise BadAnswer("an answer without fields")
    return answer


def _items(fields: Mapping[str, object], name: str, most: int) -> list[object]:
    items = fields.get(name)
    if not isinstance(items, list) or len(items) > most:
        raise BadAnswer(f"{name} that are no list, or too long a one")
    return items


def _rows(fields: Mapping[str, object], name: str, length: int, most: int) -> list[list[object]]:
    return [_row(item, length) for item in _items(fields, name, most)]


def _row(item: object, length: int) -> list[object]:
    if not isinstance(item, list) or len(item) != length:
        raise BadAnswer("a row of another length")
    return item


def _number(value: object, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise BadAnswer("a number out of its range")
    return value


def _optional(value: object, limit: int) -> int | None:
    return None if value is None else _number(value, limit)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise BadAnswer("a text that is none, or too long a one")
    return value


def _member(values: Callable[[int], _Value], number: object) -> _Value:
    if type(number) is not int:
        raise BadAnswer("a member that is no number")
    try:
        return values(number)
    except ValueError as error:
        raise BadAnswer("a member that is not known") from error
