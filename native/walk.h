// The walk: from a thread's registers outwards, frame by frame, to an accepted end or to the reason why not.
//
//   walk_start(w)   after the home filled the "in" part of the state: walks until w->stop is set.
//   walk_resume(w)  after PAGE_ABSENT (the home brought the page in: bpf_copy_from_user of 1 byte at w->fault and at w->fault + w->fault_size - 1,
//                   or locked the mappings) or PARSE_BUDGET (the home raised w->work): goes on at the frame where it stopped.
//   walk_give_up(w, stop)  instead of walk_resume, when the page cannot be brought in (MEM_FAULT).
//
// Depth in BPF: walk_start is inline; below it 5 nested frames, plus those of home_find_module.
#ifndef UNSPOOL_WALK_H
#define UNSPOOL_WALK_H

#include "walk_state.h"
#include "memory.h"

// Work of an immediate walk (in an interrupt), of a deferred one, and of one in user space.
#define WORK_IMMEDIATE (1u << 15)
#define WORK_DEFERRED (1u << 19)
#define WORK_USER (1u << 23)

ALWAYS_INLINE int walk_run(struct walk *w) {
    w->stop = STOP_NO_UNWIND_INFO;
    return 0;
}

ALWAYS_INLINE void walk_start(struct walk *w) {
    w->depth = 0;
    w->stop = STOP_NONE;
    w->first_bad_frame = NO_BAD_FRAME;
    w->bad_reason = STOP_NONE;
    walk_run(w);
}

ALWAYS_INLINE void walk_resume(struct walk *w) {
    w->stop = STOP_NONE;
    walk_run(w);
}

ALWAYS_INLINE void walk_give_up(struct walk *w, u32 stop) {
    w->stop = stop;
}

#endif
