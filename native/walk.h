// The walk: from a thread's registers outwards, frame by frame, to an accepted end or to the reason why not.
//
//   walk_start(w)   after the home filled the "in" part of the state: walks until w->stop is set.
//   walk_resume(w)  after PAGE_ABSENT (the home brought the page in: bpf_copy_from_user of 1 byte at w->fault and at w->fault + w->fault_size - 1,
//                   or locked the mappings) or PARSE_BUDGET (the home raised w->work): goes on at the frame where it stopped.
//   walk_give_up(w, stop)  instead of walk_resume, when the page cannot be brought in (MEM_FAULT).
//
// After each of them w->stop, w->first_bad_frame and w->bad_reason hold: a stack is reliable when first_bad_frame is NO_BAD_FRAME.
// Depth in BPF: walk_start is inline; below it are at most 7 nested frames (row_decide -> scan_body -> fde_parse -> take_leb -> code_byte).
#ifndef UNSPOOL_WALK_H
#define UNSPOOL_WALK_H

#include "ends.h"
#include "step.h"

// Work of an immediate walk (in an interrupt), of a deferred one, and of one in user space.
#define WORK_IMMEDIATE (1u << 15)
#define WORK_DEFERRED (1u << 19)
#define WORK_USER (1u << 23)

// Steps of one run at most: bpf_loop's own limit is 1 << 23.
#define STEPS_MAX (1u << 22)

// Notes a suspect frame: the innermost counts, and of one frame the first reason.
ALWAYS_INLINE void mark(struct walk *w, u32 frame, u32 reason) {
    if (w->mark_frame <= frame) return;
    w->mark_frame = frame;
    w->mark_reason = reason;
}

// Appends the frame at ip; 0, or FRAME_LIMIT.
ALWAYS_INLINE int place(struct walk *w, u32 placed) {
    u32 marks = w->depth ? w->trust : TRUST_REGISTERS;
    if (w->exact) marks |= FRAME_EXACT;
    if (placed == PLACED && (w->row.flags & ROW_SIGNAL)) marks |= FRAME_SIGNAL;
    int stop = w->depth >= w->max_frames ? STOP_FRAME_LIMIT : home_put_frame(w, w->ip, marks);
    if (stop) return stop;
    w->depth++;
    w->placed = placed;
    return 0;
}

// The module of the frame at ip. A return address must lie in executable memory, else there is no such frame. 0 with w->module; or a stop.
SHARED int enter_module(struct walk *w) {
    if (!w) return STOP_NO_MAPPING;
    int stop = module_at(w, w->ip - !w->exact);
    if (!stop) return 0;
    // The trampoline of uretprobes is the first byte of its page.
    if (!w->exact && stop == STOP_NO_MAPPING && home_find_module(w, w->ip) == STOP_RA_REWRITTEN) return STOP_RA_REWRITTEN;
    w->stop_address = w->ip;
    if (is_passing((u32)stop)) return stop;
    if (w->depth && !w->exact && stop != STOP_RA_REWRITTEN) {
        // The return address of a uretprobe is the first byte of [uprobes].
        int there = home_find_module(w, w->ip);
        w->module.start = w->module.end = 0;
        w->module.flags = 0;
        if (there == STOP_RA_REWRITTEN) stop = there;
    }
    if (w->depth && (stop == STOP_NO_MAPPING || stop == STOP_NOT_EXECUTABLE)) return STOP_RA_NOT_EXECUTABLE;
    if (w->depth && stop == STOP_RA_REWRITTEN) return stop;
    row_stop(w, (u32)stop);
    int full = place(w, PLACED);
    return full ? full : stop;
}

// A return address in [uprobes]: the one it replaced, where the home knows it; 0 or RA_REWRITTEN.
SHARED int unwrap_return(struct walk *w) {
    if (!w) return STOP_RA_REWRITTEN;
    if (!w->depth) return STOP_RA_REWRITTEN;
    u64 original = 0;
    int stop = home_original_return(w, &original);
    if (!stop) w->ip = original;
    return stop;
}

// The CFA of a frame that has no caller, for the home to know; 0 or a stop.
ALWAYS_INLINE int last_cfa(struct walk *w) {
    int stop = step_cfa(w);
    if (!stop) home_frame_cfa(w);
    return stop;
}

// What is special about the row of the frame just put: marks, ends, and why it has none. 0 or a stop.
SHARED int enter_row(struct walk *w) {
    if (!w) return STOP_BAD_CFI;
    u32 flags = w->row.flags;
    u32 frame = w->depth - 1;
    w->stop_address = w->ip;
    if (flags & ROW_NOT_CALL) mark(w, frame, STOP_NOT_A_CALL_SITE);
    if (flags & ROW_COROUTINE) {
        if (w->row.cfa_kind != CFA_NONE && w->row.cfa_kind != CFA_UNSUPPORTED) last_cfa(w);
        return STOP_END_COROUTINE;
    }
    if (flags & ROW_STOP) {
        u32 end = w->row.stop == STOP_NO_UNWIND_INFO ? end_without_row(w) : (u32)STOP_NONE;
        return (int)(end ? end : w->row.stop);
    }
    if (flags & ROW_NONSTANDARD) mark(w, frame, STOP_RA_RULE_NONSTANDARD);
    if (flags & ROW_LOST_RBP) mark(w, frame, STOP_BAD_CFI);
    if (flags & ROW_EH_COMMIT) mark(w, frame, STOP_EH_COMMIT);
    if (flags & ROW_OUTERMOST) {
        u64 lookup = w->ip - !w->exact;
        int stop = last_cfa(w);
        u32 entry = holds_entry(w, lookup - w->row.function.before, lookup + w->row.function.after);
        if (!entry && stop) return stop;
        u32 end = entry ? end_at_entry(w) : end_outermost(w);
        return (int)(STOP_IS_END(end) && (flags & ROW_SFRAME) ? STOP_END_SFRAME_OUTER : end);
    }
    return 0;
}

// Whether the frame at ip, whose CFA is at the initial stack pointer, is in an entry point's FDE: END_PROCESS_ENTRY, or 0, or a stop that may pass.
SHARED int enter_entry(struct walk *w) {
    if (!w) return 0;
    u64 lookup = w->ip - !w->exact;
    int stop = fde_find(w, lookup);
    if (stop) return is_passing((u32)stop) ? stop : 0;
    return holds_entry(w, w->cfi.pc_begin, w->cfi.pc_end) ? STOP_END_PROCESS_ENTRY : 0;
}

// The frame behind a signal frame: on whichever stack was interrupted. CFAs grow everywhere else, so only here can a walk come back to where it was.
SHARED int leave_signal(struct walk *w) {
    if (!w) return STOP_CYCLE;
    if (w->ip == w->cycle_ip && w->regs[REG_RSP] == w->cycle_sp) return STOP_CYCLE;
    w->signals++;
    if ((w->signals & (w->signals - 1)) == 0) {
        w->cycle_ip = w->ip;
        w->cycle_sp = w->regs[REG_RSP];
    }
    home_stack_bounds(w);
    return 0;
}

// The row of the frame at ip into w->row; 0 or a stop.
ALWAYS_INLINE int enter_frame(struct walk *w) {
    u64 lookup = w->ip - !w->exact;
    if (lookup - w->module.start >= w->module.end - w->module.start || !(w->module.flags & MODULE_PARSED)) {
        int stop = enter_module(w);
        if (stop) return stop;
    }
    u64 key = w->exact ? w->ip | KEY_EXACT : w->ip & ~KEY_EXACT;
    if (!home_get_row(w, key)) {
        int stop = row_decide(w);
        if (stop) {
            w->stop_address = w->ip;
            int full = place(w, PLACED_FOR_NOW);
            return full ? full : stop;
        }
        home_put_row(w, key);
    }
    if (w->row.flags & ROW_EXACT) w->exact = 1;
    return place(w, PLACED);
}

// One frame: 0 to go on, 1 at the stop.
ALWAYS_INLINE long walk_once(struct walk *w) {
    int stop = 0;
    if (w->placed != PLACED) {
        stop = enter_frame(w);
        if (stop == STOP_RA_REWRITTEN && w->placed != PLACED) {
            stop = unwrap_return(w);
            if (!stop) return 0;
        }
    }
    u32 flags = w->row.flags;
    if (!stop && !ROW_PLAIN(flags)) stop = enter_row(w);
    if (!stop) {
        stop = step_cfa(w);
        if (!stop) home_frame_cfa(w);
    }
    if (!stop && w->initial_sp && w->cfa - w->initial_sp <= 8) stop = enter_entry(w);
    if (!stop) stop = step_guards(w);
    if (!stop) stop = flags & ROW_STANDARD ? step_standard(w) : step_general(w);
    if (!stop) {
        w->placed = PLACED_NOT;
        w->trust = flags & ROW_SFRAME ? TRUST_SFRAME : TRUST_CFI;
        if (flags & ROW_SIGNAL) stop = leave_signal(w);
    }
    w->stop = (u32)stop;
    return stop != 0;
}

LOOP_BODY long walk_body(u64 index, void *context) {
    (void)index;
    return walk_once(((struct loop *)context)->w);
}

// The verdict's part: a stop that is no accepted end is noted for the last frame.
ALWAYS_INLINE void walk_judge(struct walk *w) {
    w->first_bad_frame = w->mark_frame;
    w->bad_reason = w->mark_reason;
    u32 last = w->depth ? w->depth - 1 : 0;
    if (STOP_IS_END(w->stop) || w->mark_frame <= last) return;
    w->first_bad_frame = last;
    w->bad_reason = w->stop;
}

ALWAYS_INLINE void walk_run(struct walk *w) {
    struct loop loop = {.w = w};
    LOOP(STEPS_MAX, walk_body, &loop);
    if (!w->stop) w->stop = STOP_PARSE_BUDGET;
    walk_judge(w);
}

// Everything of walk_start but the walk: for a home that runs walk_once in a loop of its own.
ALWAYS_INLINE void walk_prepare(struct walk *w) {
    w->depth = 0;
    w->stop = STOP_NONE;
    w->stop_address = 0;
    w->mark_frame = NO_BAD_FRAME;
    w->mark_reason = STOP_NONE;
    w->signals = 0;
    w->placed = PLACED_NOT;
    w->cycle_ip = w->ip;
    w->cycle_sp = w->regs[REG_RSP];
    w->window_at = NO_WINDOW;
    w->code_at = NO_WINDOW;
    w->cfi.cie = 0;
    home_stack_bounds(w);
}

ALWAYS_INLINE void walk_start(struct walk *w) {
    walk_prepare(w);
    walk_run(w);
}

// Everything of walk_resume but the walk.
ALWAYS_INLINE void walk_reenter(struct walk *w) {
    w->stop = STOP_NONE;
    if (w->placed == PLACED_FOR_NOW) {
        w->placed = PLACED_NOT;
        if (w->depth) w->depth--;
    }
}

ALWAYS_INLINE void walk_resume(struct walk *w) {
    walk_reenter(w);
    walk_run(w);
}

ALWAYS_INLINE void walk_give_up(struct walk *w, u32 stop) {
    w->stop = stop;
    walk_judge(w);
}

#endif
