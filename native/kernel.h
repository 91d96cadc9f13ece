// What the BPF programs need of the kernel: helpers, the few structures they read (CO-RE: libbpf writes this kernel's offsets in at load
// time), and kernel functions that not every kernel has. Only the fields that are read are declared; names and types are those of the
// kernel's sources.
#ifndef UNSPOOL_KERNEL_H
#define UNSPOOL_KERNEL_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "capture.h"
#include "types.h"

#define CORE __attribute__((preserve_access_index))
#define INLINE static __always_inline
#define NOINLINE static __attribute__((noinline))

// include/linux/sched.h
#define PF_EXITING 0x00000004
#define PF_USER_WORKER 0x00004000
#define PF_KTHREAD 0x00200000

// arch/x86/include/asm/segment.h: the code segment of 32-bit programs; the low two bits of cs are the privilege level.
#define USER32_CS 0x23
#define CS_RPL_USER 3

// arch/x86/include/asm/thread_info.h: the thread is in a 32-bit system call.
#define TS_COMPAT 2

// Flags of a VMA (include/linux/mm.h).
#define VM_READ 1
#define VM_WRITE 2
#define VM_EXEC 4

// ---- tasks

struct mm_struct;

struct thread_info {
    u32 status;
} CORE;

struct thread_struct {
    unsigned long fsbase;
} CORE;

struct ns_common {
    unsigned int inum;
} CORE;

struct pid_namespace {
    struct ns_common ns;
} CORE;

struct upid {
    int nr;
    struct pid_namespace *ns;
} CORE;

struct pid {
    unsigned int level;
    struct upid numbers[1];
} CORE;

struct return_instance {
    unsigned long orig_ret_vaddr;
    unsigned char chained;
    struct return_instance *next;
} CORE;

struct uprobe_task {
    struct return_instance *return_instances;
} CORE;

typedef struct {
    int counter;
} atomic_t;

struct signal_struct {
    atomic_t live;
} CORE;

struct completion;

struct task_struct {
    struct thread_info thread_info;
    unsigned int flags;
    struct mm_struct *mm;
    int pid;
    int tgid;
    unsigned int in_execve : 1;
    struct task_struct *group_leader;
    struct task_struct *real_parent;
    struct pid *thread_pid;
    u64 start_boottime;
    struct completion *vfork_done;
    void *stack;
    struct signal_struct *signal;
    struct uprobe_task *utask;
    struct thread_struct thread;
} CORE;

struct pt_regs {
    unsigned long r15;
    unsigned long r14;
    unsigned long r13;
    unsigned long r12;
    unsigned long bp;
    unsigned long bx;
    unsigned long r11;
    unsigned long r10;
    unsigned long r9;
    unsigned long r8;
    unsigned long ax;
    unsigned long cx;
    unsigned long dx;
    unsigned long si;
    unsigned long di;
    unsigned long orig_ax;
    unsigned long ip;
    unsigned short cs;
    unsigned long sp;
} CORE;

// ---- address spaces

struct maple_tree {
    unsigned int ma_flags;
    void *ma_root;
} CORE;

struct maple_range_64 {
    unsigned long pivot[15];
    void *slot[16];
} CORE;

struct maple_arange_64 {
    unsigned long pivot[9];
    void *slot[10];
} CORE;

struct super_block {
    u32 s_dev;
} CORE;

struct inode {
    struct super_block *i_sb;
    unsigned long i_ino;
    s64 i_mtime_sec;
    u32 i_mtime_nsec;
    u32 i_generation;
} CORE;

struct file {
    struct inode *f_inode;
} CORE;

struct vm_area_struct {
    unsigned long vm_start;
    unsigned long vm_end;
    struct mm_struct *vm_mm;
    unsigned long vm_flags;
    unsigned long vm_pgoff;
    struct file *vm_file;
} CORE;

struct seqcount {
    unsigned int sequence;
} CORE;
typedef struct seqcount seqcount_t;

struct xol_area {
    unsigned long vaddr;
} CORE;

struct uprobes_state {
    struct xol_area *xol_area;
} CORE;

// arch/x86/include/asm/mmu.h
typedef struct {
    u64 ctx_id;
    void *vdso;
} CORE mm_context_t;

struct mm_struct {
    struct maple_tree mm_mt;
    unsigned long start_stack;
    unsigned long saved_auxv[56];
    mm_context_t context;
    struct uprobes_state uprobes_state;
} CORE;

// The count of changes of the mappings, by kernel: a seqcount from 6.14 on, a plain number from 6.4 to 6.13, nothing before.
struct mm_struct___sequence {
    seqcount_t mm_lock_seq;
} CORE;

struct mm_struct___number {
    int mm_lock_seq;
} CORE;

// ---- what a program is called with

// struct bpf_perf_event_data: struct pt_regs with user space's field widths, then period and address. Its context is read in 8-byte loads
// only.
struct perf_context {
    u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
    u64 sample_period;
    u64 addr;
};

struct raw_tracepoint_context {
    u64 args[4];
};

// ---- deferred work

struct bpf_task_work {
    u64 opaque;
} __attribute__((aligned(8)));

struct bpf_map;

typedef int (*bpf_task_work_callback_t)(struct bpf_map *map, void *key, void *value);

// The kernel function that queues a callback on a thread's return to user space. It is called by a number that stands for it
// (TASK_WORK_RESUME), which loader.c replaces: libbpf looks for a missing __weak function in the BTF of every module, and to list those
// it needs CAP_SYS_ADMIN.
static int (*const task_work_resume)(struct task_struct *task, struct bpf_task_work *work, void *map, bpf_task_work_callback_t callback,
                                     void *aux) = (void *)TASK_WORK_RESUME;

#endif
