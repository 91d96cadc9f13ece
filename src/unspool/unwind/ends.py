"""Accepted ends (rule R6): where a process, a thread or a coroutine begins, known by address and code, never by a symbol's name."""

from __future__ import annotations

from unspool.model.arch import X86_64, Arch
from unspool.model.memory import Memory
from unspool.model.module import AddressSpace
from unspool.model.thread import Birth, EntryPoints, Thread
from unspool.model.verdict import Stop
from unspool.unwind.rule import Rule

NEAR_ENTRY = 64
"""An entry point without unwind data is believed to be this many bytes long."""
NEAR_INITIAL_SP = 64
"""How far below the initial stack pointer an entry point's own sp may be: it aligns the stack."""
ENTRY_FRAME = {"x86_64": 32, "aarch64": 32, "s390x": 192}
"""How far below the initial stack pointer the entry point's own frame may reach: glibc's pushes 16, 0 and 176 bytes."""
NEAR_THREAD_POINTER = 1 << 20
"""The static TLS and the thread's descriptor lie between the first frame of a thread and its thread pointer: 1 MiB at most."""
BIRTH_CODE = 64
"""A thread's first instructions reach this far behind the system call that made it."""
_SYSCALL = b"\x0f\x05"
BIRTH_TAKEN = 16
"""What they take off the thread's stack at most: clone() of glibc passes the function and its argument there."""
_BIRTH_ALIGNED = 15
_WORD = 8

# glibc, sysdeps/unix/sysv/linux/x86_64/__start_context.S: mov %rbx,%rsp; mov (%rsp),%rdi. makecontext makes it the return address.
_START_CONTEXT = bytes.fromhex("4889dc488b3c24")
_START_CONTEXT_SIZE = 64
# Boost.Context, make_x86_64_sysv_elf_gas.S, label finish: xor %rdi,%rdi; call _exit; hlt, in later releases behind an endbr64.
_ENDBR64 = bytes.fromhex("f30f1efa")
_FINISH = bytes.fromhex("4831ffe8")
_HLT = 0xF4

# rt_sigreturn (Linux, arch/*/kernel/signal.c): mov $15,%rax or %eax; syscall - mov x8,#139; svc #0 - svc 173.
_SIGRETURN = {
    "x86_64": (bytes.fromhex("48c7c00f0000000f05"), bytes.fromhex("b80f0000000f05")),
    "aarch64": (bytes.fromhex("681180d2010000d4"),),
    "s390x": (bytes.fromhex("0aad"),),
}


def is_entry(rule: Rule, ends: EntryPoints) -> bool:
    """Whether the function holds an entry point of the process."""
    return any(entry is not None and rule.start <= entry < rule.end for entry in (ends.process, ends.interpreter))


def is_bare_entry(ip: int, ends: EntryPoints) -> bool:
    """Whether an ip without unwind data lies just behind an entry point of the process."""
    return any(entry is not None and 0 <= ip - entry <= NEAR_ENTRY for entry in (ends.process, ends.interpreter))


def at_initial_sp(cfa: int, ends: EntryPoints) -> bool:
    """Whether the CFA is the initial sp, or lies one word above: where a row assumes a return address that the kernel did not push."""
    return ends.initial_sp is not None and cfa in {ends.initial_sp, ends.initial_sp + _WORD}


def near_initial_sp(sp: int, ends: EntryPoints) -> bool:
    """Whether an entry point without unwind data has nothing but alignment on its stack."""
    return ends.initial_sp is not None and 0 <= ends.initial_sp - sp <= NEAR_INITIAL_SP


def is_first_frame(sp: int, ends: EntryPoints, arch: Arch) -> bool:
    """Whether the sp of an entry point's frame is where the stack began: its function may hold other code too (AArch64's __wrap_main).

    True where the initial sp is not known.
    """
    return ends.initial_sp is None or -NEAR_INITIAL_SP <= ends.initial_sp - sp <= ENTRY_FRAME[arch.name]


def outermost_end(rule: Rule, ip: int, sp: int, thread: Thread, *, base: bool) -> Stop:
    """Which end a frame without a caller is, by its lookup address and sp; END_UNEXPECTED when it is none.

    `base`: it lies where a thread's stack begins, and a thread may begin in its code.
    """
    birth = thread.birth
    if is_entry(rule, thread.ends):
        return Stop.END_PROCESS_ENTRY
    if birth is not None:
        # The TLS of a thread whose birth is known is its creator's.
        first = birth.sp & ~_BIRTH_ALIGNED <= sp <= birth.sp + BIRTH_TAKEN
        base = first and is_birth_code(ip, birth, thread.registers.thread_pointer)
    return Stop.END_THREAD_ENTRY if base else Stop.END_UNEXPECTED


def is_newborn(ip: int, sp: int, thread: Thread) -> bool:
    """Whether an exact ip without unwind data is the thread's first instruction: glibc ends clone's FDE before the system call."""
    birth = thread.birth
    return birth is not None and sp == birth.sp and is_birth_code(ip, birth, thread.registers.thread_pointer)


def is_birth_code(ip: int, birth: Birth, thread_pointer: int | None) -> bool:
    """Whether a lookup address is among a thread's first instructions, and its stack does not begin among its creator's frames.

    Those would be above its own. They are not where the creator's stack pointer lies above, or the end of the creator's stack between the
    two: a thread's is its thread pointer.
    """
    if not 0 <= ip - birth.ip < BIRTH_CODE:
        return False
    return birth.creator_sp > birth.sp or birth.creator_sp < (thread_pointer or 0) <= birth.sp


def is_thread_base(cfa: int, space: AddressSpace, thread_pointer: int | None, arch: Arch) -> bool:
    """Whether the CFA is where a thread's stack begins: right below its TLS, in the same mapping."""
    stack = space.find(cfa - 1)
    if stack is None:
        return False
    if thread_pointer is not None:
        return 0 <= thread_pointer - cfa <= NEAR_THREAD_POINTER and thread_pointer in stack
    return arch is not X86_64 and stack.end - cfa <= NEAR_THREAD_POINTER


def follows_syscall(memory: Memory, ip: int, arch: Arch) -> bool:
    """Whether a system call instruction stands right before a lookup address, so that a thread may begin there; True but for x86-64."""
    if arch is not X86_64:
        return True
    after = b""
    for distance in range(1, BIRTH_CODE + 1):
        byte = memory.read(ip - distance, 1) if ip >= distance else None
        if byte is None or byte + after == _SYSCALL:
            return byte is not None
        after = byte
    return False


def is_start_context(memory: Memory, function: Rule, arch: Arch) -> bool:
    """Whether the function is the base of a coroutine that makecontext made."""
    if arch is not X86_64 or function.end - function.start > _START_CONTEXT_SIZE:
        return False
    return memory.read(function.start, len(_START_CONTEXT)) == _START_CONTEXT


def is_context_exit(memory: Memory, ip: int, arch: Arch) -> bool:
    """Whether the code at a return address that no call made is the exit of Boost.Context."""
    if arch is not X86_64:
        return False
    if memory.read(ip, len(_ENDBR64)) == _ENDBR64:
        ip += len(_ENDBR64)
    code = memory.read(ip, 9)
    return code is not None and code.startswith(_FINISH) and code[8] == _HLT


def is_sigreturn(memory: Memory, ip: int, arch: Arch) -> bool:
    """Whether the code at ip is a signal trampoline's system call."""
    return any(memory.read(ip, len(code)) == code for code in _SIGRETURN[arch.name])
