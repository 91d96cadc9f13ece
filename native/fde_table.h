// The search table of .eh_frame_hdr: which FDE may hold a pc.
#ifndef UNSPOOL_FDE_TABLE_H
#define UNSPOOL_FDE_TABLE_H

#include "cfi.h"

// FDEs tried at and before the one the table gives: zero-length FDEs share their start with the function that follows.
#define TABLE_TRIES 3

// The wanted pair is in [low, high).
LOOP_BODY long table_body(u64 index, void *context) {
    struct walk *w = ((struct loop *)context)->w;
    struct search *search = &w->search;
    (void)index;
    if (search->high - search->low <= 1) return 1;
    u32 middle = search->low + (search->high - search->low) / 2;
    if (!work(w, 1)) {
        search->stop = STOP_PARSE_BUDGET;
        return 1;
    }
    search->stop = code_number(w, w->module.table + (u64)middle * 8, 4);
    if (search->stop) return 1;
    // Starts are relative to .eh_frame_hdr.
    if ((s64)(s32)w->value <= (s64)(search->pc - w->module.frame_hdr))
        search->low = middle;
    else
        search->high = middle;
    return 0;
}

// The FDE that holds `pc` into w->cfi by binary search; 0, NO_UNWIND_INFO, or another stop.
ALWAYS_INLINE int table_find(struct walk *w, u64 pc) {
    struct search *search = &w->search;
    struct loop loop = {.w = w};
    search->pc = pc;
    search->low = 0;
    search->high = w->module.count;
    search->stop = 0;
    LOOP(33, table_body, &loop);
    if (search->stop) return search->stop;
    u32 pair = search->low;
    for (u32 tries = 0; tries < TABLE_TRIES; tries++) {
        int stop = code_number(w, w->module.table + (u64)pair * 8 + 4, 4);
        if (stop) return stop;
        stop = fde_parse(w, w->module.frame_hdr + (u64)(s64)(s32)w->value);
        if (stop) return stop;
        if (pc >= w->cfi.pc_begin && pc < w->cfi.pc_end) return 0;
        if (pair == 0) break;
        pair--;
    }
    return STOP_NO_UNWIND_INFO;
}

#endif
