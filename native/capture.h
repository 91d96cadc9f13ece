// The loader's face: load the sampler into the kernel, attach it, take its records. All functions are for one thread at a time.
// Everything is tied to file descriptors: when the process ends, however it ends, nothing stays in the kernel.
#ifndef UNSPOOL_CAPTURE_H
#define UNSPOOL_CAPTURE_H

#include "types.h"

#define EXPORT __attribute__((visibility("default")))

// System calls that a mask can name; the highest of x86-64 is below 512.
#define SYSCALLS_MAX 512

// Working memory of deferred walks: so many can wait for a page at one time. A power of two.
#define POOL_SIZE 32

// Stands for the kernel function that queues a callback on a thread (bpf_task_work_schedule_resume) until the loader knows its number: no
// helper has it.
#define TASK_WORK_RESUME 0x7e570001

// Which tasks are sampled.
enum filter {
    FILTER_NONE = 0,  // all but the profiler itself
    FILTER_TASKS = 1, // only those of the map of targets
};

// What the sampler is to do; the BPF programs see it as constants. The Python twin is in src/unspool/capture/kernel.py.
struct sampler_config {
    u32 trigger;        // enum trigger
    u32 filter;         // enum filter
    u32 self;           // the profiler's process id, never sampled unless it is a target; 0: sample it too
    u32 follow;         // children of targets become targets
    u32 kernel_frames;  // join kernel frames
    u32 pid_namespace;  // inode number of the profiler's PID namespace, 0 for the machine's first one
    u32 all_syscalls;   // no mask
    u32 cpus;           // possible CPUs; written by the loader
    u32 threads;        // there are targets that are threads
    u32 methods;        // enum method
    u32 deferral;       // walks can be put off; written by the loader
    u32 spare;
    u64 syscalls[SYSCALLS_MAX / 64];
};

_Static_assert(sizeof(struct sampler_config) == 112, "struct sampler_config has a Python twin");

// What a target is: a process with all its threads, or one thread.
enum target_kind {
    TARGET_PROCESS = 1,
    TARGET_THREAD = 2,
};

struct target {
    u32 kind;
    u32 id;  // as seen in the profiler's PID namespace
};

// Where .eh_frame of a file is, as its section headers say: stated addresses. The key is `unread` of a record.
struct frame_section {
    u64 start;
    u64 end;
};

#define FRAME_SECTIONS_MAX 4096

// ---- for user space only

// A file whose unwind data was not found, and where: a process and an address in its code.
struct unread_file {
    u32 key;
    u32 pid;
    u64 address;
};

#define UNREAD_MAX 16

struct sampler;

// A loaded sampler, or NULL: then unspool_sampler_error() says why and errno holds the kernel's answer.
EXPORT struct sampler *unspool_sampler_load(const void *object, u64 size, const struct sampler_config *config, u64 ring_size);

// What went wrong last, with the verifier's or libbpf's words.
EXPORT const char *unspool_sampler_error(void);

// Sample every CPU `frequency` times a second, by the hardware's cycles counter when `hardware` is set and there is one. 0 or -errno.
EXPORT int unspool_sampler_start_cpu(struct sampler *sampler, u32 frequency, int hardware);

// Sample at the entry of system calls. 0 or -errno.
EXPORT int unspool_sampler_start_syscalls(struct sampler *sampler);

// Whether the CPU trigger runs on hardware cycles.
EXPORT int unspool_sampler_is_hardware(const struct sampler *sampler);

// Add a target, or remove it. 0 or -errno.
EXPORT int unspool_sampler_watch(struct sampler *sampler, u32 kind, u32 id, int on);

// Copy whole records into the buffer, as many as fit; the bytes copied, or -errno. `size` must hold the largest record (about 34 KB).
EXPORT s64 unspool_sampler_drain(struct sampler *sampler, void *buffer, u64 size);

// Files of the last drain whose unwind data was not found, each once; their number.
EXPORT u32 unspool_sampler_unread(struct sampler *sampler, struct unread_file *files);

// Say where such a file has its .eh_frame. 0 or -errno.
EXPORT int unspool_sampler_frame_section(struct sampler *sampler, u32 key, u64 start, u64 end);

// The counters, summed over the CPUs. 0 or -errno.
EXPORT int unspool_sampler_counters(const struct sampler *sampler, u64 *values, u32 number);

// Take no more samples; those that wait for their deferred walk still come.
EXPORT void unspool_sampler_stop(struct sampler *sampler);

// Emit what is known of the samples whose deferred walk has not run. After stop, before the last drain. 0 or -errno.
EXPORT int unspool_sampler_flush(struct sampler *sampler);

// Samples that wait for their deferred walk.
EXPORT u32 unspool_sampler_pending(const struct sampler *sampler);

EXPORT void unspool_sampler_close(struct sampler *sampler);

#endif
