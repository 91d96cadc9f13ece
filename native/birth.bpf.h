// Where a thread on a stack of its own began: what the system call says in which its creator waits for it.
#ifndef UNSPOOL_BIRTH_BPF_H
#define UNSPOOL_BIRTH_BPF_H

#include "kernel.h"
#include "walk_state.h"

// arch/x86/entry/syscalls/syscall_64.tbl
#define NR_CLONE 56
#define NR_CLONE3 435

// Where `stack` and `stack_size` lie in struct clone_args (include/uapi/linux/sched.h).
#define CLONE_ARGS_STACK 40

// The first stack pointer that the system call gives its child, 0 when the child goes on on its creator's stack.
INLINE u64 birth_sp(struct pt_regs *regs) {
    u64 number = BPF_CORE_READ(regs, orig_ax), stack[2];
    if (number == NR_CLONE)
        return BPF_CORE_READ(regs, si);
    if (number != NR_CLONE3 || bpf_probe_read_user(stack, sizeof(stack), (void *)(BPF_CORE_READ(regs, di) + CLONE_ARGS_STACK)))
        return 0;
    return stack[0] ? stack[0] + stack[1] : 0;
}

// Where the current task's saved registers are, as a number: the verifier does no arithmetic with the pointer itself.
INLINE u64 own_registers(void) {
    long regs = bpf_task_pt_regs(bpf_get_current_task_btf());
    u64 address = 0;
    bpf_probe_read_kernel(&address, sizeof(address), &regs);
    return address;
}

// The birth of the current task into w->birth; 1, or 0 when nobody waits for it. vfork_done points into the kernel stack of the task that does
// (kernel/fork.c, kernel_clone), which is the parent but for CLONE_PARENT, and stays there as long as vfork_done stands.
SHARED int home_birth(struct walk *w) {
    if (!w)
        return 0;
    struct birth *birth = &w->birth;
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    u64 waits = (u64)BPF_CORE_READ(task, vfork_done);
    birth->ip = birth->sp = 0;
    if (!waits)
        return 0;
    struct task_struct *creator = BPF_CORE_READ(task, real_parent);
    u64 stack = (u64)BPF_CORE_READ(creator, stack);
    // The saved registers lie equally high in every kernel stack.
    u64 place = own_registers() - (u64)BPF_CORE_READ(task, stack);
    struct pt_regs *regs = (struct pt_regs *)(stack + place);
    if (waits - stack >= place || BPF_CORE_READ(creator, mm) != BPF_CORE_READ(task, mm))
        return 0;
    birth->sp = birth_sp(regs);
    birth->creator_sp = BPF_CORE_READ(regs, sp);
    birth->ip = BPF_CORE_READ(regs, ip);
    // A creator that is killed stops waiting (wait_for_vfork_done) before its stack goes.
    if (!birth->sp || (u64)BPF_CORE_READ(task, vfork_done) != waits)
        birth->ip = 0;
    return birth->ip != 0;
}

#endif
