"""What is known of a code address, whatever stack it is on: decided once per address space, then remembered."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unspool.formats.dwarf import Budget, OverBudget
from unspool.model.arch import Arch
from unspool.model.module import AddressSpace, Mapping
from unspool.model.thread import EntryPoints, Thread
from unspool.model.verdict import Stop
from unspool.unwind import ends as end
from unspool.unwind.call_site import is_call_site
from unspool.unwind.exception_commit import may_be_committing
from unspool.unwind.image import Images, Relay, UnwindDataProvider
from unspool.unwind.methods import cfi, sframe
from unspool.unwind.policy import Check, Method, Policy
from unspool.unwind.rule import Miss, Rule, loses_frame_pointer
from unspool.unwind.sframe_registry import SFrameRegistry
from unspool.unwind.sigframe import sigframe_rule
from unspool.unwind.stride import Plan, plan_of

UPROBES = "[uprobes]"
_SITE = 256
"""What a new site costs, in units of the budget, whatever its CFI program does: some 100 microseconds."""


@dataclass(frozen=True, slots=True)
class Site:
    """One ip: its rule or why there is none, and which checks it fails.

    `exact` can be True for a return address too: that of a signal trampoline or of a coroutine's base. `suspect` are the reasons that make
    a stack unreliable here without ending it. `entry`: it lies in the function of an entry point; without a rule: just behind one.
    `birth`: it is outermost, and a thread may begin there.
    """

    ip: int
    exact: bool
    rule: Rule | Miss
    suspect: tuple[Stop, ...] = ()
    entry: bool = False
    coroutine: bool = False
    birth: bool = False


class Sites:
    """The sites of one address space, by ip; memory and mappings must not change while they are used.

    `call` has those of return addresses, `exact` those of exact addresses; both fill through `of`. `plans` has short forms of plain sites.
    """

    def __init__(
        self, thread: Thread, policy: Policy, provider: UnwindDataProvider | None = None, registry: SFrameRegistry | None = None
    ) -> None:
        """Nothing is read yet; `registry` has SFrame sections that no file tells of."""
        self.memory = Relay(thread.memory)
        self.space: AddressSpace = thread.space
        self.ends: EntryPoints = thread.ends
        self.arch: Arch = thread.registers.arch
        self.policy = policy
        self.budget = Budget()
        self.images = Images(self.memory, self.space, self.arch, provider)
        uses_sframe = Method.SFRAME in policy.methods
        self.sframe = sframe.SFrameRules(self.memory, self.space, self.arch, registry) if uses_sframe else None
        self.call: dict[int, Site] = {}
        self.exact: dict[int, Site] = {}
        self.plans: dict[int, Plan] = {}

    def serves(self, thread: Thread) -> bool:
        """Whether the thread is of the same address space, at the same generation; then its memory is what is read from now on."""
        if thread.space is not self.space or thread.ends != self.ends or thread.registers.arch is not self.arch:
            return False
        self.memory.memory = thread.memory
        return True

    def of(self, ip: int, *, exact: bool) -> Site:
        """The site of a return address, or of an exact address."""
        known = self.exact if exact else self.call
        site = known.get(ip)
        if site is None:
            refused = self.memory.refused
            site = self._decide(ip, exact=exact)
            if self.budget.left < 0 or refused != self.memory.refused:
                # Another walk may learn more, with a fresh budget, or through a thread that still lives.
                return site
            known[ip] = site
            plain = not (site.exact or site.suspect or site.entry or site.coroutine)
            plan = plan_of(site.rule, self.arch) if plain and isinstance(site.rule, Rule) else None
            if plan is not None:
                self.plans[ip] = plan
        return site

    def is_executable(self, address: int) -> bool:
        """Whether code may run there."""
        mapping = self.space.find(address)
        return mapping is not None and mapping.executable

    def is_uprobe_trampoline(self, address: int) -> bool:
        """Whether the address lies in the page to which uprobes lead returns."""
        mapping = self.space.find(address)
        return mapping is not None and mapping.path == UPROBES

    def is_call_site(self, ip: int) -> bool:
        """Whether a call instruction ends at ip."""
        return is_call_site(self.memory, ip, self.arch)

    def _decide(self, ip: int, *, exact: bool) -> Site:
        try:
            self.budget.spend(_SITE)
        except OverBudget as error:
            return Site(ip, exact, Miss(Stop.PARSE_BUDGET, str(error)))
        return self._site(ip, self._rule(ip), exact=True) if exact else self._call(ip)

    def _call(self, ip: int) -> Site:
        """A return address: one that no call made is a trampoline, a coroutine's base, or wrong."""
        if self.is_call_site(ip):
            return self._site(ip, self._rule(ip - 1 if Check.R3 in self.policy.checks else ip), exact=False)
        there = self._rule(ip)
        if isinstance(there, Rule) and (there.signal or end.is_start_context(self.memory, there, self.arch)):
            return self._site(ip, there, exact=True)
        if end.is_context_exit(self.memory, ip, self.arch):
            return Site(ip, exact=True, rule=there, coroutine=True)
        if isinstance(there, Miss) and self._is_trampoline(ip, there):
            return self._site(ip, there, exact=True)
        rule = self._rule(ip - 1 if Check.R3 in self.policy.checks else ip)
        if isinstance(rule, Miss) and rule.stop is Stop.ANON_CODE:
            return self._site(ip, rule, exact=False)
        return self._site(ip, rule, exact=False, suspect=(Stop.NOT_A_CALL_SITE,))

    def _site(self, ip: int, rule: Rule | Miss, *, exact: bool, suspect: tuple[Stop, ...] = ()) -> Site:
        if isinstance(rule, Miss):
            bare = rule.stop is Stop.NO_UNWIND_INFO and end.is_bare_entry(ip, self.ends)
            if self._is_trampoline(ip, rule):
                rule = Miss(Stop.SIGFRAME_UNKNOWN)
            return Site(ip, exact, rule, suspect, entry=bare)
        if rule.anonymous:
            suspect += (Stop.ANON_CODE,)
        if rule.nonstandard_ra:
            suspect += (Stop.RA_RULE_NONSTANDARD,)
        if exact and loses_frame_pointer(rule, self.arch):
            suspect += (Stop.BAD_CFI,)
        if may_be_committing(rule, ip, self.memory, self.arch, exact=exact):
            suspect += (Stop.EH_COMMIT,)
        birth = rule.outermost and end.follows_syscall(self.memory, ip if exact else ip - 1, self.arch)
        return Site(ip, exact, rule, suspect, end.is_entry(rule, self.ends), end.is_start_context(self.memory, rule, self.arch), birth)

    def _is_trampoline(self, ip: int, miss: Miss) -> bool:
        """Whether the code at ip leaves a signal handler, and there is no unwind data to say to where."""
        return miss.stop is Stop.NO_UNWIND_INFO and end.is_sigreturn(self.memory, ip, self.arch)

    def _rule(self, lookup_pc: int) -> Rule | Miss:
        mapping = self.space.find(lookup_pc)
        if mapping is None:
            return Miss(Stop.NO_MAPPING)
        if not mapping.executable:
            return Miss(Stop.NOT_EXECUTABLE)
        if mapping.path == UPROBES:
            return Miss(Stop.RA_REWRITTEN)
        anonymous = mapping.kind == "anon"
        said = self.sframe.rule_at(self.images, mapping, lookup_pc) if self.sframe is not None else None
        if anonymous:
            # Code that no file backs is known only by the section that was registered for it.
            return Miss(Stop.ANON_CODE) if said is None else replace(said, anonymous=True)
        there = cfi.rule_at(self.images, mapping, lookup_pc, self.arch, self.budget)
        if isinstance(there, Miss) and mapping.kind == "vdso" and self._is_trampoline(lookup_pc, there):
            return sigframe_rule(self.arch, lookup_pc) or there
        if said is not None:
            return sframe.checked_by_cfi(said, there)
        if Method.CFI not in self.policy.methods:
            there = Miss(Stop.NO_UNWIND_INFO)
        broken = self.sframe.broken(mapping) if self.sframe is not None else None
        if broken is not None and isinstance(there, Miss) and there.stop is Stop.NO_UNWIND_INFO:
            return Miss(Stop.BAD_SFRAME, broken)
        return there


def describe(mapping: Mapping | None, address: int) -> str:
    """An address as a person reads it: the file's name and the byte of the file."""
    if mapping is None:
        return f"{address:#x}"
    name = mapping.path.rsplit("/", 1)[-1] or "anonymous memory"
    return f"{address:#x} ({name}+{mapping.file_offset(address):#x})"
