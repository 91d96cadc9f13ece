"""Unspool: whole call stacks of running Linux programs, each with a verdict on whether it can be trusted.

target -> registers, memory, mappings -> stack with verdict -> symbols -> profile -> store, exports, web

As a library: fill a `Thread` (registers, memory, mappings) and call `unwind_user`. The names below are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspool.errors import BadInput, UnspoolError
    from unspool.model.arch import AARCH64, S390X, X86_64, Arch
    from unspool.model.explain import Explanation, explain
    from unspool.model.memory import Bytes, Layered, Memory
    from unspool.model.module import AddressSpace, Mapping
    from unspool.model.registers import Registers
    from unspool.model.stack import Frame, Stack
    from unspool.model.thread import EntryPoints, Thread
    from unspool.model.verdict import Judgement, Stop, Trust, Verdict
    from unspool.unwind.api import Unwinder, for_each_user_frame, unwind_user, unwind_user_next, unwind_user_start
    from unspool.unwind.image import UnwindData
    from unspool.unwind.policy import Check, Method, Policy
    from unspool.unwind.walk import UnwindState

__version__ = "0.1.0"

_WHERE = {
    "unspool.errors": ("BadInput", "UnspoolError"),
    "unspool.model.arch": ("AARCH64", "S390X", "X86_64", "Arch"),
    "unspool.model.explain": ("Explanation", "explain"),
    "unspool.model.memory": ("Bytes", "Layered", "Memory"),
    "unspool.model.module": ("AddressSpace", "Mapping"),
    "unspool.model.registers": ("Registers",),
    "unspool.model.stack": ("Frame", "Stack"),
    "unspool.model.thread": ("EntryPoints", "Thread"),
    "unspool.model.verdict": ("Judgement", "Stop", "Trust", "Verdict"),
    "unspool.unwind.api": ("Unwinder", "for_each_user_frame", "unwind_user", "unwind_user_next", "unwind_user_start"),
    "unspool.unwind.image": ("UnwindData",),
    "unspool.unwind.policy": ("Check", "Method", "Policy"),
    "unspool.unwind.walk": ("UnwindState",),
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "AARCH64",
    "S390X",
    "X86_64",
    "AddressSpace",
    "Arch",
    "BadInput",
    "Bytes",
    "Check",
    "EntryPoints",
    "Explanation",
    "Frame",
    "Judgement",
    "Layered",
    "Mapping",
    "Memory",
    "Method",
    "Policy",
    "Registers",
    "Stack",
    "Stop",
    "Thread",
    "Trust",
    "UnspoolError",
    "UnwindData",
    "UnwindState",
    "Unwinder",
    "Verdict",
    "explain",
    "for_each_user_frame",
    "unwind_user",
    "unwind_user_next",
    "unwind_user_start",
]


def __getattr__(name: str) -> object:
    """A public name, loaded now: `import unspool` itself must stay quick (PEP 562)."""
    module = _MODULES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    value: object = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted({*globals(), *__all__})
