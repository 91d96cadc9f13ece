// The search table of .eh_frame_hdr: which FDE may hold a pc.
#ifndef UNSPOOL_FDE_TABLE_H
#define UNSPOOL_FDE_TABLE_H

#include "cfi.h"

// FDEs tried at and before the one the table gives: zero-length FDEs share their start with the function that follows.
#define TABLE_TRIES 3

struct table_loop {
    struct walk *w;
    s64 pc;    // relative to .eh_frame_hdr, as the table has it
    u32 low;   // the wanted pair is in [low, high)
    u32 high;
    int stop;
};

LOOP_BODY long table_body(u64 index, void *context) {
    struct table_loop *loop = context;
    struct walk *w = loop->w;
    (void)index;
    if (loop->high - loop->low <= 1) return 1;
    u32 middle = loop->low + (loop->high - loop->low) / 2;
    if (!work(w, 1)) {
        loop->stop = STOP_PARSE_BUDGET;
        return 1;
    }
    loop->stop = code_number(w, w->module.table + (u64)middle * 8, 4);
    if (loop->stop) return 1;
    if ((s64)(s32)w->value <= loop->pc)
        loop->low = middle;
    else
        loop->high = middle;
    return 0;
}

// The FDE that holds `pc` into w->cfi by binary search; 0, NO_UNWIND_INFO, or another stop.
ALWAYS_INLINE int table_find(struct walk *w, u64 pc) {
    struct table_loop loop = {.w = w, .pc = (s64)(pc - w->module.frame_hdr), .low = 0, .high = w->module.count};
    LOOP(33, table_body, &loop);
    if (loop.stop) return loop.stop;
    u32 pair = loop.low;
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
