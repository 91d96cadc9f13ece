// Working memory, and the ring that takes the records.
#ifndef UNSPOOL_EMIT_BPF_H
#define UNSPOOL_EMIT_BPF_H

#include "counters.bpf.h"
#include "home.bpf.h"
#include "task.bpf.h"
#include "walk.h"

// User frames that are kept of a walk that was cut, in case that it never comes to the deferred one.
#define PENDING_FRAMES 256

// A sample that waits for its deferred walk. Whoever changes `claimed` from 0 to 1 emits it: the callback, the thread's exit, or the
// recording's end.
struct waiting {
    u32 claimed;
    u32 spare;
    u64 space_id;
    u64 ip;
    u64 sp;
    struct record record;
    u64 addresses[PENDING_FRAMES + KERNEL_FRAMES_MAX + 1];
};

// The value of the map of pending samples.
struct pending {
    struct bpf_task_work work;
    struct waiting waiting;
};

// The same without the kernel's field, which may be in no other map.
struct stage {
    u64 room;
    struct waiting waiting;
};

_Static_assert(sizeof(struct stage) == sizeof(struct pending), "a stage becomes a pending sample");

// Working memory of one sample. Each sampling context has one on every CPU, for a perf interrupt can land inside a tracepoint's program;
// deferred walks, which may be preempted, take one of the pool behind them.
struct job {
    u32 busy;
    u32 spare;
    u64 ip;  // where the walk begins
    u64 sp;
    struct stage stage;
    struct walk w;
    u64 after[KERNEL_FRAMES_MAX + 1];  // so that kernel frames fit behind the last user frame
};

enum context { CONTEXT_PERF, CONTEXT_TRACEPOINT, CONTEXTS };

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);  // the loader's choice: contexts * CPUs + pool
    __type(key, u32);
    __type(value, struct job);
} jobs SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 23);
} samples SEC(".maps");

// Nobody is woken: the reader comes by 20 times a second, and a wake-up would be an interrupt on the CPU that is watched.
INLINE void emit(struct record *record, u64 size) {
    if (bpf_ringbuf_output(&samples, record, size, BPF_RB_NO_WAKEUP))
        count(COUNT_LOST_RING_FULL);
    else
        count(COUNT_EMITTED);
}

INLINE struct job *job_of(u32 context) {
    u32 index = bpf_get_smp_processor_id() + context * config.cpus;
    return bpf_map_lookup_elem(&jobs, &index);
}

// Where the kernel's frames of this sample go: behind the user's.
INLINE u64 *kernel_frames_of(struct job *job) {
    u32 depth = job->w.depth;
    if (depth > DEFERRED_FRAMES_MAX)
        depth = DEFERRED_FRAMES_MAX;
    return &job->w.frames[depth];
}

// The walk's result into the record.
INLINE void conclude(struct job *job) {
    struct walk *w = &job->w;
    struct record *record = &w->record;
    const struct address_space *space = &home_of(w)->space;
    u32 changed = STOP_IS_END(w->stop) && epoch_now(space) != space->epoch;
    count_more(COUNT_ROW_HITS, home_of(w)->row_hits);
    record->n_user = w->depth;
    record->stop = w->stop;
    record->unread = w->stop == STOP_NO_UNWIND_INFO && w->module.stop == STOP_NO_UNWIND_INFO ? home_of(w)->file_key : 0;
    record->stop_address = w->stop_address;
    record->first_bad_frame = w->first_bad_frame;
    record->reason = w->bad_reason;
    // Rule R1: the mappings of one instant.
    if (changed && w->first_bad_frame == NO_BAD_FRAME) {
        record->first_bad_frame = 0;
        record->reason = STOP_MAPS_STALE;
    }
    record->verdict = record->first_bad_frame == NO_BAD_FRAME ? VERDICT_RELIABLE : VERDICT_UNRELIABLE;
}

INLINE void emit_job(struct job *job) {
    struct record *record = &job->w.record;
    u32 number = record->n_user + record->n_kernel;
    if (number > DEFERRED_FRAMES_MAX + KERNEL_FRAMES_MAX)
        number = DEFERRED_FRAMES_MAX + KERNEL_FRAMES_MAX;
    u64 size = sizeof(*record) + number * 8;
    record->size = size;
    emit(record, size);
}

#endif
