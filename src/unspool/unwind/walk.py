"""The walk: from a thread's registers outwards, frame by frame, to an accepted end or to the reason why there is none."""

from __future__ import annotations

from unspool.formats.dwarf.budget import WALK
from unspool.model.stack import Frame
from unspool.model.thread import Thread
from unspool.model.verdict import Stop, Trust
from unspool.unwind import ends as end
from unspool.unwind.call_site import is_call_site
from unspool.unwind.judge import Notes
from unspool.unwind.methods import frame_pointer, scan, sframe
from unspool.unwind.policy import Check, Method
from unspool.unwind.rule import Miss, Rule
from unspool.unwind.sites import Sites
from unspool.unwind.step import Position, find_cfa, step
from unspool.unwind.stride import stride

_GUESSES = ((Method.FRAME_POINTER, frame_pointer.guess, Trust.FRAME_POINTER), (Method.SCAN, scan.guess, Trust.SCAN))
_MAY_GUESS = frozenset({Stop.NO_UNWIND_INFO, Stop.ANON_CODE})


class UnwindState:
    """Where a walk stands. After `unwind_user_next` it stands at the caller, or `done` is set and `stop` says why.

    `ip`, `sp` and `fp` are the frame's (`fp` None when it is not known), `registers` all that is known by DWARF number, `cfa` the frame's
    CFA or why it has none, `trust` how the frame was found. `frame()` is all that as a value.
    """

    def __init__(self, thread: Thread, sites: Sites) -> None:
        """Stand at the thread's innermost frame."""
        registers = thread.registers
        self.thread = thread
        self.sites = sites
        self.done = False
        self.stop = Stop.NONE
        self.detail = ""
        self.index = 0
        self.trust = Trust.REGISTERS
        self.cfa: int | Miss = Miss(Stop.NO_USER_STACK)
        self.notes = Notes(sites.policy)
        self.position = Position(
            registers.arch,
            thread.memory,
            thread.space,
            dict(registers.values),
            registers.pc,
            registers.values.get(registers.arch.sp, 0),
            pac_mask=thread.pac_mask,
            guarded=Check.R5 in sites.policy.checks,
            budget=sites.budget,
        )
        self.position.find_stack()
        sites.budget.left = WALK
        self.site = sites.of(registers.pc, exact=True)
        self.signals = 0
        self.remembered = (registers.pc, self.position.sp)
        self.replaced = 0
        if thread.kernel_thread:
            self.end(Stop.NO_USER_STACK)
        else:
            self.arrive()

    @property
    def ip(self) -> int:
        """The frame's pc or return address."""
        return self.position.ip

    @property
    def sp(self) -> int:
        """The frame's stack pointer."""
        return self.position.sp

    @property
    def fp(self) -> int | None:
        """The frame's frame pointer, None when it is not known."""
        return self.position.values.get(self.position.arch.fp)

    @property
    def registers(self) -> dict[int, int]:
        """The frame's known registers by DWARF number."""
        return self.position.values

    def frame(self) -> Frame:
        """The frame as it is known now."""
        site = self.site
        signal = isinstance(site.rule, Rule) and site.rule.signal
        cfa = None if isinstance(self.cfa, Miss) else self.cfa
        return Frame(self.position.ip, self.position.sp, self.trust, site.exact, cfa, signal)

    def end(self, stop: Stop, detail: str = "") -> None:
        """Stop here."""
        self.done = True
        self.stop = stop
        self.detail = detail

    def arrive(self) -> None:
        """Find the new frame's CFA, and note what its address alone says against it."""
        rule = self.site.rule
        self.cfa = rule if isinstance(rule, Miss) else find_cfa(rule, self.position)
        for reason in self.site.suspect:
            self.notes.note(self.index, reason)

    def next(self) -> None:
        """Move to the caller, or end."""
        if self.done:
            return
        site, rule, cfa = self.site, self.site.rule, self.cfa
        if site.coroutine:
            self.end(Stop.END_COROUTINE)
        elif isinstance(rule, Miss):
            self.without_rule(rule)
        elif (site.entry or rule.outermost) and (stop := self.accepted_end(rule, cfa)) is not Stop.NONE:
            self.end(stop, cfa.detail if isinstance(cfa, Miss) else "")
        else:
            failure = cfa if isinstance(cfa, Miss) else step(rule, cfa, self.position)
            if failure is None:
                self.returned(rule)
            else:
                self.end(failure.stop, failure.detail)

    def stride(self, frames: list[Frame], limit: int) -> None:
        """Walk over plain frames that were seen before, up to `limit` frames in all; what it passed is added to `frames`."""
        position = self.position
        passed = stride(position, self.sites.plans, frames, limit)
        if passed:
            self.index += passed
            self.site = self.sites.call[position.ip]
            self.trust = Trust.CFI
            self.arrive()

    def accepted_end(self, rule: Rule, cfa: int | Miss) -> Stop:
        """The end that the frame is, NONE when it goes on."""
        ends = self.sites.ends
        if rule.outermost and self.site.entry:
            first = end.is_first_frame(self.position.sp, ends, self.position.arch)
            return sframe.end_of(Stop.END_PROCESS_ENTRY if first else Stop.END_UNEXPECTED, rule)
        if isinstance(cfa, Miss):
            return cfa.stop
        if rule.outermost:
            registers = self.thread.registers
            base = self.site.birth and end.is_thread_base(cfa, self.sites.space, registers.thread_pointer, registers.arch)
            return sframe.end_of(end.outermost_end(rule, self.frame().lookup_pc, self.position.sp, self.thread, base=base), rule)
        return Stop.END_PROCESS_ENTRY if end.at_initial_sp(cfa, ends) else Stop.NONE

    def without_rule(self, miss: Miss) -> None:
        """There is no rule: an entry point or a thread's first instruction without unwind data, a guess if it is allowed, or the end."""
        if self.site.entry and self.is_bare_end():
            self.end(Stop.END_PROCESS_ENTRY)
            return
        if miss.stop is Stop.NO_UNWIND_INFO and self.site.exact and end.is_newborn(self.position.ip, self.position.sp, self.thread):
            self.end(Stop.END_THREAD_ENTRY)
            return
        if miss.stop in _MAY_GUESS:
            for method, guess, trust in _GUESSES:
                if method not in self.sites.policy.methods:
                    continue
                if guess(self.position, self.sites):
                    self.notes.note(self.index, miss.stop)
                    self.notes.note(self.index + 1, Stop.HEURISTIC_USED)
                    self.enter(trust)
                    return
        self.end(miss.stop, miss.detail)

    def is_bare_end(self) -> bool:
        """Whether nothing was called yet: the stack pointer is all but at its first value, and no return address lies between the two."""
        initial = self.sites.ends.initial_sp
        if initial is None or not end.near_initial_sp(self.position.sp, self.sites.ends):
            return False
        arch, memory = self.position.arch, self.thread.memory
        for address in range(initial - arch.word, self.position.sp - 1, -arch.word):
            word = memory.read(address, arch.word)
            if word is None or is_call_site(memory, int.from_bytes(word, arch.byte_order), arch):
                return False
        return True

    def returned(self, rule: Rule) -> None:
        """The position has moved to the caller: check where it is, and enter it."""
        position = self.position
        if self.sites.is_uprobe_trampoline(position.ip):
            original = self.original_return()
            if original is None:
                self.end(Stop.RA_REWRITTEN)
                return
            position.ip = original
        if not self.sites.is_executable(position.ip if position.exact else position.ip - 1):
            self.end(Stop.RA_NOT_EXECUTABLE, f"the return address is {position.ip:#x}")
        elif rule.signal and self.is_cycle():
            self.end(Stop.CYCLE)
        else:
            self.enter(rule.trust)

    def enter(self, trust: Trust) -> None:
        """Stand at the caller."""
        self.site = self.sites.of(self.position.ip, exact=self.position.exact)
        self.position.exact = self.site.exact
        self.trust = trust
        self.index += 1
        self.arrive()

    def original_return(self) -> int | None:
        """The next of the return addresses that uprobes replaced."""
        originals = self.thread.original_returns
        if originals is None or self.replaced >= len(originals):
            return None
        self.replaced += 1
        return originals[self.replaced - 1]

    def is_cycle(self) -> bool:
        """Whether the state behind a signal frame came before (Brent's algorithm: one state is remembered, at each power of two)."""
        state = (self.position.ip, self.position.sp)
        if state == self.remembered:
            return True
        self.signals += 1
        if self.signals & (self.signals - 1) == 0:
            self.remembered = state
        return False
