"""Why a stack ends where it does, and what may be believed of it.

The names are the only vocabulary for it: enum members here, lower case with hyphens in JSON and on the command line (`Stop.label`).
`native/stops.h` is generated from this file (`make header`), numbers included, so a number never changes its meaning once it was released.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

Ending = Literal["whole", "cut", "none"]
"""`whole`: the stack stops at an accepted end; `cut`: it stops anywhere else; `none`: there is no user stack."""


class Stop(enum.IntEnum):
    """Why a stack ends: the END_ members are accepted ends, all others cut the stack."""

    NONE = 0
    END_PROCESS_ENTRY = 1
    END_THREAD_ENTRY = 2
    END_SFRAME_OUTER = 3
    END_RUNTIME_ENTRY = 4
    END_COROUTINE = 5
    END_KERNEL_ENTRY = 6
    NO_USER_STACK = 9
    # identity
    NO_MAPPING = 10
    NOT_EXECUTABLE = 11
    ANON_CODE = 12
    JIT_UNKNOWN = 13
    FILE_CHANGED = 14
    FILE_UNREACHABLE = 15
    MAPS_STALE = 16
    # metadata
    NO_UNWIND_INFO = 20
    BAD_CFI = 21
    BAD_SFRAME = 22
    EXPR_LIMIT = 23
    UNSUPPORTED_RULE = 24
    PARSE_BUDGET = 25
    PARSER_DIED = 26
    # state
    REG_UNAVAILABLE = 30
    MEM_FAULT = 31
    PAGE_ABSENT = 32
    SNAPSHOT_SHORT = 33
    THREAD_RUNNING = 34
    EXITED = 35
    PERMISSION = 36
    # checks
    CFA_NOT_ABOVE_SP = 40
    CFA_UNALIGNED = 41
    CYCLE = 42
    OUTSIDE_STACK = 43
    RA_NOT_EXECUTABLE = 44
    NOT_A_CALL_SITE = 45
    CALL_TARGET_MISMATCH = 46
    PAC_FAIL = 47
    SHADOW_STACK_MISMATCH = 48
    # transfer
    RA_REWRITTEN = 50
    RA_RULE_NONSTANDARD = 51
    EH_COMMIT = 52
    LR_AMBIGUOUS = 53
    SIGFRAME_UNKNOWN = 54
    # end
    END_UNEXPECTED = 60
    FRAME_LIMIT = 61
    TIME_LIMIT = 62
    HEURISTIC_USED = 63
    # guests
    GUEST_RUNNING = 70
    GUEST_PT = 71
    GUEST_NO_SYMS = 72

    @property
    def label(self) -> str:
        """The name in JSON and on the command line.

        >>> Stop.NO_UNWIND_INFO.label
        'no-unwind-info'
        """
        return self.name.lower().replace("_", "-")

    @property
    def is_end(self) -> bool:
        """Whether a stack that stops here is whole."""
        return Stop.END_PROCESS_ENTRY <= self <= Stop.END_KERNEL_ENTRY

    @property
    def ending(self) -> Ending:
        """Whole, cut or none; a thread that has given its memory back has no user stack any more."""
        if self in {Stop.NO_USER_STACK, Stop.EXITED}:
            return "none"
        return "whole" if self.is_end else "cut"

    @classmethod
    def of(cls, label: str) -> Stop:
        """The member of that label; ValueError names it when there is none."""
        try:
            return cls[label.upper().replace("-", "_")]
        except KeyError:
            message = f"{label!r} is not a stop reason"
            raise ValueError(message) from None


class Trust(enum.IntEnum):
    """How a frame was found, best first; `label` is the name in every output."""

    REGISTERS = 0
    CFI = 1
    SFRAME = 2
    ORC = 3
    FRAME_POINTER = 4
    SCAN = 5
    KERNEL = 6

    @property
    def label(self) -> str:
        """The name in JSON, the recording and on the command line."""
        return self.name.lower().replace("_", "-")

    @property
    def is_guess(self) -> bool:
        """Whether the frame was found by a heuristic, so that no stack above it is reliable."""
        return self in {Trust.FRAME_POINTER, Trust.SCAN}


PROOFS = frozenset({Trust.SFRAME, Trust.CFI})
"""The ways to find a frame that are no guesses; a walk uses all of them unless it is told which."""


class Verdict(enum.IntEnum):
    """What may be believed: RELIABLE promises that no function is missing that the thread may return to."""

    NONE = 0
    RELIABLE = 1
    UNRELIABLE = 2

    @property
    def label(self) -> str:
        """The name in JSON, the recording and on the command line."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Judgement:
    """A stack's verdict; when unreliable, the index of the first bad frame (0 = innermost) and the reason.

    Frames before `first_bad_frame` can be believed. `scope` is `coroutine` when the stack ends at a coroutine's base: what resumed it is
    not on it.
    """

    verdict: Verdict
    reason: Stop = Stop.NONE
    first_bad_frame: int | None = None
    detail: str = ""
    scope: Literal["thread", "coroutine"] = "thread"
