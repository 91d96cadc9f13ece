// From a pc to its FDE: the module, its search table, or a scan of its .eh_frame.
#ifndef UNSPOOL_FRAME_SEARCH_H
#define UNSPOOL_FRAME_SEARCH_H

#include "fde_scan.h"
#include "fde_table.h"

// Makes w->module the parsed module whose mapping holds `pc`; 0 or a stop.
ALWAYS_INLINE int module_at(struct walk *w, u64 pc) {
    if (pc >= w->module.start && pc < w->module.end && (w->module.flags & MODULE_PARSED)) return 0;
    w->module.start = w->module.end = 0;
    w->module.flags = 0;
    w->cfi.cie = 0;
    int stop = home_find_module(w, pc);
    if (stop) {
        w->module.start = w->module.end = 0;
        return stop;
    }
    if (w->module.flags & MODULE_PARSED) return 0;
    return module_parse(w);
}

// The FDE that holds `pc` into w->cfi; w->module is the pc's. 0 or a stop.
ALWAYS_INLINE int fde_find(struct walk *w, u64 pc) {
    if (w->module.stop) return (int)w->module.stop;
    if (w->module.flags & MODULE_TABLE) return table_find(w, pc);
    return scan_find(w, pc);
}

#endif
