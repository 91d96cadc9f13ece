"""What each stop means, in a sentence for the user, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from unspool.model.verdict import Stop


@dataclass(frozen=True, slots=True)
class Explanation:
    """One stop: `meaning` is a sentence that says what happened, `advice` one that says what to do (or that nothing needs to be done)."""

    meaning: str
    advice: str


def explain(stop: Stop) -> Explanation:
    """The sentence and the advice for a stop; every member of Stop has one.

    >>> explain(Stop.FRAME_LIMIT).advice
    'Ask for more frames (--max-frames), or look for endless recursion.'
    """
    return _EXPLANATIONS[stop]


_NOTHING = "Nothing: this is how a whole stack ends."
_REPORT = "Report it with the file: `unspool audit FILE` shows the rule."
_AGAIN = "It passes: the next sample, or another look, finds the process in a steady state."

_EXPLANATIONS = {
    Stop.NONE: Explanation("No reason was given.", "Nothing."),
    Stop.END_PROCESS_ENTRY: Explanation("The stack reaches the process's entry point.", _NOTHING),
    Stop.END_THREAD_ENTRY: Explanation("The stack reaches the place where the thread was started.", _NOTHING),
    Stop.END_SFRAME_OUTER: Explanation("The stack reaches a frame that SFrame marks as outermost.", _NOTHING),
    Stop.END_RUNTIME_ENTRY: Explanation("The stack reaches the base of a language runtime's thread.", _NOTHING),
    Stop.END_COROUTINE: Explanation(
        "The stack reaches the base of a coroutine; what resumed the coroutine is not on it.",
        "Look at the resumer's own stack if you need it: nothing is missing from this one.",
    ),
    Stop.END_KERNEL_ENTRY: Explanation(
        "The kernel stack reaches the place where the kernel was entered from user mode, or where a kernel thread begins.", _NOTHING
    ),
    Stop.NO_USER_STACK: Explanation("The thread runs in the kernel only and has no user stack.", "Nothing: kernel threads have none."),
    Stop.NO_MAPPING: Explanation(
        "The address lies in no mapping of the process.",
        "Suspect a corrupted stack, or code that was unmapped while it ran; a debugger on a core dump shows which.",
    ),
    Stop.NOT_EXECUTABLE: Explanation(
        "The address lies in memory that is not executable.", "Suspect a corrupted stack or wrong unwind data in the frame before."
    ),
    Stop.ANON_CODE: Explanation(
        "The code was generated at run time (no file backs it), so it has no unwind data.",
        "Make the runtime keep frame pointers (java -XX:+PreserveFramePointer, node --interpreted-frames-native-stack).",
    ),
    Stop.JIT_UNKNOWN: Explanation(
        "The code belongs to a just-in-time compiler that does not describe it.", "Make the runtime write a perf map or a jitdump."
    ),
    Stop.FILE_CHANGED: Explanation(
        "The file on disk is no longer the one that is mapped.", "Restart the program after its update, or give the old file back."
    ),
    Stop.FILE_UNREACHABLE: Explanation(
        "The mapped file cannot be opened from here.", "Run as root, or with CAP_SYS_PTRACE, so that the file is reached through /proc."
    ),
    Stop.MAPS_STALE: Explanation("The process changed its mappings while it was looked at.", _AGAIN),
    Stop.NO_UNWIND_INFO: Explanation(
        "The file has no unwind data for this code.",
        "Build it with -fasynchronous-unwind-tables (assembly: .cfi directives); `unspool audit FILE` lists the code without.",
    ),
    Stop.BAD_CFI: Explanation("The file's unwind data (.eh_frame) is broken at this address.", _REPORT),
    Stop.BAD_SFRAME: Explanation("The file's SFrame section is broken.", _REPORT),
    Stop.EXPR_LIMIT: Explanation("A DWARF expression of the unwind data did not end in its budget.", _REPORT),
    Stop.UNSUPPORTED_RULE: Explanation(
        "The unwind data needs a rule or a machine mode that Unspool does not support (32-bit code among them).",
        "`unspool stack --method python` knows every rule of the general form; 32-bit programs need another tool.",
    ),
    Stop.PARSE_BUDGET: Explanation("The unwind data was too large or too intricate for the budget of one look.", _REPORT),
    Stop.PARSER_DIED: Explanation(
        "The process that parses untrusted files ended before it answered.", "Ask again; if it repeats, report the file."
    ),
    Stop.REG_UNAVAILABLE: Explanation(
        "The rule needs a register that the source of this stack did not capture.",
        "Use a source with all registers: `unspool stack`, a core dump, or a fresh recording.",
    ),
    Stop.MEM_FAULT: Explanation(
        "The memory that holds the next frame cannot be read.", "Suspect a corrupted stack pointer, or a stack that overflowed its mapping."
    ),
    Stop.PAGE_ABSENT: Explanation(
        "A page of the stack or of the unwind data was not in memory, and this look was not allowed to wait for it.",
        "From Linux 6.18 on the walk is repeated with page faults, and this means that the thread ended first; before, use such a kernel.",
    ),
    Stop.SNAPSHOT_SHORT: Explanation(
        "The copied piece of stack ends before the stack does.", "Copy more bytes, or record with Unspool itself: it copies none."
    ),
    Stop.THREAD_RUNNING: Explanation(
        "The thread could not be stopped: it waits in the kernel where nothing can interrupt it.",
        "Ask again later; a thread that stays there waits for a disk, a network file system or a driver.",
    ),
    Stop.EXITED: Explanation("The thread ended before it could be looked at.", "Nothing: a thread that is gone has no stack."),
    Stop.PERMISSION: Explanation(
        "The kernel did not allow a look at this thread.",
        "Run as root or with CAP_SYS_PTRACE, and end the debugger that holds the thread, if there is one.",
    ),
    Stop.CFA_NOT_ABOVE_SP: Explanation(
        "The caller's frame would lie below its callee's.", "Suspect wrong unwind data or a corrupted stack; frames before this one stand."
    ),
    Stop.CFA_UNALIGNED: Explanation(
        "The frame's address is not aligned as the ABI demands.", "Suspect wrong unwind data or a corrupted stack."
    ),
    Stop.CYCLE: Explanation("The same frame came again, so the stack would never end.", "Suspect wrong unwind data or a corrupted stack."),
    Stop.OUTSIDE_STACK: Explanation(
        "The next frame lies outside the stack's mapping.",
        "Suspect a program that switches stacks by itself, or a corrupted frame pointer.",
    ),
    Stop.RA_NOT_EXECUTABLE: Explanation(
        "The return address does not point to executable memory.", "Suspect wrong unwind data or an overwritten stack."
    ),
    Stop.NOT_A_CALL_SITE: Explanation(
        "No call instruction stands before the return address, so nothing called from there.",
        "Suspect wrong unwind data or an overwritten stack; frames before this one stand.",
    ),
    Stop.CALL_TARGET_MISMATCH: Explanation(
        "The call before the return address goes to another function.", "Nothing if a tail call explains it."
    ),
    Stop.PAC_FAIL: Explanation("The return address does not carry the right pointer authentication code.", "Suspect an overwritten stack."),
    Stop.SHADOW_STACK_MISMATCH: Explanation(
        "The hardware's shadow stack holds other return addresses.", "Suspect an overwritten stack: treat it as an attack until explained."
    ),
    Stop.RA_REWRITTEN: Explanation(
        "A return probe (uretprobe) replaced the return address, and this source cannot see the original.",
        "Remove the probe, or use `unspool record`: the kernel knows the original address.",
    ),
    Stop.RA_RULE_NONSTANDARD: Explanation(
        "The thread is in the middle of a jump that is no return (longjmp, setcontext, swapcontext).", _AGAIN
    ),
    Stop.EH_COMMIT: Explanation(
        "The thread is in the middle of throwing an exception, which is about to drop some of these frames.", _AGAIN
    ),
    Stop.LR_AMBIGUOUS: Explanation("It cannot be told whether the link register still holds the return address.", _AGAIN),
    Stop.SIGFRAME_UNKNOWN: Explanation(
        "A signal's frame on the stack has a form that is not known.", "Report the kernel's version and the program."
    ),
    Stop.END_UNEXPECTED: Explanation(
        "The unwind data says that the stack ends here, but this is no place where a thread starts.",
        "Frames above may be missing; `unspool audit FILE` shows the rule that says so.",
    ),
    Stop.FRAME_LIMIT: Explanation(
        "The stack is deeper than the number of frames that was asked for.",
        "Ask for more frames (--max-frames), or look for endless recursion.",
    ),
    Stop.TIME_LIMIT: Explanation("The walk did not end in the time it was given.", "Ask again on a less busy machine, or report the file."),
    Stop.HEURISTIC_USED: Explanation(
        "A frame was guessed (frame pointer or stack scan) because there was no unwind data.",
        "Build the code with unwind tables; the guessed frames are marked.",
    ),
    Stop.GUEST_RUNNING: Explanation("The virtual machine ran on while its memory was read.", "Pause the machine, or ask again."),
    Stop.GUEST_PT: Explanation(
        "The guest's page tables do not lead to this address.", "Ask again; if it repeats, check the guest's paging mode."
    ),
    Stop.GUEST_NO_SYMS: Explanation("The guest's kernel could not be identified.", "Give its vmlinux or its kallsyms."),
}
