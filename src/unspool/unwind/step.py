"""One step outwards: applies a rule to a frame. Every guard against bad data, corrupted stacks and endless walks is here."""

from __future__ import annotations

from dataclasses import dataclass

from unspool.formats.dwarf import Budget, How, RegisterRule
from unspool.formats.dwarf.expression import Context, Failure, evaluate
from unspool.model.arch import AARCH64, S390X, Arch
from unspool.model.memory import Memory
from unspool.model.module import AddressSpace
from unspool.model.verdict import Stop
from unspool.unwind.rule import Miss, Rule

_MASK = (1 << 64) - 1
# Without a mask from the source (NT_ARM_PAC_MASK), an address with more bits than the largest user address space still carries its code.
_AARCH64_ADDRESS_BITS = 52
# S/390 ELF ABI supplement: the CFA lies above the register save area at the caller's sp. Elsewhere the caller's sp is the CFA.
_CFA_BIAS = {S390X.name: 160}


@dataclass(slots=True)
class Position:
    """Where a walk stands: a frame's ip, sp and known registers. `step` moves it to the caller.

    `exact`: ip is the very instruction, not a return address. `stack` is the mapping of sp, (0, 0) when sp is in no writable mapping.
    `volatile`: `values` may hold registers that a function need not give back.
    """

    arch: Arch
    memory: Memory
    space: AddressSpace
    values: dict[int, int]
    ip: int
    sp: int
    exact: bool = True
    volatile: bool = True
    stack: tuple[int, int] = (0, 0)
    pac_mask: int = 0
    guarded: bool = True
    budget: Budget | None = None

    def get(self, number: int, /) -> int | None:
        """The register's value, None when it is not known. An expression may ask for the instruction pointer: that of a PLT does."""
        if number == self.arch.ra and self.arch.link_register is None:
            return self.ip
        return self.values.get(number)

    def context(self) -> Context:
        """What the frame's expressions work on."""
        return Context(self, self.memory, self.arch.byte_order, self.budget)

    def find_stack(self) -> None:
        """Take the mapping of sp as the stack that the frames must stay on."""
        mapping = self.space.find(self.sp)
        self.stack = (mapping.start, mapping.end) if mapping is not None and mapping.writable else (0, 0)


def find_cfa(rule: Rule, position: Position) -> int | Miss:
    """The frame's CFA: `register + offset`, or what the expression gives; not checked yet."""
    if rule.cfa.expression is not None:
        value = evaluate(rule.cfa.expression, position.context())
        return Miss(value.stop, value.detail) if isinstance(value, Failure) else value
    base = position.values.get(rule.cfa.register)
    if base is None:
        return Miss(Stop.REG_UNAVAILABLE, f"the CFA is relative to {position.arch.register_name(rule.cfa.register)}, which is not known")
    return (base + rule.cfa.offset) & _MASK


def check_cfa(cfa: int, rule: Rule, position: Position) -> Miss | None:
    """Guard: the CFA is aligned, above sp, and on the same stack; a signal frame and a switch may lead to another stack."""
    if cfa % position.arch.word:
        return Miss(Stop.CFA_UNALIGNED, f"the CFA is {cfa:#x}")
    if rule.signal or rule.switches_stack:
        return None
    if cfa < lowest_sp(rule, position):
        return Miss(Stop.CFA_NOT_ABOVE_SP, f"the CFA is {cfa:#x}, sp {position.sp:#x}")
    start, end = position.stack
    if not start < cfa <= end:
        return Miss(Stop.OUTSIDE_STACK, f"the CFA is {cfa:#x}, the stack of sp {position.sp:#x} is [{start:#x}, {end:#x})")
    return None


def lowest_sp(rule: Rule, position: Position) -> int:
    """The lowest sp that the caller can have: above this frame's, so that no walk goes round in circles.

    Where there is a link register a call pushes nothing: a function that has not moved sp yet has its caller's. So has one that has taken
    its return address off the stack (vfork of glibc pops it into rdi: what the child pushes must not overwrite it).
    """
    nothing_pushed = position.arch.link_register is not None or rule.nonstandard_ra
    return position.sp if position.exact and nothing_pushed else position.sp + 1


def step(rule: Rule, cfa: int, position: Position) -> Miss | None:
    """Move the position to the caller; a Miss says why not, and leaves it where it was."""
    failure = check_cfa(cfa, rule, position) if position.guarded else None
    if failure is not None:
        return failure
    if rule.ra_in_link_register and not position.exact:
        return Miss(Stop.LR_AMBIGUOUS, "the return address would still be in the link register, which a later call has overwritten")
    restored = restore(rule, cfa, position)
    if isinstance(restored, Miss):
        return restored
    ip, values = restored
    if position.arch is AARCH64:
        ip = strip_pac(ip, position.pac_mask)
        if rule.ra_signed and ip >> _AARCH64_ADDRESS_BITS:
            return Miss(Stop.PAC_FAIL, f"the return address {ip:#x} is signed, and the mask of its signature is not known")
    sp = values.setdefault(position.arch.sp, cfa - _CFA_BIAS.get(position.arch.name, 0))
    switches = rule.signal or rule.switches_stack
    if not switches and position.guarded and not lowest_sp(rule, position) <= sp <= cfa:
        return Miss(Stop.CFA_NOT_ABOVE_SP, f"the caller's sp would be {sp:#x}, below {position.sp:#x}")
    position.values = values
    position.ip = ip
    position.sp = sp
    position.exact = rule.signal
    position.volatile = rule.signal or rule.restores_volatile
    if switches:
        position.find_stack()
    return None


def restore(rule: Rule, cfa: int, position: Position) -> tuple[int, dict[int, int]] | Miss:
    """The return address, and the caller's registers as far as they are known; sp only where the rule states it."""
    values = kept(position)
    block = rule.block
    if block is not None:
        data = position.memory.read(cfa + block.low, block.size)
        if data is not None:
            words = block.unpack(data)
            for number, index in block.registers:
                values[number] = words[index]
            return words[block.ra], values
    ra = recover(rule.ra, position.arch.ra, cfa, position)
    if isinstance(ra, Miss):
        return ra
    for number, how in rule.registers:
        if how.how is How.UNDEFINED:
            values.pop(number, None)
            continue
        value = recover(how, number, cfa, position)
        if isinstance(value, int):
            values[number] = value
        elif value.stop is Stop.REG_UNAVAILABLE:
            # Not every source has every register; it matters only to a rule that needs it.
            values.pop(number, None)
        else:
            return value
    return ra, values


def kept(position: Position) -> dict[int, int]:
    """The registers that a function gives back, with the values they have now: for those that have no rule. sp is not among them."""
    if not position.volatile:
        values = position.values.copy()
        values.pop(position.arch.sp, None)
        return values
    saved = position.arch.callee_saved
    return {number: value for number, value in position.values.items() if number in saved}


def recover(rule: RegisterRule, number: int, cfa: int, position: Position) -> int | Miss:
    """One register's value in the caller."""
    if rule.how is How.OFFSET:
        return load(position, (cfa + rule.value) & _MASK)
    if rule.how is How.VAL_OFFSET:
        return (cfa + rule.value) & _MASK
    if rule.how in {How.SAME_VALUE, How.REGISTER}:
        source = number if rule.how is How.SAME_VALUE else rule.value
        value = position.values.get(source)
        if value is None:
            return Miss(Stop.REG_UNAVAILABLE, f"{position.arch.register_name(source)} is not known")
        return value
    if rule.how is How.UNDEFINED:
        return Miss(Stop.REG_UNAVAILABLE, f"{position.arch.register_name(number)} is lost")
    result = evaluate(rule.expression, position.context(), (cfa,))
    if isinstance(result, Failure):
        return Miss(result.stop, result.detail)
    return load(position, result) if rule.how is How.EXPRESSION else result


def load(position: Position, address: int) -> int | Miss:
    """The word at the address."""
    data = position.memory.read(address, position.arch.word)
    if data is None:
        return Miss(Stop.MEM_FAULT, f"{address:#x} cannot be read")
    return int.from_bytes(data, position.arch.byte_order)


def strip_pac(address: int, mask: int) -> int:
    """The address without its pointer authentication code. Bit 55 tells user from kernel addresses; user addresses have zeros there."""
    return address & ~mask
