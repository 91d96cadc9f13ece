"""What is known of an address of the kernel's code, whatever stack it is on: its rule, and whether a call ends there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from unspool.formats.dwarf import CfaRule, How, RegisterRule
from unspool.formats.kallsyms import KernelSymbol
from unspool.formats.orc import OrcEntry, OrcRegister, OrcType
from unspool.model.arch import X86_64
from unspool.model.memory import Memory
from unspool.model.verdict import Stop, Trust
from unspool.unwind.call_site import is_call_site
from unspool.unwind.methods import orc
from unspool.unwind.rule import Miss, Rule

_KEPT = 1 << 16
# x86-64's layout (Documentation/arch/x86/x86_64/mm.rst): the kernel's image, then what it loads or makes itself: modules, BPF, ftrace.
_LOADED = range(0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_FF00_0000)
_BOOT_STACKS = ("init_stack", "init_thread_union", "__start_init_stack")
_TRAMPOLINES = ("arch_rethook_trampoline", "__kretprobe_trampoline", "kretprobe_trampoline", "return_to_handler")
# Names of code that is jumped through instead of an indirect jump or a return (arch/x86/lib/retpoline.S).
_THUNKS = ("__x86_indirect_", "__x86_return_", "its_return_", "srso_", "retbleed_", "zen_untrain_", "entry_untrain_", "__ret")
_SAVERS = ("error_entry", "paranoid_entry")
_ALL_SAVED = OrcEntry(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, OrcType.REGS, signal=True, end=False)
_CALL_REL32, _CALL_SIZE, _WORD = 0xE8, 5, 8
_INDIRECT = "__x86_indirect_"
# call 1f; int3; 1: - mov disp32(%rsi),%rsp - pop %r15, %r14, %r13, %r12, %rbx, %rbp
_FILL = bytes.fromhex("e801000000cc")
_LOAD_RSP, _LOAD_SIZE = bytes.fromhex("488ba6"), 7
_POPS = bytes.fromhex("415f415e415d415c5b5d")
_SWITCH_SIZE = 160
_LFENCE = bytes.fromhex("0faee8")
_LRETQ = bytes.fromhex("48cb")
_RET, _JMP_REL32 = 0xC3, 0xE9
# srso_safe_ret: lea 8(%rsp),%rsp; ret. Whoever comes here has called it, and is not returned to (arch/x86/lib/retpoline.S).
_DROP_AND_RET = bytes.fromhex("488d642408c3")
_LONGEST = 8


class KernelImage(Protocol):
    """What a walk must know of a kernel; addresses are those of its own memory."""

    def orc(self, pc: int) -> OrcEntry | None:
        """The ORC entry that holds for the pc, of the kernel or one of its modules; None when no table covers it."""

    def has_orc(self) -> bool:
        """Whether the kernel has ORC tables at all."""

    def is_text(self, pc: int) -> bool:
        """Whether the pc lies in code of the kernel (its init code while it boots) or of a module."""

    def is_init_text(self, pc: int) -> bool:
        """Whether the pc lies in the code that starts the kernel, there or already given back."""

    def symbol(self, pc: int) -> KernelSymbol | None:
        """The function that holds the pc, None where there is none."""

    def address(self, name: str) -> int | None:
        """The address of a symbol of the kernel, None when it has none of that name."""


@dataclass(frozen=True, slots=True)
class KernelSite:
    """One ip. `called`: a call (or what stands for one) ends there. `end`: ORC says that stacks end here. `entry`: it is entry code.

    `saved` and `saved_ip`: the bytes of interrupted registers that lie at the CFA, and where the processor's own five words lie in them.
    `thunk`: code that is jumped through, of which ORC knows nothing. `saving`: code that is about to push struct pt_regs for its caller;
    `unsaved`: its caller's site as it is before that.
    """

    ip: int
    exact: bool
    rule: Rule | Miss
    called: bool = True
    end: bool = False
    entry: bool = False
    thunk: bool = False
    saved: int = 0
    saved_ip: int = 0
    saving: bool = False
    unsaved: KernelSite | None = None


ALL_SAVED = KernelSite(0, exact=False, rule=orc.rule_of(_ALL_SAVED), saved=orc.PT_REGS_SIZE, saved_ip=orc.PT_REGS_IP)
"""Code of no place that has struct pt_regs at its CFA."""


@dataclass(slots=True)
class KernelSites:
    """The sites of one kernel by ip, as its memory has them; `memory` is set for each walk. Its code must not change while this is used."""

    image: KernelImage
    memory: Memory
    uses_orc: bool = True
    _call: dict[int, KernelSite] = field(default_factory=dict)
    _exact: dict[int, KernelSite] = field(default_factory=dict)
    _rewritten: frozenset[int] | None = None
    _entry: range | None = None
    _boot_stack: int | None = None
    _savers: frozenset[int] | None = None

    def of(self, ip: int, *, exact: bool) -> KernelSite:
        """The site of a return address, or of an exact address."""
        known = self._exact if exact else self._call
        site = known.get(ip)
        if site is None:
            if len(known) >= _KEPT:
                known.clear()
            site = self._at(ip) if exact else self._behind_call(ip)
            if site.called:
                # Code that could not be read this time may be readable the next.
                known[ip] = site
        return site

    def is_executable(self, address: int) -> bool:
        """Whether kernel code may run there."""
        return self.image.is_text(address)

    def is_generated(self, address: int) -> bool:
        """Whether the address is where the kernel puts code that it makes while it runs (BPF, ftrace)."""
        return address in _LOADED and not self.image.is_text(address)

    def is_boot_stack(self, start: int) -> bool:
        """Whether the stack that begins there is that of the first task, which started the kernel and is its CPU's idle task since.

        Its oldest frames are of code that was given back; no other stack has such.
        """
        if self._boot_stack is None:
            self._boot_stack = next((found for name in _BOOT_STACKS if (found := self.image.address(name)) is not None), 0)
        return start == self._boot_stack != 0

    def is_call_site(self, ip: int) -> bool:
        """Whether a call ends at ip, outside of the thunks: what they call is never returned to."""
        return is_call_site(self.memory, ip, X86_64) and self._thunk(ip - 1) is None

    def is_rewritten(self, ip: int) -> bool:
        """Whether a probe or the function graph tracer put the address where a return address was (kernel/trace/rethook.c)."""
        if self._rewritten is None:
            self._rewritten = frozenset(found for name in _TRAMPOLINES if (found := self.image.address(name)) is not None)
        return ip in self._rewritten

    def is_trampoline(self, site: KernelSite) -> bool:
        """Whether the site lies in code that such an address leads to: what it will return to is known to the tracer only."""
        symbol = self.image.symbol(site.ip if site.exact else site.ip - 1)
        return symbol is not None and symbol.name in _TRAMPOLINES

    def is_breakpoint(self, site: KernelSite) -> bool:
        """Whether the site lies in the entry of int3, which probes and code that is being rewritten raise."""
        symbol = self.image.symbol(site.ip if site.exact else site.ip - 1)
        return symbol is not None and symbol.name == "asm_exc_int3"

    def is_changing(self, site: KernelSite) -> bool:
        """Whether the site lies in code that does, in the registers of who was interrupted in a safe return, what was left of that return.

        Between its stores they are of two moments (AMD's return mitigation in the kernels of 2026).
        """
        symbol = self.image.symbol(site.ip)
        return symbol is not None and symbol.name == "handle_interrupted_saferet"

    def _at(self, ip: int) -> KernelSite:
        thunk = self._thunk(ip)
        if thunk is not None:
            return KernelSite(ip, exact=True, rule=self._thunk_rule(ip, thunk) or Miss(Stop.NO_UNWIND_INFO), thunk=True)
        return self._by_orc(ip, ip, exact=True)

    def _behind_call(self, ip: int) -> KernelSite:
        # Code that was given back cannot be looked at; `is_boot_stack` keeps others from it.
        freed = self.image.is_init_text(ip - 1) and not self.image.is_text(ip - 1)
        if freed or is_call_site(self.memory, ip, X86_64):
            return self._by_orc(ip, ip - 1, exact=False)
        symbol = self.image.symbol(ip)
        if symbol is not None and symbol.address == ip and symbol.name.startswith("ret_from_fork"):
            # A task that has never run is made to look as if this had called the scheduler (copy_thread, arch/x86/kernel/process.c).
            return self._by_orc(ip, ip, exact=True)
        site = self._by_orc(ip, ip - 1, exact=False)
        if isinstance(site.rule, Miss) and site.rule.stop is Stop.ANON_CODE:
            return site
        # A CPU's first function is reached by a far return, above an address pushed for unwinders (arch/x86/kernel/head_64.S).
        return replace(site, called=site.end and self.memory.read(ip - len(_LRETQ), len(_LRETQ)) == _LRETQ)

    def _by_orc(self, ip: int, lookup: int, *, exact: bool) -> KernelSite:
        if not (self.image.is_text(lookup) or self.image.is_init_text(lookup)):
            return KernelSite(ip, exact, Miss(Stop.ANON_CODE if self.is_generated(lookup) else Stop.NOT_EXECUTABLE))
        entry = self.image.orc(lookup) if self.uses_orc else None
        if entry is None:
            without = self.uses_orc and not self.image.has_orc()
            return KernelSite(ip, exact, Miss(Stop.NO_UNWIND_INFO, "the kernel has no ORC tables" if without else ""))
        if entry.type is OrcType.REGS_PARTIAL and self._saves_registers(ip):
            unsaved = None if exact else self._of_entry(ip, lookup, entry, exact=False)
            return replace(self._of_entry(ip, lookup, _ALL_SAVED, exact=exact), unsaved=unsaved)
        if not self._is_saver(lookup):
            return self._of_entry(ip, lookup, self._while_switching(ip, entry) if exact else entry, exact=exact)
        if entry.type is OrcType.REGS_PARTIAL or (entry.type is OrcType.REGS and entry.sp_offset != _WORD):
            return KernelSite(ip, exact, Miss(Stop.NO_UNWIND_INFO, "the return address is in a register that ORC does not name"))
        saving = entry.type is OrcType.CALL
        return replace(self._of_entry(ip, lookup, entry if saving else _saver(entry), exact=exact), saving=saving)

    def _of_entry(self, ip: int, lookup: int, entry: OrcEntry, *, exact: bool) -> KernelSite:
        saved, saved_ip = _SAVED.get(entry.type, (0, 0))
        in_entry = exact and lookup in self._entry_code()
        # Before Linux 6.4 entry code that has no stack yet is marked as an end, since then as unknown.
        end = entry.type is OrcType.END_OF_STACK or (in_entry and entry.type is OrcType.UNDEFINED)
        rule = orc.END if end else orc.rule_of(entry)
        return KernelSite(ip, exact, rule, end=end, entry=in_entry, saved=saved, saved_ip=saved_ip)

    def _while_switching(self, ip: int, entry: OrcEntry) -> OrcEntry:
        """The row of an exact ip; in __switch_to_asm between the load of the next task's rsp and the pops, what its code says.

        There the processor's stack of return addresses is filled by calls over an int3 (FILL_RETURN_BUFFER, nospec-branch.h): one of
        several alternatives, and ORC has the rows of another.
        """
        symbol = self.image.symbol(ip)
        if symbol is None or symbol.name != "__switch_to_asm":
            return entry
        code = self.memory.read(symbol.address, _SWITCH_SIZE) or b""
        load, pops, at = code.find(_LOAD_RSP), code.find(_POPS), ip - symbol.address
        if not 0 <= load < load + _LOAD_SIZE <= at <= pops:
            return entry
        pushed = sum(code[:at].endswith(_FILL * count) for count in (1, 2))
        # struct inactive_task_frame: six registers and the return address.
        return entry._replace(sp_reg=OrcRegister.SP, sp_offset=_WORD * (7 + pushed), type=OrcType.CALL)

    def _is_saver(self, pc: int) -> bool:
        symbol = self.image.symbol(pc)
        return symbol is not None and symbol.name in _SAVERS

    def _saves_registers(self, ip: int) -> bool:
        """Whether the call that ends at ip has pushed struct pt_regs, which ORC does not say of its caller before the next instruction.

        error_entry and paranoid_entry (arch/x86/entry/entry_64.S) leave it on the stack of whoever calls them.
        """
        code = self.memory.read(ip - _CALL_SIZE, _CALL_SIZE)
        if code is None or code[0] != _CALL_REL32:
            return False
        if self._savers is None:
            self._savers = frozenset(found for name in _SAVERS if (found := self.image.address(name)) is not None)
        return (ip + int.from_bytes(code[1:], "little", signed=True)) % (1 << 64) in self._savers

    def _entry_code(self) -> range:
        if self._entry is None:
            start, end = (self.image.address(f"__entry_text_{edge}") for edge in ("start", "end"))
            self._entry = range(0) if start is None or end is None else range(start, end)
        return self._entry

    def _thunk(self, pc: int) -> KernelSymbol | None:
        symbol = self.image.symbol(pc)
        if symbol is None:
            return None
        # The same code has a second name, for parts of the kernel that run at other addresses while it boots.
        name = symbol.name.removeprefix("__pi_")
        return replace(symbol, name=name) if name.startswith(_THUNKS) else None

    def _thunk_rule(self, ip: int, thunk: KernelSymbol) -> Rule | None:
        """The rule of a thunk's instruction, None where its code does not prove it.

        A thunk is called, or jumped to where the function would return or call: the return address is the topmost word, until the
        retpoline's own call pushes one more and writes the target over it.
        """
        code = self.memory.read(ip, _LONGEST)
        if code is None:
            return None
        if thunk.name.startswith(_INDIRECT):
            if ip == thunk.address or _is_jump(code) or (code.startswith(_LFENCE) and _is_jump(code[3:])):
                return _pushed(1)
            if _is_store_to_stack(code) or code[0] in {_RET, _JMP_REL32}:
                return _pushed(2)
            return None
        if code.startswith(_DROP_AND_RET):
            return _pushed(2)
        return _pushed(1) if code[0] == _RET or ip == thunk.address else None


_SAVED = {
    OrcType.REGS: (orc.PT_REGS_SIZE, orc.PT_REGS_IP),
    OrcType.REGS_PARTIAL: (orc.IRET_FRAME_SIZE, 0),
}


def _saver(entry: OrcEntry) -> OrcEntry:
    """The row of a function that pushes struct pt_regs below its own return address, which it then puts on top of them.

    ORC takes the saved registers for its caller, and so leaves out the exception's entry that called it. While the registers are pushed the
    return address is in rsi only.
    """
    return entry._replace(type=OrcType.CALL, signal=False)


def _pushed(words: int) -> Rule:
    """The rule of code that has its return address as the last of `words` words on the stack."""
    return Rule(0, 0, CfaRule(X86_64.sp, 8 * words), RegisterRule(How.OFFSET, -8), orc.LOST, trust=Trust.ORC)


def _is_jump(code: bytes) -> bool:
    """Whether the bytes begin with `jmp *%reg`."""
    at = 1 if code[0] == 0x41 else 0
    return code[at] == 0xFF and 0xE0 <= code[at + 1] <= 0xE7


def _is_store_to_stack(code: bytes) -> bool:
    """Whether the bytes begin with `mov %reg,(%rsp)`."""
    return code[0] in {0x48, 0x4C} and code[1] == 0x89 and code[2] & 0xC7 == 0x04 and code[3] == 0x24
