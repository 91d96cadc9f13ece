"""The walk of a kernel's stack by ORC: from a vCPU's or a sleeping task's registers to the entry from user mode, or to why it ends before.

The rules are those of user stacks (docs/verdicts.md), applied by the same `step`; docs/guest-stacks.md says what is particular to a kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from unspool.model.arch import X86_64
from unspool.model.stack import Frame, Stack
from unspool.model.thread import Thread
from unspool.model.verdict import Stop, Trust
from unspool.unwind.judge import Notes, judge
from unspool.unwind.kernel_sites import ALL_SAVED, KernelImage, KernelSite, KernelSites
from unspool.unwind.methods import frame_pointer, scan
from unspool.unwind.policy import Policy
from unspool.unwind.rule import Miss, Rule
from unspool.unwind.step import Position, find_cfa, step

MAX_FRAMES = 1024
"""Frames of one kernel stack at most: a stack has 16 KiB, and all but a few frames two words or more."""
TASK_STACK, IRQ_STACK, EXCEPTION_STACK, ENTRY_STACK = "[task stack]", "[irq stack]", "[exception stack]", "[entry stack]"
"""How the mappings of a kernel thread's `space` name its stacks; a CPU has one of each, but of exception stacks several."""

ORC_ONLY = frozenset({Trust.ORC})
"""The methods of a walk that guesses nothing."""
_GUESSES = ((Trust.FRAME_POINTER, frame_pointer.guess), (Trust.SCAN, scan.guess))
_MAY_GUESS = frozenset({Stop.NO_UNWIND_INFO, Stop.ANON_CODE})
_THUNK_WORDS = 4
# At the base of a task's stack lie its struct pt_regs, up to 16 bytes of FRED's, and what the code that starts a CPU or a thread pushed.
_BASE = 512
# rip, cs, rflags, rsp, ss as the processor pushes them; Linux's selectors (arch/x86/include/asm/segment.h): 64-bit and 32-bit user code,
# user data, kernel code, kernel data. In 64-bit mode SS may be 0 in the kernel. Of the flags, bit 1 is always set by the processor, and
# interrupts (bit 9) are on in flags that the kernel makes for a new program; they end with bit 21.
_IRET = struct.Struct("<5Q")
_USER_CS, _USER_SS = frozenset({0x33, 0x23}), 0x2B
_KERNEL_CS, _KERNEL_SS = 0x10, frozenset({0x18, 0})
_FLAGS_SET, _FLAGS_TOP = 1 << 1 | 1 << 9, 1 << 22
_USER_TOP = 1 << 56

__all__ = ["KernelImage", "KernelStack", "KernelUnwinder"]


@dataclass(frozen=True, slots=True)
class KernelStack:
    """A kernel's stack. `user_registers`: where the registers of user mode were saved on it, None when it does not lead there.

    `partial`: they are only the five words that the processor pushes (rip, cs, rflags, rsp, ss), not all of struct pt_regs; then `values`
    are the other registers by DWARF number, as far as they are known. `in_entry`: the stack ends in entry code that has not saved
    them yet, or has given them back.
    """

    stack: Stack
    user_registers: int | None = None
    partial: bool = False
    values: Mapping[int, int] = field(default_factory=dict)
    in_entry: bool = False


class KernelUnwinder:
    """Unwinds the stacks of one kernel, and remembers what it learned of its code.

    `methods`: ORC, and the guesses FRAME_POINTER and SCAN where nothing better is known; without ORC the guesses are all there is, and
    the frame that the first of them found is the first that is not to be believed.
    Make a new one when the kernel's code has changed (a module was loaded, another boot).
    """

    def __init__(self, image: KernelImage, methods: Collection[Trust] = ORC_ONLY) -> None:
        """Nothing is known yet."""
        self.image = image
        self.methods = frozenset(methods)
        self._sites: KernelSites | None = None

    def unwind(self, thread: Thread, *, exact: bool = True, max_frames: int = MAX_FRAMES) -> KernelStack:
        """The thread's kernel stack of at most `max_frames` frames; nothing that the guest's memory holds makes it raise.

        `thread.space` holds the kernel's stacks, named as above, and its code for the sentences of verdicts. `exact`: the pc is the
        instruction that runs next; False for a sleeping task, whose pc is a return address. `thread.snapshot` False: the vCPU ran on.
        """
        if max_frames < 1:
            message = f"max_frames is {max_frames}, and a stack has at least one frame"
            raise ValueError(message)
        if self._sites is None:
            self._sites = KernelSites(self.image, thread.memory, uses_orc=Trust.ORC in self.methods)
        self._sites.memory = thread.memory
        walk = _Walk(thread, self._sites, self.methods, exact=exact)
        frames = walk.frames(max_frames)
        stack = Stack(tuple(frames), walk.stop, judge(frames, walk.stop, walk.notes, thread, walk.detail), walk.detail)
        return KernelStack(stack, walk.user_registers, walk.partial, walk.position.values if walk.partial else {}, walk.in_entry)


class _Walk:
    """One walk: `position` is where it stands, `notes` what speaks against the stack so far."""

    def __init__(self, thread: Thread, sites: KernelSites, methods: frozenset[Trust], *, exact: bool) -> None:
        registers = thread.registers
        self.sites = sites
        self.methods = methods
        self.notes = Notes(Policy())
        if not thread.snapshot:
            # Noted first, so that it is the reason, and not what `judge` says of threads.
            self.notes.note(0, Stop.GUEST_RUNNING)
        self.stop = Stop.NONE
        self.detail = ""
        self.user_registers: int | None = None
        self.partial = False
        self.in_entry = False
        self.trapped = False
        self.changing = False
        self.trust = Trust.REGISTERS
        sp = registers.values.get(X86_64.sp, 0)
        self.position = Position(X86_64, thread.memory, thread.space, dict(registers.values), registers.pc, sp, exact=exact)
        self.position.find_stack()
        self.seen = {self.position.stack}

    def frames(self, limit: int) -> list[Frame]:
        """Walk to the end, or to the limit."""
        found: list[Frame] = []
        callee: KernelSite | None = None
        while True:
            position = self.position
            site = self.sites.of(position.ip - self.trapped, exact=position.exact)
            self.trapped = False
            if callee is not None and callee.saving and site.unsaved is not None:
                site = site.unsaved
            callee = site
            position.exact = site.exact
            self.changing = self.changing or (site.exact and self.sites.is_changing(site))
            rule = site.rule
            cfa = rule if isinstance(rule, Miss) else find_cfa(rule, position)
            shown = None if isinstance(cfa, Miss) else cfa
            found.append(Frame(position.ip, position.sp, self.trust, site.exact, shown, isinstance(rule, Rule) and rule.signal))
            index = len(found) - 1
            if not (site.exact or site.called):
                self.notes.note(index, Stop.NOT_A_CALL_SITE)
            if not self._move(site, cfa, index):
                return found
            if len(found) == limit:
                self._end(Stop.FRAME_LIMIT, f"{limit} frames were asked for")
                return found

    def _end(self, stop: Stop, detail: str = "") -> bool:
        """Stop here."""
        self.stop, self.detail = stop, detail
        return False

    def _move(self, site: KernelSite, cfa: int | Miss, index: int) -> bool:
        """Move to the caller; False when the walk ended instead."""
        if site.exact and self.sites.is_rewritten(site.ip):
            # The word that led here is off the stack, and what lies there now is the caller's own.
            return self._end(Stop.RA_REWRITTEN)
        if isinstance(site.rule, Miss):
            return self._guess(site, site.rule, index)
        if site.end:
            self.in_entry = site.entry
            if self._is_base(site):
                return self._end(Stop.END_KERNEL_ENTRY)
            return self._end(Stop.RA_REWRITTEN if self.sites.is_trampoline(site) else Stop.END_UNEXPECTED)
        if isinstance(cfa, Miss):
            return self._end(cfa.stop, cfa.detail)
        if site.saved:
            stop = self._saved(site, cfa)
            if stop is not None:
                return self._end(stop.stop, stop.detail)
        stack, sp = self.position.stack, self.position.sp
        failure = step(site.rule, cfa, self.position)
        failure = self._arrived(stack, sp) if failure is None else failure
        self.trust = Trust.ORC
        return True if failure is None else self._end(failure.stop, failure.detail)

    def _saved(self, site: KernelSite, cfa: int) -> Miss | None:
        """The end, when the registers that were saved at the CFA are those of user mode, or cannot be such."""
        start, end = self.position.stack
        # On the way out the general registers are popped one by one, and the struct begins below the stack pointer.
        if not (start <= cfa and self.position.sp <= cfa + site.saved_ip and cfa + site.saved <= end):
            return Miss(Stop.OUTSIDE_STACK, f"saved registers would lie at {cfa:#x}, the stack is [{start:#x}, {end:#x})")
        data = self.position.memory.read(cfa + site.saved_ip, _IRET.size)
        if data is None:
            return Miss(Stop.MEM_FAULT, f"{cfa + site.saved_ip:#x} cannot be read")
        ip, cs, flags, sp, ss = _IRET.unpack(data)
        # FRED keeps more in the upper parts of the selectors' words (Intel FRED specification, section 5.1).
        cs, ss = cs & 0xFFFF, ss & 0xFFFF
        sane = bool(flags & _FLAGS_SET) and flags < _FLAGS_TOP
        if cs in _USER_CS and ss == _USER_SS and sane and max(ip, sp) < _USER_TOP:
            self.user_registers, self.partial = cfa, site.saved_ip == 0
            return Miss(Stop.END_KERNEL_ENTRY)
        if self.changing and cs == _KERNEL_CS:
            return Miss(Stop.NO_UNWIND_INFO, "the kernel is changing the registers that were saved")
        if cs == _KERNEL_CS and ss in _KERNEL_SS and sane:
            return self._trapped(site, cfa, ip, sp) if self.sites.is_breakpoint(site) else None
        return Miss(Stop.END_UNEXPECTED, f"what lies at {cfa:#x} are no saved registers: CS would be {cs:#x}, SS {ss:#x}")

    def _trapped(self, site: KernelSite, cfa: int, ip: int, sp: int) -> Miss | None:
        """Note whether the saved registers are still as int3 left them: ip is behind it, and what it stands for has not run; or the end.

        To make room for what the kernel pushes in its place, the entry copies the processor's words (and the one below them); the original
        stays above (idtentry_body, arch/x86/entry/entry_64.S).
        """
        if site.saved == _IRET.size:
            self.trapped = True
            return None
        data = self.position.memory.read(cfa + site.saved + 8, _IRET.size)
        if data is None:
            return Miss(Stop.MEM_FAULT, f"{cfa + site.saved + 8:#x} cannot be read")
        above = _IRET.unpack(data)
        self.trapped = (above[0], above[3]) == (ip, sp)
        if above[0] == ip and not self.trapped:
            return Miss(Stop.NO_UNWIND_INFO, "the kernel is about to do what an int3 stands for")
        return None

    def _is_base(self, site: KernelSite) -> bool:
        """Whether ORC's end is one: code that runs before the stack is set up or after it was left, or the base of a task's stack."""
        if site.entry:
            return True
        mapping = self.position.space.find(self.position.sp - 1)
        return mapping is not None and mapping.path == TASK_STACK and mapping.end - self.position.sp <= _BASE

    def _arrived(self, stack: tuple[int, int], sp: int) -> Miss | None:
        """What speaks against the caller that `step` moved to: `stack` and `sp` were the callee's."""
        position = self.position
        if position.stack == stack:
            # `step` has not asked where the rule may lead to another stack.
            if position.sp <= sp:
                return Miss(Stop.CFA_NOT_ABOVE_SP, f"the caller's sp would be {position.sp:#x}, below {sp:#x}")
        elif position.stack in self.seen:
            # No CPU comes back to a stack that it has left for another: in_*_stack and visit_mask of arch/x86/kernel/dumpstack_64.c.
            return Miss(Stop.CYCLE, f"the stack of {position.sp:#x} was left before")
        self.seen.add(position.stack)
        if self.sites.is_rewritten(position.ip):
            return Miss(Stop.RA_REWRITTEN)
        lookup = position.ip if position.exact else position.ip - 1
        if self.sites.image.is_init_text(lookup) and not self.sites.is_executable(lookup):
            known = self.sites.is_boot_stack(position.stack[0])
        else:
            known = self.sites.is_executable(lookup) or self.sites.is_generated(lookup)
        if not known:
            return Miss(Stop.RA_NOT_EXECUTABLE, f"the return address is {position.ip:#x}")
        return None

    def _guess(self, site: KernelSite, miss: Miss, index: int) -> bool:
        """Move to a presumed caller, and say that it is presumed; else end with the reason why nothing is known."""
        sp = self.position.sp
        if site.thunk and scan.guess(self.position, self.sites, _THUNK_WORDS):
            return self._guessed(Trust.SCAN, index, miss, sp)
        if Trust.FRAME_POINTER in self.methods and miss.stop in _MAY_GUESS:
            moved = self._to_saved(index, miss)
            if moved is not None:
                return moved
        for trust, guess in _GUESSES:
            if trust in self.methods and miss.stop in _MAY_GUESS and guess(self.position, self.sites):
                return self._guessed(trust, index, miss, sp)
        return self._end(miss.stop, miss.detail or self._unfound())

    def _unfound(self) -> str:
        """What a walk without ORC says of code that it does not come further from."""
        if Trust.ORC in self.methods:
            return ""
        return f"by {' or '.join(trust.label for trust in sorted(self.methods))} no caller is found"

    def _guessed(self, trust: Trust, index: int, miss: Miss, sp: int) -> bool:
        self._presumed(trust, index, miss)
        return True if self.position.sp > sp else self._end(Stop.CFA_NOT_ABOVE_SP)

    def _presumed(self, trust: Trust, index: int, miss: Miss) -> None:
        """Note that the next frame is presumed; and that nothing better was known of this one, unless nobody asked."""
        if Trust.ORC in self.methods or miss.stop is not Stop.NO_UNWIND_INFO:
            self.notes.note(index, miss.stop)
        self.notes.note(index + 1, Stop.HEURISTIC_USED)
        self.trust = trust

    def _to_saved(self, index: int, miss: Miss) -> bool | None:
        """Move to the registers that the frame pointer leads to, None where it does not; False when they end the stack.

        A kernel that keeps frame pointers marks those of entry code: `rbp = 1 + address of struct pt_regs` (ENCODE_FRAME_POINTER in
        arch/x86/include/asm/frame.h). Those of a kernel thread, at the base of its stack, are zeros (copy_thread).
        """
        position = self.position
        cfa = position.values.get(X86_64.fp, 0) - 1
        if cfa % 8 or cfa < position.sp:
            return None
        saved = self._saved(ALL_SAVED, cfa)
        zeros = position.memory.read(cfa + ALL_SAVED.saved_ip, _IRET.size) == bytes(_IRET.size)
        if saved is not None and not (saved.stop is Stop.END_KERNEL_ENTRY or (zeros and position.stack[1] - cfa <= _BASE)):
            return None
        if saved is not None:
            self.notes.note(index, Stop.HEURISTIC_USED)
            return self._end(Stop.END_KERNEL_ENTRY)
        assert isinstance(ALL_SAVED.rule, Rule)
        stack, sp = position.stack, position.sp
        failure = step(ALL_SAVED.rule, cfa, position)
        failure = self._arrived(stack, sp) if failure is None else failure
        self._presumed(Trust.FRAME_POINTER, index, miss)
        return True if failure is None else self._end(failure.stop, failure.detail)
