"""What a user can choose about an export, and the words all formats share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unspool.model.verdict import Stop, Verdict
from unspool.profile.arrays import numbered
from unspool.profile.columns import NONE, Function, Profile, Task, ending_of
from unspool.profile.tree import GUEST, Grouping

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Options:
    """`marks`: whether a root-side frame says why a stack is not whole; `by`: what the root branches into; `title`: a picture's title."""

    marks: bool = True
    by: Grouping = "comm"
    title: str = ""


FunctionKind = Literal["program", "library", "kernel", "vdso", "generated", "unknown", "group", "mark"]


def kind_of(profile: Profile, function: Function) -> FunctionKind:
    """Where a function lives, for colours and categories."""
    if function.module == NONE:
        return "unknown"
    module = profile.modules[function.module]
    match module.kind:
        case "kernel":
            return "kernel"
        case "vdso":
            return "vdso"
        case "jit" | "anon":
            return "generated"
        case _:
            return "library" if _LIBRARY.search(module.name) else "program"


_LIBRARY = re.compile(r"\.so(\.|$)|^ld-")


@dataclass(frozen=True, slots=True)
class StackLabels:
    """What is said of one stack, in the names of the recording; `stop_module` is a path, empty when no module caused the stop."""

    ending: str
    stop: str
    stop_module: str
    verdict: str
    reason: str

    def items(self) -> list[tuple[str, str]]:
        """The labels that say something, as key and value."""
        pairs = [("verdict", self.verdict), ("ending", self.ending), ("stop", self.stop), ("stop_module", self.stop_module)]
        return [(key, value) for key, value in (*pairs, ("reason", self.reason)) if value]


def stack_labels(profile: Profile) -> list[StackLabels]:
    """The labels of every stack."""
    places, kinds = kinds_of_labels(profile)
    return [kinds[place] for place in places]


def kinds_of_labels(profile: Profile) -> tuple[list[int], list[StackLabels]]:
    """For each stack the place of its labels among the different ones, and those: a recording has few of them."""
    stacks = profile.stacks
    columns = (stacks.stop, stacks.stop_module, stacks.verdict, stacks.reason)
    places, rows = numbered(zip(*(column.tolist() for column in columns), strict=True))
    return places.tolist()[: len(stacks)], [_labels(profile, row) for row in rows]


def _labels(profile: Profile, row: Sequence[int]) -> StackLabels:
    stop, module, verdict, reason = row
    path = "" if module == NONE else profile.modules[module].path
    why = "" if reason == Stop.NONE else Stop(reason).label
    return StackLabels(ending_of(Stop(stop)), Stop(stop).label, path, Verdict(verdict).label, why)


def marks_of(profile: Profile, options: Options) -> list[str]:
    """The mark of every stack; empty where it has none, or the user wants none."""
    stacks = profile.stacks
    if not options.marks:
        return [""] * len(stacks)
    columns = (stacks.stop, stacks.stop_module, stacks.verdict, stacks.reason)
    known: dict[tuple[int, ...], str] = {}
    marks = []
    for stack, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        found = known.get(row)
        if found is None:
            found = known[row] = profile.mark(stack)
        marks.append(found)
    return marks


def machine_labels(profile: Profile, task: Task) -> list[tuple[str, str]]:
    """Where a task runs, as key and value: its guest and the kernel in it, or its control group; what is not known is left out."""
    guest = profile.guest_of(task)
    if guest is None:
        return [("cgroup", task.cgroup)] if task.cgroup else []
    pairs = [
        ("guest", guest.title),
        ("guest_generation", str(guest.generation)),
        ("guest_uuid", guest.uuid),
        ("guest_kernel", guest.kernel_release),
    ]
    return [(key, value) for key, value in pairs if value]


def machine_mark(profile: Profile, task: Task) -> str:
    """The frame that says in which guest a stack was taken, for formats without labels; empty on this host."""
    guest = profile.guest_of(task)
    return "" if guest is None else GUEST + guest.label


def pid_of(task: Task) -> int:
    """A process id that is the only one of its kind in the file: those of guests begin where those of a host end (2^22, proc(5))."""
    return task.pid if task.guest == NONE else (task.guest + 1) * 10_000_000 + task.pid


def one_line(text: str) -> str:
    r"""The text without control characters: they become escapes, so that a line stays a line.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
