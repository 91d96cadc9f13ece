// The slow way to an FDE: reading .eh_frame from its start, where the search table is missing or broken.
#ifndef UNSPOOL_FDE_SCAN_H
#define UNSPOOL_FDE_SCAN_H

#include "cfi.h"

// Entries looked at; the walk's budget ends a scan earlier.
#define SCAN_MAX (1u << 20)

LOOP_BODY long scan_body(u64 index, void *context) {
    struct walk *w = ((struct loop *)context)->w;
    struct search *search = &w->search;
    (void)index;
    u64 at = search->at;
    search->stop = STOP_PARSE_BUDGET;
    if (!work(w, 8)) return 1;
    // A section without terminator runs to the end of its segment (29 of 3,455 files have none).
    search->stop = STOP_NO_UNWIND_INFO;
    if (at < w->module.eh_frame || at + 4 > w->module.header_end) return 1;
    int stop = entry_open(w, at);
    search->stop = stop;
    if (stop) return 1;
    u64 length = w->cursor_end - w->cursor;
    search->stop = STOP_NO_UNWIND_INFO;
    if (length == 0) return 1;
    search->at = at + 4 + length;
    search->stop = take_number(w, 4);
    if (search->stop) return 1;
    if (w->value == 0) return 0;
    search->stop = fde_parse(w, at);
    if (search->stop) return 1;
    if (search->pc < w->cfi.pc_begin || search->pc >= w->cfi.pc_end) return 0;
    search->found = 1;
    return 1;
}

// The FDE that holds `pc` into w->cfi; 0, NO_UNWIND_INFO, or another stop.
ALWAYS_INLINE int scan_find(struct walk *w, u64 pc) {
    struct search *search = &w->search;
    struct loop loop = {.w = w};
    search->pc = pc;
    search->at = w->module.eh_frame;
    search->found = 0;
    search->stop = 0;
    LOOP(SCAN_MAX, scan_body, &loop);
    if (search->found) return 0;
    return search->stop ? search->stop : STOP_PARSE_BUDGET;
}

#endif
