// Reading the walked thread's memory: the one function that differs between the two homes.
#ifndef UNSPOOL_MEMORY_H
#define UNSPOOL_MEMORY_H

#include "walk_state.h"

#ifdef __bpf__

// 0 when `size` bytes at `address` were copied; PAGE_ABSENT when a page is not there: bpf_probe_read_user never faults.
// The home brings [w->fault, w->fault + w->fault_size) in, where it may, and resumes.
ALWAYS_INLINE int mem_read(struct walk *w, u64 address, void *to, u32 size) {
    if (bpf_probe_read_user(to, size, (const void *)address) == 0) return 0;
    w->fault = address;
    w->fault_size = size;
    return STOP_PAGE_ABSENT;
}

#else

// 0 when all `size` bytes were copied; else a stop (MEM_FAULT, or what the context's memory says).
static int home_read(struct walk *w, u64 address, void *to, u32 size);

ALWAYS_INLINE int mem_read(struct walk *w, u64 address, void *to, u32 size) {
    int stop = home_read(w, address, to, size);
    if (stop == 0) return 0;
    w->fault = address;
    w->fault_size = size;
    return stop;
}

#endif

#endif
