// The row of one ip: found in the unwind data, judged (reliability.h), and left in w->row for the home to cache.
#ifndef UNSPOOL_ROW_FIND_H
#define UNSPOOL_ROW_FIND_H

#include "frame_search.h"
#include "reliability.h"

// mov $15,%rax; syscall and mov $15,%eax; syscall: rt_sigreturn, which musl and Go return to without any unwind data.
#define SIGRETURN_RAX 0x0f0000000fc0c748ULL
#define SIGRETURN_EAX 0x050f0000000fb8ULL

ALWAYS_INLINE void row_stop(struct walk *w, u32 stop) {
    __builtin_memset(&w->row, 0, sizeof(w->row));
    w->row.flags = ROW_STOP;
    w->row.stop = (u8)stop;
}

// Whether the code at `ip` is a signal trampoline without unwind data; 1 or 0, or a negative stop that may pass.
SHARED int is_sigreturn(struct walk *w, u64 ip) {
    if (!w) return 0;
    int stop = code_number(w, ip, 8);
    if (stop) return is_passing((u32)stop) ? -stop : 0;
    if (w->value == SIGRETURN_RAX) return code_byte(w, ip + 8) == 0x05;
    return (w->value & 0xffffffffffffffULL) == SIGRETURN_EAX;
}

// The marks of the row in w->row that follow from its rules alone.
SHARED int row_marks(struct walk *w, u64 pc) {
    if (!w) return 0;
    struct row *row = &w->row;
    struct rule ra = row->rules[SLOT_RA];
    u32 at_home = ra.kind == RULE_AT_CFA && ra.offset == -8;
    u32 standard = at_home && !w->cfi.signal && (row->cfa_kind == CFA_REG || row->cfa_kind == CFA_FORM);
    row->saved = 0;
    for (u32 slot = 0; slot < SLOT_COUNT; slot++) {
        if (slot == SLOT_RA || row->rules[slot].kind == RULE_SAME) continue;
        row->saved |= (u8)(1u << slot);
        if (row->rules[slot].kind != RULE_AT_CFA || slot == SLOT_RSP) standard = 0;
    }
    row->flags = standard ? ROW_STANDARD : 0;
    if (w->cfi.signal) {
        row->flags |= ROW_SIGNAL;
        u32 kernel_cfa = row->cfa_kind == CFA_DEREF && row->cfa_base == REG_RSP && row->cfa_inner == 160 && row->cfa_offset == 0;
        if (kernel_cfa && ra.kind == RULE_AT_REG && ra.base == REG_RSP && ra.offset == 168) row->flags |= ROW_SIGCONTEXT;
    }
    if (row->cfa_kind == CFA_NONE) return row_stop(w, STOP_BAD_CFI), 0;
    if (row->cfa_kind == CFA_UNSUPPORTED || ra.kind == RULE_UNSUPPORTED || ra.kind == RULE_SAME) return row_stop(w, STOP_UNSUPPORTED_RULE), 0;
    struct rule fp = row->rules[SLOT_RBP];
    if (w->ip == pc && fp.kind == RULE_AT_REG && fp.base == REG_RBP && fp.offset == 0 && row->cfa_base != REG_RBP) row->flags |= ROW_LOST_RBP;
    if (ra.kind == RULE_UNDEFINED) {
        row->flags = (u16)(row->flags | ROW_OUTERMOST);
        u64 before = pc - w->cfi.pc_begin;
        u64 after = w->cfi.pc_end - pc;
        row->function.before = before < 0xffffffff ? (u32)before : 0;
        row->function.after = after < 0xffffffff ? (u32)after : 0;
    } else if (!at_home && !w->cfi.signal) {
        row->flags |= ROW_NONSTANDARD;
    }
    return 0;
}

// R9b for the row in w->row: sets its mark; 0 or a stop that may pass.
ALWAYS_INLINE int row_commit_mark(struct walk *w, u64 pc, u32 exact) {
    if (w->row.ehdata != 3 || (w->row.flags & (ROW_SIGNAL | ROW_STOP))) return 0;
    int committing = 1;
    if (!exact) {
        int stop = cfi_row(w, pc, 1);
        if (stop == STOP_PAGE_ABSENT || stop == STOP_PARSE_BUDGET) return stop;
        if (!stop) committing = may_be_committing(w, pc + 1);
        if (committing < 0) return -committing;
    }
    if (committing) w->row.flags |= ROW_EH_COMMIT;
    return 0;
}

// What only the code tells of the row in w->row: R9b's mark, and whether a thread may begin there; 0 or a stop that may pass.
ALWAYS_INLINE int row_code_marks(struct walk *w, u64 pc) {
    if (w->row.flags & ROW_OUTERMOST) {
        int follows = follows_syscall(w, pc);
        if (follows < 0) return -follows;
        if (follows) w->row.flags |= ROW_BIRTH;
    }
    return row_commit_mark(w, pc, w->ip == pc);
}

// The row that SFrame gave (w->sframe) into w->row; of the CFI only R9b's part is asked, which SFrame does not know. `stop` says what the CFI has.
ALWAYS_INLINE int row_of_sframe(struct walk *w, u64 pc, int stop) {
    if (is_passing((u32)stop)) return stop;
    struct cfi *cfi = &w->cfi;
    u64 begin = cfi->pc_begin, end = cfi->pc_end;
    u8 signal = cfi->signal;
    w->row = w->sframe.row;
    cfi->pc_begin = w->sframe.begin;
    cfi->pc_end = w->sframe.end;
    cfi->signal = w->sframe.signal != 0;
    row_marks(w, pc);
    cfi->pc_begin = begin;
    cfi->pc_end = end;
    cfi->signal = signal;
    w->row.flags |= ROW_SFRAME;
    // A function without CFI cannot commit an exception: the unwinder that does reads its own CFI first.
    w->row.ehdata = stop ? 0 : cfi->row.ehdata;
    return row_code_marks(w, pc);
}

// What the module's SFrame section says of `pc`: 0 with the row in w->sframe, NO_UNWIND_INFO, or a stop that may pass.
ALWAYS_INLINE int row_in_sframe(struct walk *w, u64 pc) {
    if (!w->module.sframe || !(w->methods & METHOD_SFRAME)) return STOP_NO_UNWIND_INFO;
    int said = sframe_find(w, pc);
    if (said && !is_passing((u32)said) && said != STOP_NO_UNWIND_INFO) {
        sframe_drop(w);
        said = STOP_NO_UNWIND_INFO;
    }
    return said;
}

// The row for the lookup address `pc` of the frame at w->ip into w->row, ROW_STOP when there is none; 0, or a stop that may pass.
ALWAYS_INLINE int row_at(struct walk *w, u64 pc) {
    int stop = module_at(w, pc);
    int said = stop ? STOP_NO_UNWIND_INFO : row_in_sframe(w, pc);
    if (is_passing((u32)said)) return said;
    if (!stop) stop = fde_find(w, pc);
    if (!stop) {
        int start_context = is_start_context(w);
        if (start_context < 0) return -start_context;
        stop = cfi_row(w, pc, 0);
        if (start_context && !is_passing((u32)stop)) {
            w->row = w->cfi.row;
            w->row.flags = ROW_COROUTINE;
            return 0;
        }
    }
    if (!said) return row_of_sframe(w, pc, stop);
    if (!stop && !(w->methods & METHOD_CFI)) stop = STOP_NO_UNWIND_INFO;
    if (stop == STOP_NO_UNWIND_INFO) {
        int sigreturn = is_sigreturn(w, pc);
        if (sigreturn < 0) return -sigreturn;
        if (sigreturn) stop = STOP_SIGFRAME_UNKNOWN;
    }
    if (stop == STOP_NO_UNWIND_INFO && (w->module.flags & MODULE_BAD_SFRAME)) stop = STOP_BAD_SFRAME;
    if (is_passing((u32)stop)) return stop;
    if (stop) {
        // Unwind data that cannot be read is broken; why a mapping has none is known.
        row_stop(w, stop == STOP_MEM_FAULT || stop == STOP_SNAPSHOT_SHORT ? STOP_BAD_CFI : (u32)stop);
        return 0;
    }
    w->row = w->cfi.row;
    row_marks(w, pc);
    return row_code_marks(w, pc);
}

// Whether the row in w->row, of a return address that follows no call, says that the address is the very instruction: a trampoline to which a handler
// returns, or a coroutine's base.
ALWAYS_INLINE u32 row_is_base(const struct walk *w) {
    if (w->row.flags & ROW_SIGNAL) return 1;
    if (w->row.flags & ROW_STOP) return w->row.stop == STOP_SIGFRAME_UNKNOWN;
    return w->row.flags & ROW_COROUTINE;
}

// Decides the row of the frame at w->ip: 0 with the row in w->row, or a stop that may pass.
// A return address that follows no call may be a trampoline's or a coroutine's first instruction: it is looked up as it is, too (ROW_EXACT).
SHARED int row_decide(struct walk *w) {
    if (!w) return STOP_BAD_CFI;
    u64 ip = w->ip;
    int call = w->exact ? 1 : follows_call(w, ip);
    if (call < 0) return -call;
    u32 as_is = w->exact || !call;
    for (u32 turn = 0; turn < 2; turn++) {
        int stop = row_at(w, as_is ? ip : ip - 1);
        if (stop) return stop;
        if (w->exact || !as_is) break;
        if (row_is_base(w)) {
            w->row.flags |= ROW_EXACT;
            return 0;
        }
        as_is = 0;
    }
    if (call) return 0;
    int leaves = is_context_exit(w, ip);
    if (leaves < 0) return -leaves;
    if (leaves) {
        row_stop(w, STOP_END_COROUTINE);
        w->row.flags = ROW_COROUTINE | ROW_EXACT;
    } else {
        w->row.flags |= ROW_NOT_CALL;
    }
    return 0;
}

#endif
