"""What a walk may do and what a verdict must check: the methods, and the rules R1 to R11, each with a switch that proves its worth."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from unspool.model.verdict import Stop


class Check(enum.Enum):
    """The rules that all must hold before a stack is called reliable; docs/verdicts.md states each."""

    R1 = "registers and memory are one snapshot"
    R2 = "every pc lies in a file's executable mapping and has an unwind row"
    R3 = "return addresses are looked up one byte before (switched off: as they are)"
    R4 = "a call instruction stands before every return address"
    R5 = "frames move outwards on one stack"
    R6 = "the stack ends where a process, a thread or a coroutine begins"
    R7 = "every register that a rule names is known"
    R8 = "nothing was guessed"
    R9A = "the return address is where the ABI puts it"
    R9B = "no exception is being committed"
    R10 = "no return address is hidden behind a trampoline"
    R11 = "the shadow stack agrees"


CHECK_OF = {
    Stop.THREAD_RUNNING: Check.R1,
    Stop.GUEST_RUNNING: Check.R1,
    **dict.fromkeys(
        (Stop.NO_MAPPING, Stop.NOT_EXECUTABLE, Stop.ANON_CODE, Stop.NO_UNWIND_INFO, Stop.BAD_CFI, Stop.SIGFRAME_UNKNOWN), Check.R2
    ),
    Stop.NOT_A_CALL_SITE: Check.R4,
    **dict.fromkeys((Stop.CFA_NOT_ABOVE_SP, Stop.CFA_UNALIGNED, Stop.OUTSIDE_STACK, Stop.CYCLE), Check.R5),
    **dict.fromkeys((Stop.END_UNEXPECTED, Stop.RA_NOT_EXECUTABLE), Check.R6),
    **dict.fromkeys((Stop.REG_UNAVAILABLE, Stop.LR_AMBIGUOUS), Check.R7),
    Stop.HEURISTIC_USED: Check.R8,
    Stop.RA_RULE_NONSTANDARD: Check.R9A,
    Stop.EH_COMMIT: Check.R9B,
    Stop.RA_REWRITTEN: Check.R10,
    Stop.SHADOW_STACK_MISMATCH: Check.R11,
}
"""The rule that a reason belongs to; the other reasons cannot be switched off."""


class Method(enum.Enum):
    """How a caller may be found, best first. SFRAME and CFI are proofs; the others are guesses, and no stack with a guess is reliable."""

    SFRAME = "sframe"
    CFI = "cfi"
    FRAME_POINTER = "frame-pointer"
    SCAN = "scan"


@dataclass(frozen=True, slots=True)
class Policy:
    """The methods that are allowed, and the checks that are made: all, unless `without` took one away.

    >>> Check.R4 in Policy().without(Check.R4).checks
    False
    """

    methods: frozenset[Method] = frozenset({Method.SFRAME, Method.CFI})
    checks: frozenset[Check] = frozenset(Check)

    def without(self, *checks: Check) -> Policy:
        """The same policy with rules switched off: for the tests that show what each rule prevents, never for use."""
        return replace(self, checks=self.checks - set(checks))

    def counts(self, stop: Stop) -> bool:
        """Whether the reason makes a stack unreliable under this policy."""
        check = CHECK_OF.get(stop)
        return check is None or check in self.checks
