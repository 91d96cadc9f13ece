// The sampler: programs that take a sample, walk its stack at once, and put the walk off when it meets a page that is not there.
#include "deferred.bpf.h"

char license_of_programs[] SEC("license") = "Dual MIT/GPL";

// Who and when.
INLINE void open_record(struct record *record, struct task_struct *task, struct task_ids ids, u32 trigger, u64 detail) {
    __builtin_memset(record, 0, sizeof(*record));
    record->time_ns = bpf_ktime_get_ns();
    record->start_ns = task->group_leader->start_boottime;
    record->pid = ids.pid;
    record->tid = ids.tid;
    record->cpu = bpf_get_smp_processor_id();
    record->trigger = trigger;
    record->detail = detail;
    record->first_bad_frame = NO_BAD_FRAME;
}

// A sample without user frames, and why.
INLINE void no_walk(struct job *job, u32 stop, u32 counter) {
    job->w.depth = 0;
    job->w.record.stop = stop;
    job->w.record.reason = stop;
    u32 none = stop == STOP_NO_USER_STACK || stop == STOP_EXITED;
    job->w.record.verdict = none ? VERDICT_NONE : VERDICT_UNRELIABLE;
    if (!none)
        job->w.record.first_bad_frame = 0;
    count(counter);
}

INLINE void open_walk(struct job *job, struct task_struct *task, u32 max_frames, u32 work) {
    job->w.max_frames = max_frames;
    job->w.work = work;
    job->w.methods = config.methods;
    home_open(&job->w, task, task->mm);
    job->w.record.space_generation = home_of(&job->w)->space.epoch;
}

// Whether the thread is in execve() and its old address space is gone already: the new one gets its auxiliary vector late (fs/binfmt_elf.c,
// create_elf_tables), the user registers after that: in between they point to where nothing is mapped.
INLINE int is_becoming(struct job *job, struct task_struct *task) {
    return BPF_CORE_READ_BITFIELD(task, in_execve) && (!job->w.process_entry || job->w.stop == STOP_NO_MAPPING);
}

// The user part of a sample; 1 when the registers are there and a walk was made.
INLINE int walk_user_stack(struct job *job, struct task_struct *task, const volatile struct perf_context *interrupted) {
    u64 cs;
    if (task->flags & (PF_KTHREAD | PF_USER_WORKER)) {
        no_walk(job, STOP_NO_USER_STACK, COUNT_NO_USER_STACK);
        return 0;
    }
    if (!task->mm) {
        no_walk(job, STOP_EXITED, COUNT_EXITED);
        return 0;
    }
    if (interrupted) {
        take_interrupted_registers(&job->w, interrupted);
        cs = interrupted->cs;
    } else {
        job->w.record.flags |= RECORD_IN_KERNEL;
        cs = take_saved_registers(&job->w, (struct pt_regs *)bpf_task_pt_regs(task), 1);
    }
    if ((cs & 0xffff) == USER32_CS) {
        job->w.record.flags |= RECORD_COMPAT;
        no_walk(job, STOP_UNSUPPORTED_RULE, COUNT_COMPAT);
        return 0;
    }
    job->ip = job->w.ip;
    job->sp = job->w.regs[REG_RSP];
    open_walk(job, task, IMMEDIATE_FRAMES_MAX, WORK_IMMEDIATE);
    job->w.stop = STOP_NONE;
    if (!is_becoming(job, task))
        walk_start(&job->w);
    if (is_becoming(job, task)) {
        no_walk(job, STOP_EXITED, COUNT_EXITED);
        return 0;
    }
    conclude(job);
    return 1;
}

INLINE void join_kernel_frames(void *context, struct job *job) {
    u32 depth = job->w.depth;
    if (!config.kernel_frames || depth > IMMEDIATE_FRAMES_MAX)
        return;
    s64 size = bpf_get_stack(context, &job->w.frames[depth], KERNEL_FRAMES_MAX * 8, 0);
    if (size > 0)
        job->w.record.n_kernel = size / 8u;
}

// Whether the walk would come further in task context. The dynamic linker's first instructions have no unwind data: they are an end, when
// its entry point is known.
INLINE int is_resumable(struct job *job) {
    u32 stop = job->w.stop;
    if (stop == STOP_NO_UNWIND_INFO)
        return home_of(&job->w)->interpreter != 0;
    return stop == STOP_PAGE_ABSENT || stop == STOP_PARSE_BUDGET || stop == STOP_FRAME_LIMIT;
}

SEC("perf_event")
int sample_cpu(struct perf_context *context) {
    // Context loads must be whole words, so cs is read through a volatile word.
    const volatile struct perf_context *regs = context;
    struct task_struct *task = bpf_get_current_task_btf();
    int from_user = (regs->cs & CS_RPL_USER) == CS_RPL_USER;
    count(COUNT_PROGRAM_PERF);
    if (!task->pid) {
        count(COUNT_IDLE);
        return 0;
    }
    struct task_ids ids = task_ids(task);
    if (!is_wanted(ids, task)) {
        count(COUNT_FILTERED);
        return 0;
    }
    count(COUNT_SAMPLES);
    struct job *job = job_of(CONTEXT_PERF);
    if (!job) {
        count(COUNT_LOST_NO_SCRATCH);
        return 0;
    }
    open_record(&job->w.record, task, ids, TRIGGER_CPU, 0);
    int walked = walk_user_stack(job, task, from_user ? regs : 0);
    if (!from_user)
        join_kernel_frames(context, job);
    if (walked && is_resumable(job) && defer(job, task))
        return 0;
    emit_job(job);
    return 0;
}

INLINE int is_syscall_wanted(u64 number, int compat) {
    if (config.all_syscalls)
        return 1;
    // The numbers of 32-bit calls are others.
    if (compat || number >= SYSCALLS_MAX)
        return 0;
    return config.syscalls[number / 64] >> (number % 64) & 1;
}

SEC("raw_tp/sys_enter")
int sample_syscall(struct raw_tracepoint_context *context) {
    struct task_struct *task = bpf_get_current_task_btf();
    u64 number = context->args[1];
    int compat = task->thread_info.status & TS_COMPAT;
    count(COUNT_PROGRAM_SYSCALL);
    if (!is_syscall_wanted(number, compat))
        return 0;
    struct task_ids ids = task_ids(task);
    if (!is_wanted(ids, task)) {
        count(COUNT_FILTERED);
        return 0;
    }
    count(COUNT_SAMPLES);
    struct job *job = job_of(CONTEXT_TRACEPOINT);
    if (!job) {
        count(COUNT_LOST_NO_SCRATCH);
        return 0;
    }
    open_record(&job->w.record, task, ids, TRIGGER_SYSCALL, number);
    if (compat)
        job->w.record.flags |= RECORD_COMPAT;
    if (walk_user_stack(job, task, 0) && is_resumable(job) && defer(job, task))
        return 0;
    emit_job(job);
    return 0;
}

// A thread ends: what waits for its return to user space will not be walked.
SEC("raw_tp/sched_process_exit")
int task_exit(struct raw_tracepoint_context *context) {
    struct task_struct *task = bpf_get_current_task_btf();
    struct task_ids ids = task_ids(task);
    for (u32 place = 0; place < PENDING_EACH; place++) {
        u64 key = pending_key(task->pid, place);
        struct pending *value = bpf_map_lookup_elem(&pending, &key);
        if (!value)
            continue;
        if (claim(&value->waiting))
            emit_pending(&value->waiting, COUNT_PENDING_EXIT);
        bpf_map_delete_elem(&pending, &key);
    }
    if (config.filter == FILTER_NONE)
        return 0;
    if (config.threads)
        target_ended(TARGET_THREAD, ids.tid);
    // The process's last thread (kernel/exit.c counts it out before the tracepoint).
    if (!BPF_CORE_READ(task, signal, live.counter))
        target_ended(TARGET_PROCESS, ids.pid);
    return 0;
}

// A child of a target becomes one. (The parent is the current task.)
SEC("raw_tp/sched_process_fork")
int task_fork(struct raw_tracepoint_context *context) {
    if (config.filter == FILTER_NONE || !config.follow)
        return 0;
    struct task_struct *parent = (struct task_struct *)context->args[0];
    struct task_struct *child = (struct task_struct *)context->args[1];
    if (BPF_CORE_READ(parent, tgid) == BPF_CORE_READ(child, tgid))
        return 0;
    u32 parent_number, child_number;
    if (config.pid_namespace) {
        parent_number = namespace_number(BPF_CORE_READ(parent, group_leader));
        child_number = namespace_number(child);
    } else {
        parent_number = BPF_CORE_READ(parent, tgid);
        child_number = BPF_CORE_READ(child, tgid);
    }
    target_started(child_number, is_target(TARGET_PROCESS, parent_number, bpf_get_current_task_btf()));
    return 0;
}

static long flush_one(struct bpf_map *map, u64 *key, struct pending *value, void *context) {
    u64 mine = *key;
    if (claim(&value->waiting))
        emit_pending(&value->waiting, COUNT_PENDING_FLUSHED);
    bpf_map_delete_elem(&pending, &mine);
    return 0;
}

// The end of a recording: emit what still waits.
SEC("syscall")
int flush_pending(void *context) {
    bpf_for_each_map_elem(&pending, flush_one, 0, 0);
    return 0;
}
