"""Signal frames by the kernel's layout, for trampolines of the vDSO that have no unwind data: AArch64 since Linux 5.8, and s390x."""

from __future__ import annotations

from unspool.formats.dwarf import CfaRule, How, RegisterRule
from unspool.model.arch import AARCH64, S390X, Arch
from unspool.unwind.rule import Rule

# Linux, arch/arm64/kernel/signal.c, struct rt_sigframe at sp: siginfo (128 bytes), ucontext with its sigcontext 176 bytes on;
# struct sigcontext: fault_address, regs[31], sp, pc.
_AARCH64_REGS = 128 + 176 + 8
# Linux, arch/s390/kernel/signal.c, struct rt_sigframe at sp: callee_used_stack (160), svc_insn, siginfo at 168 (128 bytes), ucontext with
# _sigregs 40 bytes on: PSW mask and address, gprs[16], access registers (64 bytes), fpc, fprs[16].
_S390X_PSW = 168 + 128 + 40
_S390X_GPRS = _S390X_PSW + 16
_S390X_FPRS = _S390X_GPRS + 128 + 64 + 8


def sigframe_rule(arch: Arch, ip: int) -> Rule | None:
    """The rule of a trampoline: its sp is a signal frame with every register of the interrupted code. None for x86-64, which has none."""
    if arch is AARCH64:
        places = {number: _AARCH64_REGS + 8 * number for number in range(32)}
        ra = _AARCH64_REGS + 8 * 32
    elif arch is S390X:
        places = {number: _S390X_GPRS + 8 * number for number in range(16)}
        places |= {arch.registers.index(f"f{number}"): _S390X_FPRS + 8 * number for number in range(16)}
        ra = _S390X_PSW + 8
    else:
        return None
    registers = tuple((number, RegisterRule(How.OFFSET, place)) for number, place in places.items())
    return Rule(ip, ip + 1, CfaRule(arch.sp, 0), RegisterRule(How.OFFSET, ra), registers, signal=True, restores_volatile=True)
