"""A rule: how the caller's registers are found from a frame's. Every method finds rules; step.py alone applies them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct

from unspool.formats.dwarf import CfaRule, Fde, How, RegisterRule, Row
from unspool.model.arch import AARCH64, S390X, X86_64, Arch
from unspool.model.verdict import Stop, Trust

SAME_VALUE = RegisterRule(How.SAME_VALUE)
_AT_FRAME_POINTER = RegisterRule(How.EXPRESSION, 0, b"\x76\x00")  # DW_OP_breg6 (rbp) 0

# The registers that hand exception data to a landing pad: of ordinary functions only those with __builtin_eh_return save them.
# Such a function saves every callee-saved register, too (GCC: __builtin_unwind_init), which tells it from AArch64's
# _dl_runtime_resolve; on s390x, where the data registers are callee-saved themselves, that is the only sign.
_EXCEPTION_DATA = {
    X86_64.name: frozenset({0, 1}),
    AARCH64.name: frozenset(range(4)) | frozenset(range(19, 29)),
    S390X.name: frozenset(range(6, 14)) | frozenset(range(24, 32)),
}
# One read gives all saved registers where they lie close together: they always do.
_MAX_BLOCK = 512
_WORD = 8


@dataclass(frozen=True, slots=True)
class Miss:
    """Why there is no rule, or why it could not be applied: a stop and a sentence on it."""

    stop: Stop
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """The saved registers as one piece of memory: `size` bytes at `CFA + low`; `registers` says which word is whose."""

    low: int
    size: int
    unpack: Callable[[bytes], tuple[int, ...]]
    registers: tuple[tuple[int, int], ...]
    ra: int


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of one pc: the CFA, the return address `ra`, and the other registers that have rules.

    `start` and `end` bound the function. `outermost`: RA is undefined. `signal`: the caller was interrupted, its ip is exact.
    `nonstandard_ra` and `saves_exception_data` are the marks of rules R9a and R9b. `restores_volatile`: registers are known to the caller
    that its own callers cannot count on. `anonymous`: no file backs the code (R2). `switches_stack`: the caller may be on another stack
    though nothing interrupted it (a kernel's call onto its interrupt stack). `block` is the fast form, None where a rule needs more than
    loads.
    """

    start: int
    end: int
    cfa: CfaRule
    ra: RegisterRule
    registers: tuple[tuple[int, RegisterRule], ...]
    trust: Trust = Trust.CFI
    signal: bool = False
    ra_signed: bool = False
    nonstandard_ra: bool = False
    saves_exception_data: bool = False
    restores_volatile: bool = False
    anonymous: bool = False
    switches_stack: bool = False
    block: Block | None = field(default=None, repr=False)
    fde: Fde | None = field(default=None, repr=False)

    @property
    def outermost(self) -> bool:
        """Whether the frame has no caller."""
        return self.ra.how is How.UNDEFINED

    @property
    def ra_in_link_register(self) -> bool:
        """Whether the return address is still where the call instruction put it."""
        return self.ra.how is How.SAME_VALUE


def rule_of(row: Row, fde: Fde, arch: Arch) -> Rule | Miss:
    """The rule that a CFI row states, with the ABI's meaning of what it does not state."""
    if row.cfa is None:
        return Miss(Stop.BAD_CFI, "the row has no rule for the CFA")
    column = fde.cie.ra_register
    ra = row.registers.get(column)
    if ra is None:
        if arch.link_register is None:
            return Miss(Stop.UNSUPPORTED_RULE, "the row has no rule for the return address")
        # s390x's _mcount keeps its return address in r0 and says so by its column.
        ra = SAME_VALUE if column == arch.link_register else RegisterRule(How.REGISTER, column)
    # Where the column is the link register, the caller's own link register is lost: the call overwrote it. A signal frame restores it.
    # The caller's sp follows from the CFA unless it is saved: `same value` would be the callee's own.
    registers = tuple(
        (number, rule)
        for number, rule in row.registers.items()
        if (number != column or fde.cie.signal) and (number != arch.sp or rule.how is not How.SAME_VALUE)
    )
    return Rule(
        fde.start,
        fde.end,
        row.cfa,
        ra,
        registers,
        signal=fde.cie.signal,
        ra_signed=row.ra_signed,
        nonstandard_ra=not fde.cie.signal and is_nonstandard(ra, arch),
        saves_exception_data=not fde.cie.signal and saves_exception_data(row, arch),
        restores_volatile=any(number not in arch.callee_saved and number != arch.sp for number, _ in registers),
        block=block_of(row.cfa, ra, registers, arch),
        fde=fde,
    )


def is_nonstandard(ra: RegisterRule, arch: Arch) -> bool:
    """R9a: whether the return address is anywhere but where the ABI has it (`undefined` is an end, not a place)."""
    if ra.how is How.UNDEFINED:
        return False
    if arch.link_register is None:
        return ra.how is not How.OFFSET or ra.value != -arch.word
    # Leaf functions of s390x keep r14 in a floating-point register (GCC, -march=z10 and later): as good a place as the stack.
    in_register = arch is S390X and ra.how is How.REGISTER and 16 <= ra.value < 32
    return ra.how not in {How.OFFSET, How.SAME_VALUE} and not in_register


def loses_frame_pointer(rule: Rule, arch: Arch) -> bool:
    """Whether the frame pointer is said to be where it points to, in a frame that is not found through it.

    GCC says so of a realigned stack (DRAP) up to the function's end, and is wrong from `leave` or `pop %rbp` on: what rbp points to then is
    the caller's frame. Only the frame that runs can be there, because no call follows.
    """
    if arch is not X86_64 or (arch.fp, _AT_FRAME_POINTER) not in rule.registers:
        return False
    return rule.cfa.register != arch.fp if rule.cfa.expression is None else not rule.cfa.expression.startswith(b"\x76")


def saves_exception_data(row: Row, arch: Arch) -> bool:
    """R9b: whether the row is of a function that ends in __builtin_eh_return."""
    needed = _EXCEPTION_DATA[arch.name]
    return all((rule := row.registers.get(number)) is not None and rule.how is How.OFFSET for number in needed)


def block_of(cfa: CfaRule, ra: RegisterRule, registers: tuple[tuple[int, RegisterRule], ...], arch: Arch) -> Block | None:
    """The fast form of a rule whose CFA is register + offset and whose registers are all in memory, word-aligned and close together."""
    rules = [*registers, (arch.ra, ra)]
    if cfa.expression is not None or any(rule.how is not How.OFFSET or rule.value % _WORD for _, rule in rules):
        return None
    low = min(rule.value for _, rule in rules)
    size = max(rule.value for _, rule in rules) + _WORD - low
    if size > _MAX_BLOCK:
        return None
    order = "<" if arch.byte_order == "little" else ">"
    indices = tuple((number, (rule.value - low) // _WORD) for number, rule in registers)
    return Block(low, size, Struct(f"{order}{size // _WORD}Q").unpack, indices, (ra.value - low) // _WORD)
