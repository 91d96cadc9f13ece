"""What takes a sample: the one place that reads `--on`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from unspool.capture.syscall_names import NAMES, machine, syscall_number
from unspool.errors import BadRequest

TriggerKind = Literal["cpu", "syscalls"]


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger: `cpu` samples by a clock, `syscalls` at the entry of system calls (all of them when `syscalls` is empty)."""

    kind: TriggerKind = "cpu"
    syscalls: tuple[int, ...] = ()
    text: str = "cpu"


def parse_trigger(text: str) -> Trigger:
    """The trigger as written on the command line; BadRequest names what is not known.

    >>> parse_trigger("syscalls:read,write").syscalls
    (0, 1)
    """
    kind, _, rest = text.partition(":")
    names = [name for name in rest.split(",") if name]
    if kind == "cpu":
        if names:
            raise BadRequest("the trigger `cpu` takes no names", hint="Write --on cpu, and the rate with -F.")
        return Trigger("cpu", (), text)
    if kind == "syscalls":
        return Trigger("syscalls", tuple(_number(name) for name in names), text)
    raise BadRequest(f"there is no trigger {kind!r}", hint="Triggers: cpu, syscalls, syscalls:NAME,... (for example --on syscalls:openat).")


def _number(name: str) -> int:
    if name.isdecimal():
        return int(name)
    number = syscall_number(name)
    if number is not None:
        return number
    near = difflib.get_close_matches(name, NAMES.get(machine(), {}).values(), n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "The names are those of the manual pages, section 2, or numbers."
    raise BadRequest(f"there is no system call {name!r}", hint=hint)
