// From a frame to its caller: the row in w->row applied to the registers, with every guard.
#ifndef UNSPOOL_STEP_H
#define UNSPOOL_STEP_H

#include "row_find.h"

// The DWARF number of a slot of SLOT_RBX .. SLOT_R15.
ALWAYS_INLINE u32 register_of(u32 slot) {
    if (slot == SLOT_RBX) return REG_RBX;
    if (slot == SLOT_RBP) return REG_RBP;
    return (slot + 10) & 15;
}

// The CFA into w->cfa; 0 or a stop.
ALWAYS_INLINE int step_cfa(struct walk *w) {
    u32 base = w->row.cfa_base & 31;
    if (!(w->known >> base & 1)) return STOP_REG_UNAVAILABLE;
    u64 cfa = w->regs[masked(base, 15)];
    if (w->row.cfa_kind == CFA_DEREF) {
        int stop = stack_word(w, cfa + (u64)(s64)w->row.cfa_inner, &cfa);
        if (stop) return stop;
    }
    w->cfa = cfa + (u64)(s64)w->row.cfa_offset;
    return 0;
}

// Whether the caller's sp can be this: it is above the frame's, but for a frame that runs and has taken its return address off the stack (vfork of glibc).
ALWAYS_INLINE int is_outwards(const struct walk *w, u64 sp) {
    u64 own = w->regs[REG_RSP];
    return sp > own || (sp == own && w->exact && w->row.flags & ROW_NONSTANDARD);
}

// The CFA is a multiple of 8; and but for signal frames, which may have changed stacks, it lies further out and on the same stack. 0 or a stop.
ALWAYS_INLINE int step_guards(struct walk *w) {
    u64 cfa = w->cfa;
    if (cfa & 7) return STOP_CFA_UNALIGNED;
    if (w->row.flags & ROW_SIGNAL) return 0;
    if (!is_outwards(w, cfa)) return STOP_CFA_NOT_ABOVE_SP;
    if (w->stack_high && cfa - 1 - w->stack_low >= w->stack_high - w->stack_low) return STOP_OUTSIDE_STACK;
    return 0;
}

// The caller's value of a slot into w->next; 0 or a stop. A value that cannot be had is not known: only a later use of it is an error.
ALWAYS_INLINE int step_slot(struct walk *w, u32 slot) {
    struct rule rule = w->row.rules[masked(slot, 7)];
    u32 base = rule.base & 31;
    u64 value = w->cfa;
    if (rule.kind == RULE_UNDEFINED || rule.kind == RULE_UNSUPPORTED) return 0;
    if (rule.kind == RULE_AT_REG || rule.kind == RULE_REG_VALUE) {
        if (!(w->known >> base & 1)) return slot == SLOT_RA ? STOP_REG_UNAVAILABLE : 0;
        value = w->regs[masked(base, 15)];
    }
    value += (u64)(s64)rule.offset;
    if (rule.kind == RULE_AT_CFA || rule.kind == RULE_AT_REG) {
        int stop = stack_word(w, value, &value);
        if (stop) return stop;
    }
    w->next[masked(slot, 7)] = value;
    w->next_known |= 1u << slot;
    return 0;
}

// The registers that only a signal frame gives back (ucontext_t at rsp: arch/x86/include/uapi/asm/sigcontext.h): rax, rdx, rcx, rsi, rdi, r8-r11.
ALWAYS_INLINE int step_sigcontext(struct walk *w) {
    u64 sp = w->regs[REG_RSP];
    u64 word[9];
    int stop = 0;
    for (u32 i = 0; i < 4; i++)
        if (!stop) stop = stack_word(w, sp + 40 + 8 * i, &word[i]);
    if (!stop) stop = stack_word(w, sp + 104, &word[4]);
    if (!stop) stop = stack_word(w, sp + 112, &word[5]);
    if (!stop) stop = stack_word(w, sp + 136, &word[6]);
    if (!stop) stop = stack_word(w, sp + 144, &word[7]);
    if (!stop) stop = stack_word(w, sp + 152, &word[8]);
    if (stop) return stop;
    for (u32 i = 0; i < 4; i++) w->regs[REG_R8 + i] = word[i];
    w->regs[REG_RDI] = word[4];
    w->regs[REG_RSI] = word[5];
    w->regs[REG_RDX] = word[6];
    w->regs[REG_RAX] = word[7];
    w->regs[REG_RCX] = word[8];
    return 0;
}

// The step by any row: all slots, then the registers at once, so that a walk that is resumed finds them as they were. 0 or a stop.
SHARED int step_general(struct walk *w) {
    if (!w) return STOP_BAD_CFI;
    u32 flags = w->row.flags;
    u32 known = w->known & (flags & ROW_SFRAME ? REGS_SFRAME : REGS_KEPT);
    u64 sp = w->cfa;
    w->next_known = 0;
    for (u32 slot = 0; slot < SLOT_COUNT; slot++) {
        if (slot != SLOT_RA && !(w->row.saved >> slot & 1)) continue;
        int stop = step_slot(w, slot);
        if (stop) return stop;
    }
    if (!(w->next_known >> SLOT_RA & 1)) return STOP_UNSUPPORTED_RULE;
    if (w->row.saved >> SLOT_RSP & 1) {
        if (w->row.rules[SLOT_RSP].kind == RULE_UNSUPPORTED) return STOP_UNSUPPORTED_RULE;
        if (w->next_known >> SLOT_RSP & 1) sp = w->next[SLOT_RSP];
        if (!(flags & ROW_SIGNAL) && (!is_outwards(w, sp) || sp > w->cfa)) return STOP_CFA_NOT_ABOVE_SP;
    }
    if (flags & ROW_SIGCONTEXT) {
        int stop = step_sigcontext(w);
        if (stop) return stop;
        known = REGS_ALL;
    }
    for (u32 slot = 0; slot <= SLOT_R15; slot++) {
        if (!(w->row.saved >> slot & 1)) continue;
        u32 number = register_of(slot);
        if (w->next_known >> slot & 1)
            w->regs[masked(number, 15)] = w->next[masked(slot, 7)];
        else
            known &= ~(1u << number);
    }
    w->regs[REG_RSP] = sp;
    w->known = known;
    w->ip = w->next[SLOT_RA];
    w->exact = (flags & ROW_SIGNAL) != 0;
    return 0;
}

// The step by a row that only loads from below the CFA: nearly all are. 0 or a stop.
ALWAYS_INLINE int step_standard(struct walk *w) {
    u64 cfa = w->cfa;
    u64 value[SLOT_RA] = {0};
    u64 ra;
    u32 saved = w->row.saved;
    int stop = stack_word(w, cfa - 8, &ra);
    if (stop) return stop;
#define LOAD(slot)                                                                                 \
    if (saved >> (slot) & 1) {                                                                     \
        stop = stack_word(w, cfa + (u64)(s64)w->row.rules[slot].offset, &value[slot]);             \
        if (stop) return stop;                                                                     \
    }
#define KEEP(slot, number) \
    if (saved >> (slot) & 1) w->regs[number] = value[slot];
    LOAD(SLOT_RBP)
    LOAD(SLOT_RBX)
    LOAD(SLOT_R12)
    LOAD(SLOT_R13)
    LOAD(SLOT_R14)
    LOAD(SLOT_R15)
    KEEP(SLOT_RBP, 6)
    KEEP(SLOT_RBX, 3)
    KEEP(SLOT_R12, 12)
    KEEP(SLOT_R13, 13)
    KEEP(SLOT_R14, 14)
    KEEP(SLOT_R15, 15)
#undef LOAD
#undef KEEP
    w->known = (w->known & (w->row.flags & ROW_SFRAME ? REGS_SFRAME : REGS_KEPT)) | (saved & 1) << REG_RBX | (saved >> SLOT_RBP & 1) << REG_RBP | (saved >> SLOT_R12 & 15) << REG_R12;
    w->regs[REG_RSP] = cfa;
    w->ip = ra;
    w->exact = 0;
    return 0;
}

#endif
