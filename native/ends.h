// Where a stack may end: by address and rule, never by a symbol's name (docs/verdicts.md, rule 4).
#ifndef UNSPOOL_ENDS_H
#define UNSPOOL_ENDS_H

#include "reliability.h"

// Code without FDE counts as the process's entry as far as this behind it.
#define ENTRY_CODE 64

// A thread's first frame lies at most this far below its thread pointer: between them are the thread control block and static TLS.
#define THREAD_TLS_MAX (1ULL << 20)

// Whether [begin, end) holds one of the two entry points.
ALWAYS_INLINE u32 holds_entry(const struct walk *w, u64 begin, u64 end) {
    if (w->process_entry && w->process_entry >= begin && w->process_entry < end) return 1;
    return w->interpreter_entry && w->interpreter_entry >= begin && w->interpreter_entry < end;
}

// How far below the initial stack pointer the frame of the entry point may reach, and how far above it (it takes argc off).
#define ENTRY_FRAME 32
#define ENTRY_TAKEN 64

// The end of a frame in the FDE of an entry point whose return address is undefined. Other code may share the FDE, so the stack must begin there.
ALWAYS_INLINE u32 end_at_entry(const struct walk *w) {
    if (!w->initial_sp || w->initial_sp + ENTRY_TAKEN - w->regs[REG_RSP] <= ENTRY_TAKEN + ENTRY_FRAME) return STOP_END_PROCESS_ENTRY;
    return STOP_END_UNEXPECTED;
}

// Whether `ip`, which no FDE holds, is the code of an entry point.
ALWAYS_INLINE u32 is_entry_code(const struct walk *w, u64 ip) {
    if (w->process_entry && ip - w->process_entry <= ENTRY_CODE) return 1;
    return w->interpreter_entry && ip - w->interpreter_entry <= ENTRY_CODE;
}

// What a thread's first instructions take off its stack at most: clone() of glibc passes the function and its argument there.
#define BIRTH_TAKEN 16
#define BIRTH_ALIGNED 15

// Whether the frame at ip is the first one of a thread whose creator waits for it: it runs where the thread began, and its stack pointer lies from
// `low` to `high`, so that nothing it called is pending above. A stack that begins among its creator's frames would have those above itself: the
// creator's stack pointer lies above, or the end of the creator's stack (a thread's is its thread pointer) between the two.
ALWAYS_INLINE u32 is_birth(const struct walk *w, u64 low, u64 high) {
    const struct birth *birth = &w->birth;
    if (w->ip - !w->exact - birth->ip >= BIRTH_CODE || w->regs[REG_RSP] - low > high - low) return 0;
    return birth->creator_sp > birth->sp || w->thread_pointer - birth->creator_sp - 1 < birth->sp - birth->creator_sp;
}

// The end of a frame without row: a thread's first instructions; or the stack pointer is all but at its first value, and no word between the two is an address that a call instruction
// ends at: what the entry point called is not its code. An end, a stop that may pass, or STOP_NONE.
ALWAYS_INLINE u32 end_without_row(struct walk *w) {
    u64 sp = w->regs[REG_RSP];
    // The instruction behind the system call: glibc ends the FDE before it.
    if (w->exact && home_birth(w) && is_birth(w, w->birth.sp, w->birth.sp)) return STOP_END_THREAD_ENTRY;
    if (!is_entry_code(w, w->ip) || !w->initial_sp || w->initial_sp - sp > ENTRY_CODE) return STOP_NONE;
    for (u32 i = 1; i <= ENTRY_CODE / 8; i++) {
        u64 word = 0;
        if (w->initial_sp - sp < 8 * i) break;
        int stop = stack_word(w, w->initial_sp - 8 * i, &word);
        if (stop) return is_passing((u32)stop) ? (u32)stop : STOP_NONE;
        // A word that is no address of code is not looked at: in the kernel, pages that nobody needs are not to be brought in.
        int none = home_find_module(w, word - 1);
        w->module.start = w->module.end = 0;
        if (none && is_passing((u32)none)) return (u32)none;
        if (none) continue;
        int call = follows_call(w, word);
        if (call < 0) return (u32)-call;
        if (call) return STOP_NONE;
    }
    return STOP_END_PROCESS_ENTRY;
}

// Whether the CFA in w->cfa is where a thread's stack begins: right below its TLS, in the same mapping. Code that no system call stands before is not where
// a thread begins, whatever its row says.
ALWAYS_INLINE u32 is_thread_base(struct walk *w) {
    u64 top = w->thread_pointer;
    if (!(w->row.flags & ROW_BIRTH)) return 0;
    if (!top || w->cfa > top || top - w->cfa > THREAD_TLS_MAX) return 0;
    home_stack_bounds(w);
    if (w->cfa - 1 < w->stack_low || w->cfa - 1 >= w->stack_high) return 0;
    return top >= w->stack_low && top < w->stack_high;
}

// The end of a frame whose return address is undefined, and that is not in an entry point's function; w->cfa is its CFA. The TLS of a thread whose
// birth is known is its creator's.
ALWAYS_INLINE u32 end_outermost(struct walk *w) {
    if (!home_birth(w)) return is_thread_base(w) ? STOP_END_THREAD_ENTRY : STOP_END_UNEXPECTED;
    u64 sp = w->birth.sp;
    return is_birth(w, sp & ~(u64)BIRTH_ALIGNED, sp + BIRTH_TAKEN) ? STOP_END_THREAD_ENTRY : STOP_END_UNEXPECTED;
}

#endif
