// The slow way to an FDE: reading .eh_frame from its start, where the search table is missing or broken.
#ifndef UNSPOOL_FDE_SCAN_H
#define UNSPOOL_FDE_SCAN_H

#include "cfi.h"

// Entries looked at; the walk's budget ends a scan earlier.
#define SCAN_MAX (1u << 20)

struct scan_loop {
    struct walk *w;
    u64 pc;
    u64 at;
    u32 found;
    int stop;
};

LOOP_BODY long scan_body(u64 index, void *context) {
    struct scan_loop *loop = context;
    struct walk *w = loop->w;
    (void)index;
    u64 at = loop->at;
    loop->stop = STOP_PARSE_BUDGET;
    if (!work(w, 4)) return 1;
    // A section without terminator runs to the end of its segment (29 of 3,455 files have none).
    loop->stop = STOP_NO_UNWIND_INFO;
    if (at < w->module.eh_frame || at + 4 > w->module.header_end) return 1;
    int stop = entry_open(w, at);
    loop->stop = stop;
    if (stop) return 1;
    u64 length = w->cursor_end - w->cursor;
    loop->stop = STOP_NO_UNWIND_INFO;
    if (length == 0) return 1;
    loop->at = at + 4 + length;
    loop->stop = take_number(w, 4);
    if (loop->stop) return 1;
    if (w->value == 0) return 0;
    loop->stop = fde_parse(w, at);
    if (loop->stop) return 1;
    if (loop->pc < w->cfi.pc_begin || loop->pc >= w->cfi.pc_end) return 0;
    loop->found = 1;
    return 1;
}

// The FDE that holds `pc` into w->cfi; 0, NO_UNWIND_INFO, or another stop.
ALWAYS_INLINE int scan_find(struct walk *w, u64 pc) {
    struct scan_loop loop = {.w = w, .pc = pc, .at = w->module.eh_frame};
    LOOP(SCAN_MAX, scan_body, &loop);
    if (loop.found) return 0;
    return loop.stop ? loop.stop : STOP_PARSE_BUDGET;
}

#endif
