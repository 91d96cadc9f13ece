"""Rules out of .sframe: found through PT_GNU_SFRAME of the mapped file, or registered by hand for code that has no file.

SFrame knows the stack pointer, the frame pointer and the return address only: a walk through it loses every other register.
"""

from __future__ import annotations

from dataclasses import replace

from unspool.errors import BadInput
from unspool.formats.dwarf import CfaRule, How, RegisterRule
from unspool.formats.elf import SegmentType
from unspool.formats.sframe import CFA, FrameRule, Place
from unspool.model.arch import Arch
from unspool.model.memory import Memory
from unspool.model.module import AddressSpace, Mapping
from unspool.model.verdict import Stop, Trust
from unspool.unwind.image import Images
from unspool.unwind.rule import Miss, Rule, is_nonstandard
from unspool.unwind.sframe_registry import Dropped, SFrameRegistry
from unspool.unwind.sframe_section import Found

_BREG0 = 0x70
_DEREF = 0x06


class SFrameRules:
    """The SFrame sections of one address space, each registered when a pc first lands in its file.

    `registry` can be given, with sections that no file tells of (a JIT's). `dropped` names the sections that cannot be used, and why.
    """

    def __init__(self, memory: Memory, space: AddressSpace, arch: Arch, registry: SFrameRegistry | None = None) -> None:
        """Nothing is read yet."""
        self.registry = registry if registry is not None else SFrameRegistry(memory)
        self._space = space
        self._arch = arch
        self._seen: set[int] = set()

    @property
    def dropped(self) -> list[Dropped]:
        """The sections that were refused or dropped."""
        return self.registry.dropped

    def rule_at(self, images: Images, mapping: Mapping, pc: int) -> Rule | None:
        """The rule for a lookup address of the mapping; None when no section has one, so that the next method is asked."""
        if mapping.start not in self._seen:
            self._seen.add(mapping.start)
            self._register(images, mapping)
        found = self.registry.find(pc)
        return rule_of_found(found, self._arch) if isinstance(found, Found) else None

    def broken(self, mapping: Mapping) -> str | None:
        """Why the file's section cannot be used, None when it can (or there is none)."""
        return next((dropped.reason for dropped in self.dropped if dropped.file and dropped.file == mapping.path), None)

    def _register(self, images: Images, mapping: Mapping) -> None:
        image = images.of(mapping)
        if image is None:
            return
        try:
            segments = [segment for segment in image.elf.segments if segment.type == SegmentType.GNU_SFRAME]
        except BadInput:
            return
        for segment in segments:
            start = image.bias + segment.address
            section = range(start, start + segment.memory_size)
            self.registry.add(section, range(mapping.start, mapping.end), file=mapping.path)


def rule_of_found(found: Found, arch: Arch) -> Rule | None:
    """What an SFrame row says as a rule; None for a signal frame without rows, whose registers only the kernel's frame has."""
    said = found.rule
    fp = arch.fp
    lost = tuple((number, RegisterRule(How.UNDEFINED)) for number in sorted(arch.callee_saved - {fp, arch.sp, arch.ra}))
    if said.outermost:
        ra = RegisterRule(How.UNDEFINED)
        return Rule(found.start, found.end, CfaRule(arch.sp, 0), ra, lost, trust=Trust.SFRAME, signal=said.signal)
    if said.cfa is None:
        return None
    ra = _register_rule(said.ra)
    rules = lost if said.fp is None else (*lost, (fp, _register_rule(said.fp)))
    rule = Rule(found.start, found.end, _cfa_rule(said), ra, rules, trust=Trust.SFRAME, signal=said.signal, ra_signed=said.mangled_ra)
    return replace(rule, nonstandard_ra=not said.signal and is_nonstandard(ra, arch))


def _cfa_rule(said: FrameRule) -> CfaRule:
    assert said.cfa is not None
    if said.cfa.deref:
        return CfaRule(expression=_expression(said.cfa, deref=True))
    return CfaRule(said.cfa.base, said.cfa.offset)


def _register_rule(place: Place | None) -> RegisterRule:
    if place is None:
        return RegisterRule(How.SAME_VALUE)
    if place.base == CFA:
        return RegisterRule(How.OFFSET if place.deref else How.VAL_OFFSET, place.offset)
    if not place.deref and not place.offset:
        return RegisterRule(How.REGISTER, place.base)
    return RegisterRule(How.EXPRESSION if place.deref else How.VAL_EXPRESSION, 0, _expression(place, deref=False))


def _expression(place: Place, *, deref: bool) -> bytes:
    """`breg N offset`, and `deref` (DWARF 5, section 2.5.1)."""
    value = place.offset
    out = bytearray([_BREG0 + place.base])
    while True:
        byte = value & 0x7F
        value >>= 7
        if (value == 0 and not byte & 0x40) or (value == -1 and byte & 0x40):
            out.append(byte)
            break
        out.append(byte | 0x80)
    return bytes(out) + (bytes([_DEREF]) if deref else b"")


def checked_by_cfi(rule: Rule, cfi: Rule | Miss) -> Rule:
    """The SFrame rule with the mark of rule R9b that only CFI shows: SFrame does not say which registers hand over an exception.

    A function without CFI cannot commit one: the unwinder that does reads its own CFI first.
    """
    if isinstance(cfi, Miss) or not cfi.fde:
        return rule
    return replace(rule, saves_exception_data=cfi.saves_exception_data, fde=cfi.fde)


def end_of(stop: Stop, rule: Rule) -> Stop:
    """The kind of an accepted end that an SFrame row found: END_SFRAME_OUTER."""
    return Stop.END_SFRAME_OUTER if stop.is_end and rule.trust is Trust.SFRAME and rule.outermost else stop
