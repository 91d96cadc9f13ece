// The counters of the sampler: one row a CPU, summed by the reader.
#ifndef UNSPOOL_COUNTERS_BPF_H
#define UNSPOOL_COUNTERS_BPF_H

#include "kernel.h"
#include "record.h"

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, COUNT_MAX);
    __type(key, u32);
    __type(value, u64);
} counters SEC(".maps");

INLINE void count_more(u32 which, u64 number) {
    u64 *value = bpf_map_lookup_elem(&counters, &which);
    // An interrupt may count between load and store of a plain increment.
    if (value)
        __sync_fetch_and_add(value, number);
}

INLINE void count(u32 which) {
    count_more(which, 1);
}

#endif
