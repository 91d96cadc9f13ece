// The task of a sample: who it is, whether it was asked for, its user registers.
#ifndef UNSPOOL_TASK_BPF_H
#define UNSPOOL_TASK_BPF_H

#include "capture.h"
#include "counters.bpf.h"
#include "kernel.h"
#include "walk_state.h"

// PID namespaces may be nested 32 deep (include/linux/pid_namespace.h, MAX_PID_NS_LEVEL).
#define PID_LEVELS_MAX 32

// A section of its own, so that the loader writes the whole of it.
const volatile struct sampler_config config SEC(".rodata.config") = {};

// What is known of a target: one that has ended is kept for the samples of its end, and swept out when room is needed.
#define TARGET_RUNS 1
#define TARGET_ENDED 2

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct target);
    __type(value, u32);
} targets SEC(".maps");

struct task_ids {
    u32 pid;
    u32 tid;
};

// The number of `task` in the profiler's PID namespace, 0 when it is not in it. bpf_get_ns_current_pid_tgid() knows only tasks whose own
// namespace it is, not those of the containers below it.
INLINE u32 namespace_number(struct task_struct *task) {
    struct pid *pid = BPF_CORE_READ(task, thread_pid);
    u32 level = BPF_CORE_READ(pid, level);
    u32 size = bpf_core_type_size(struct upid), first = bpf_core_field_offset(struct pid, numbers);
    for (u32 i = 0; i < PID_LEVELS_MAX && i <= level; i++) {
        struct upid *upid = (struct upid *)((u64)pid + first + i * size);
        if (BPF_CORE_READ(upid, ns, ns.inum) == config.pid_namespace)
            return BPF_CORE_READ(upid, nr);
    }
    return 0;
}

INLINE struct task_ids task_ids(struct task_struct *task) {
    if (!config.pid_namespace)
        return (struct task_ids){task->tgid, task->pid};
    return (struct task_ids){namespace_number(task->group_leader), namespace_number(task)};
}

INLINE int is_target(u32 kind, u32 id, struct task_struct *task) {
    struct target target = {.kind = kind, .id = id};
    u32 *state = bpf_map_lookup_elem(&targets, &target);
    // The number of a task that has ended may be somebody else's by now, who does not end.
    return state && (*state == TARGET_RUNS || task->flags & PF_EXITING);
}

// Whether samples of the task were asked for.
INLINE int is_wanted(struct task_ids ids, struct task_struct *task) {
    if (config.filter == FILTER_NONE)
        return ids.pid != config.self;
    return is_target(TARGET_PROCESS, ids.pid, task) || (config.threads && is_target(TARGET_THREAD, ids.tid, task));
}

INLINE void target_ended(u32 kind, u32 id) {
    struct target target = {.kind = kind, .id = id};
    u32 *state = bpf_map_lookup_elem(&targets, &target);
    if (state)
        *state = TARGET_ENDED;
}

static long sweep_target(struct bpf_map *map, struct target *target, u32 *state, void *context) {
    struct target mine = *target;
    if (*state == TARGET_ENDED)
        bpf_map_delete_elem(&targets, &mine);
    return 0;
}

// A new process of that number: a target when its parent is one, else none, whoever had the number before.
INLINE void target_started(u32 id, int wanted) {
    struct target target = {.kind = TARGET_PROCESS, .id = id};
    u32 state = TARGET_RUNS;
    if (!wanted) {
        bpf_map_delete_elem(&targets, &target);
        return;
    }
    if (bpf_map_update_elem(&targets, &target, &state, BPF_ANY)) {
        bpf_for_each_map_elem(&targets, sweep_target, 0, 0);
        if (bpf_map_update_elem(&targets, &target, &state, BPF_ANY))
            count(COUNT_NOT_FOLLOWED);
    }
}

// The registers at the kernel's entry. In a system call rax, rcx and r11 are the call's own.
INLINE int take_saved_registers(struct walk *w, struct pt_regs *regs, int in_kernel) {
    w->regs[REG_RAX] = regs->ax;
    w->regs[REG_RDX] = regs->dx;
    w->regs[REG_RCX] = regs->cx;
    w->regs[REG_RBX] = regs->bx;
    w->regs[REG_RSI] = regs->si;
    w->regs[REG_RDI] = regs->di;
    w->regs[REG_RBP] = regs->bp;
    w->regs[REG_RSP] = regs->sp;
    w->regs[8] = regs->r8;
    w->regs[9] = regs->r9;
    w->regs[10] = regs->r10;
    w->regs[11] = regs->r11;
    w->regs[12] = regs->r12;
    w->regs[13] = regs->r13;
    w->regs[14] = regs->r14;
    w->regs[15] = regs->r15;
    w->ip = regs->ip;
    w->known = in_kernel ? REGS_ALL & ~((1 << REG_RAX) | (1 << REG_RCX) | (1 << 11)) : REGS_ALL;
    return regs->cs;
}

// The registers that a perf event interrupted in user mode.
INLINE void take_interrupted_registers(struct walk *w, const volatile struct perf_context *regs) {
    w->regs[REG_RAX] = regs->ax;
    w->regs[REG_RDX] = regs->dx;
    w->regs[REG_RCX] = regs->cx;
    w->regs[REG_RBX] = regs->bx;
    w->regs[REG_RSI] = regs->si;
    w->regs[REG_RDI] = regs->di;
    w->regs[REG_RBP] = regs->bp;
    w->regs[REG_RSP] = regs->sp;
    w->regs[8] = regs->r8;
    w->regs[9] = regs->r9;
    w->regs[10] = regs->r10;
    w->regs[11] = regs->r11;
    w->regs[12] = regs->r12;
    w->regs[13] = regs->r13;
    w->regs[14] = regs->r14;
    w->regs[15] = regs->r15;
    w->ip = regs->ip;
    w->known = REGS_ALL;
}

#endif
