// Samples that wait: a walk that met a page which is not there is done again when the thread returns to user space, where a page fault
// may sleep.
#ifndef UNSPOOL_DEFERRED_BPF_H
#define UNSPOOL_DEFERRED_BPF_H

#include "emit.bpf.h"

// Samples of one thread that may wait at one time.
#define PENDING_EACH 4

// Faults of a deferred walk: a stack of 4,096 frames may lie in several thousand pages.
#define FAULTS_MAX 8192

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, PENDING_MAX);
    __type(key, u64);
    __type(value, struct pending);
} pending SEC(".maps");

INLINE u64 pending_key(u32 tid, u32 place) {
    return (u64)tid << 2 | place;
}

// Emit the sample as it was when its walk was cut.
INLINE void emit_pending(struct waiting *waiting, u32 counter) {
    u32 number = waiting->record.n_user + waiting->record.n_kernel;
    waiting->record.flags |= RECORD_NOT_RESUMED;
    if (number > PENDING_FRAMES + KERNEL_FRAMES_MAX)
        number = PENDING_FRAMES + KERNEL_FRAMES_MAX;
    waiting->record.size = sizeof(struct record) + number * 8;
    count(counter);
    emit(&waiting->record, sizeof(struct record) + number * 8);
}

INLINE int claim(struct waiting *waiting) {
    return __sync_val_compare_and_swap(&waiting->claimed, 0, 1) == 0;
}

// Bring a page in; when it cannot be had, the walk is told, and decides for itself what follows from it.
INLINE void touch(struct walk *w, u64 address) {
    u8 byte;
    if (bpf_copy_from_user(&byte, 1, (void *)address))
        w->unreadable = (address >> 12) + 1;
}

// One frame, or one page. A loop of its own, for another around walk_resume would be one nested call more.
// A fault of size 0 is a question that could not be answered while the mappings changed.
LOOP_BODY long walk_with_faults(u64 index, void *context) {
    struct walk *w = ((struct loop *)context)->w;
    struct home *home = home_of(w);
    if (!walk_once(w))
        return 0;
    if (w->stop != STOP_PAGE_ABSENT || home->faults++ >= FAULTS_MAX)
        return 1;
    if (w->fault_size) {
        touch(w, w->fault);
        touch(w, w->fault + w->fault_size - 1);
    } else {
        address_space_refresh(&home->space);
    }
    walk_reenter(w);
    return 0;
}

INLINE struct job *slot_take(void) {
    u32 first = config.cpus * CONTEXTS, start = bpf_get_prandom_u32();
    for (u32 i = 0; i < POOL_SIZE; i++) {
        u32 index = first + ((start + i) & (POOL_SIZE - 1));
        struct job *job = bpf_map_lookup_elem(&jobs, &index);
        if (job && __sync_val_compare_and_swap(&job->busy, 0, 1) == 0)
            return job;
    }
    return 0;
}

// Whether the thread is where it was when the sample was taken: an exec or a signal return in between has changed its stack.
INLINE int is_unchanged(const struct waiting *waiting, const struct walk *w) {
    return home_of((struct walk *)w)->space.id == waiting->space_id && w->ip == waiting->ip && w->regs[REG_RSP] == waiting->sp;
}

INLINE void join_waiting_kernel_frames(struct job *job, struct waiting *waiting) {
    u32 kept = waiting->record.n_user, number = waiting->record.n_kernel;
    if (kept > PENDING_FRAMES || number > KERNEL_FRAMES_MAX)
        return;
    bpf_probe_read_kernel(kernel_frames_of(job), number * 8, &waiting->addresses[kept]);
}

// The deferred walk. 0 when the sample cannot be walked any more.
INLINE int walk_deferred(struct job *job, struct waiting *waiting, struct task_struct *task) {
    struct walk *w = &job->w;
    struct loop loop = {w};
    u8 byte;
    int in_kernel = waiting->record.flags & RECORD_IN_KERNEL;
    if (!task->mm)
        return 0;
    w->record = waiting->record;
    take_saved_registers(w, (struct pt_regs *)bpf_task_pt_regs(task), in_kernel);
    w->max_frames = DEFERRED_FRAMES_MAX;
    w->work = WORK_DEFERRED;
    w->methods = config.methods;
    home_open(w, task, task->mm);
    if (home_of(w)->interpreter) {
        bpf_copy_from_user(&byte, 1, (void *)home_of(w)->interpreter);
        home_open_ends(w);
    }
    if (!is_unchanged(waiting, w))
        return 0;
    walk_prepare(w);
    home_of(w)->faults = 0;
    LOOP(STEPS_MAX, walk_with_faults, &loop);
    if (!w->stop)
        w->stop = STOP_PARSE_BUDGET;
    walk_judge(w);
    conclude(job);
    w->record.flags |= RECORD_DEFERRED;
    join_waiting_kernel_frames(job, waiting);
    return 1;
}

static int resume_pending(struct bpf_map *map, void *key, void *value) {
    struct waiting *waiting = &((struct pending *)value)->waiting;
    u64 mine = *(u64 *)key;
    if (!claim(waiting)) {
        count(COUNT_PENDING_STOLEN);
        return 0;
    }
    struct job *job = slot_take();
    if (!job) {
        emit_pending(waiting, COUNT_DEFERRED_NO_SLOT);
    } else {
        if (walk_deferred(job, waiting, bpf_get_current_task_btf())) {
            count(COUNT_DEFERRED_DONE);
            emit_job(job);
        } else {
            emit_pending(waiting, COUNT_DEFERRED_CHANGED);
        }
        job->busy = 0;
    }
    bpf_map_delete_elem(&pending, &mine);
    return 0;
}

// What is kept of a sample while it waits: the record, and the innermost frames of both kinds.
INLINE void keep(struct waiting *waiting, struct job *job) {
    u32 user = job->w.record.n_user, kernel = job->w.record.n_kernel;
    waiting->record = job->w.record;
    waiting->space_id = home_of(&job->w)->space.id;
    waiting->ip = job->ip;
    waiting->sp = job->sp;
    if (kernel <= KERNEL_FRAMES_MAX && user <= IMMEDIATE_FRAMES_MAX) {
        u32 kept = user < PENDING_FRAMES ? user : PENDING_FRAMES;
        bpf_probe_read_kernel(waiting->addresses, kept * 8, job->w.frames);
        bpf_probe_read_kernel(&waiting->addresses[kept], kernel * 8, &job->w.frames[user]);
        waiting->record.n_user = kept;
    }
}

// Put the walk off; 0 when that is not possible, and the sample is to be emitted as it is.
INLINE int defer(struct job *job, struct task_struct *task) {
    // A constant to the verifier: without the kernel's function all that follows is not there for it.
    if (!config.deferral) {
        struct home *home = home_of(&job->w);
        u32 absent = job->w.stop == STOP_PAGE_ABSENT && job->w.fault_size;
        if (absent || home->interpreter) {
            job->w.record.stop_address = absent ? job->w.fault : home->interpreter;
            job->w.record.flags |= RECORD_MISSING;
        }
        count(COUNT_DEFERRED_FAILED);
        return 0;
    }
    for (u32 place = 0; place < PENDING_EACH; place++) {
        u64 key = pending_key(task->pid, place);
        keep(&job->stage.waiting, job);
        long error = bpf_map_update_elem(&pending, &key, &job->stage, BPF_NOEXIST);
        if (error == -17)
            continue;
        struct pending *value = error ? 0 : bpf_map_lookup_elem(&pending, &key);
        if (!value) {
            count(COUNT_DEFERRED_FULL);
            return 0;
        }
        if (task_work_resume(task, &value->work, &pending, resume_pending, 0)) {
            // The end of the recording may have emitted it already.
            int mine = claim(&value->waiting);
            bpf_map_delete_elem(&pending, &key);
            count(COUNT_DEFERRED_FAILED);
            return !mine;
        }
        count(COUNT_DEFERRED);
        return 1;
    }
    count(COUNT_DEFERRED_BUSY);
    return 0;
}

#endif
