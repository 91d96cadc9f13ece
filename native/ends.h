// Where a stack may end: by address and rule, never by a symbol's name (docs/verdicts.md, rule 4).
#ifndef UNSPOOL_ENDS_H
#define UNSPOOL_ENDS_H

#include "memory.h"

// Code without FDE counts as the process's entry as far as this behind it.
#define ENTRY_CODE 64

// A thread's first frame lies at most this far below its thread pointer: between them are the thread control block and static TLS.
#define THREAD_TLS_MAX (1ULL << 20)

// Whether [begin, end) holds one of the two entry points.
ALWAYS_INLINE u32 holds_entry(const struct walk *w, u64 begin, u64 end) {
    if (w->process_entry && w->process_entry >= begin && w->process_entry < end) return 1;
    return w->interpreter_entry && w->interpreter_entry >= begin && w->interpreter_entry < end;
}

// Whether `ip`, which no FDE holds, is the code of an entry point.
ALWAYS_INLINE u32 is_entry_code(const struct walk *w, u64 ip) {
    if (w->process_entry && ip - w->process_entry <= ENTRY_CODE) return 1;
    return w->interpreter_entry && ip - w->interpreter_entry <= ENTRY_CODE;
}

// The end of a frame without row: no return address may lie below the initial stack pointer, so the stack pointer is there.
ALWAYS_INLINE u32 end_without_row(const struct walk *w) {
    if (!is_entry_code(w, w->ip) || !w->initial_sp) return STOP_NONE;
    return w->initial_sp - w->regs[REG_RSP] <= ENTRY_CODE ? STOP_END_PROCESS_ENTRY : STOP_NONE;
}

// The end of a frame whose return address is undefined, and that is not in an entry point's function; w->cfa is its CFA.
ALWAYS_INLINE u32 end_outermost(struct walk *w) {
    u64 top = w->thread_pointer;
    if (!top || w->cfa > top || top - w->cfa > THREAD_TLS_MAX) return STOP_END_UNEXPECTED;
    home_stack_bounds(w);
    if (w->cfa - 1 < w->stack_low || w->cfa - 1 >= w->stack_high) return STOP_END_UNEXPECTED;
    return top >= w->stack_low && top < w->stack_high ? STOP_END_THREAD_ENTRY : STOP_END_UNEXPECTED;
}

#endif
