// What crosses from the kernel to Python: the record of one sample, and the counters. The Python twin is src/unspool/capture/records.py;
// tests/capture/test_records.py compares every size, offset and number.
#ifndef UNSPOOL_RECORD_H
#define UNSPOOL_RECORD_H

#include "types.h"

// Kernel frames of a sample at most: the kernel's own limit (kernel.perf_event_max_stack) is 127 unless it was changed.
#define KERNEL_FRAMES_MAX 127

// User frames of the immediate walk at most: it runs in an interrupt.
#define IMMEDIATE_FRAMES_MAX 1024

// User frames of the deferred walk at most.
#define DEFERRED_FRAMES_MAX 4096

// What made the sample. One number a trigger; `detail` of the record is the trigger's own: the system call's number for TRIGGER_SYSCALL.
enum trigger {
    TRIGGER_NONE = 0,
    TRIGGER_CPU = 1,
    TRIGGER_SYSCALL = 2,
};

enum record_flag {
    RECORD_DEFERRED = 1,     // walked in task context, page faults included, after the sample's time
    RECORD_COMPAT = 2,       // a 32-bit program or system call
    RECORD_IN_KERNEL = 4,    // the thread was in the kernel
    RECORD_MISSING = 16,     // `stop_address` was not in memory, and no walk can be put off: the loader brings it in for the next sample
    RECORD_NOT_RESUMED = 8,  // the deferred walk never ran: the thread was blocked to the end, exited, or its registers had changed
};

// A user address in `addresses` carries its frame's marks in the top byte; bits 0-55 are the address, sign-extended from bit 55
// (user addresses of x86-64 have 47 or 56 bits; the vsyscall page is negative).
#define FRAME_ADDRESS_BITS 56
#define FRAME_TRUST_MASK 0x0f
#define FRAME_EXACT 0x10   // the very instruction, not the one after a call
#define FRAME_SIGNAL 0x20  // the frame of a signal trampoline

#define NO_BAD_FRAME 0xffffffff

// Samples that wait for their deferred walk at most, on the whole machine.
#define PENDING_MAX 4096

struct record {
    u32 size;      // bytes of the record, addresses included
    u32 unread;    // with NO_UNWIND_INFO: stands for the file that has no PT_GNU_EH_FRAME; 0
    u64 time_ns;   // CLOCK_MONOTONIC at the sample, also when the walk was deferred
    u64 start_ns;  // the process's start, CLOCK_BOOTTIME (task->group_leader->start_boottime)
    u32 pid;
    u32 tid;
    u32 cpu;
    u16 trigger;
    u16 flags;
    u64 detail;
    u64 stop_address;  // the pc or the address that the stop is about, 0 when there is none
    u32 first_bad_frame;
    u8 stop;  // enum of stops.h
    u8 verdict;
    u8 reason;  // of the verdict, enum of stops.h
    u8 reserved;
    u16 n_kernel;
    u16 n_user;
    u32 space_generation;  // mm_lock_seq at the sample: changes with every change of the mappings
    // Then n_kernel kernel addresses and n_user user frames, u64 each, innermost first in both. (In the ring the user's come first;
    // loader.c turns them.)
};

_Static_assert(sizeof(struct record) == 72, "the header of a record is 72 bytes");
_Static_assert(__builtin_offsetof(struct record, time_ns) == 8, "time_ns");
_Static_assert(__builtin_offsetof(struct record, pid) == 24, "pid");
_Static_assert(__builtin_offsetof(struct record, detail) == 40, "detail");
_Static_assert(__builtin_offsetof(struct record, stop) == 60, "stop");

// The largest record.
#define RECORD_SIZE_MAX (sizeof(struct record) + (DEFERRED_FRAMES_MAX + KERNEL_FRAMES_MAX) * sizeof(u64))

// Every sample taken (COUNT_SAMPLES) is emitted (COUNT_EMITTED), lost (COUNT_LOST_RING_FULL), or waits in the map of pending samples.
enum counter {
    COUNT_SAMPLES,            // samples that passed the filters
    COUNT_EMITTED,            // records written to the ring
    COUNT_LOST_RING_FULL,     // records that found no room
    COUNT_LOST_NO_SCRATCH,    // samples for which there was no working memory (cannot happen, and is shown if it does)
    COUNT_LOST_NESTED,        // samples that met the same program on their CPU: the kernel drops them; the loader asks how many
    COUNT_IDLE,               // the CPU was idle: no task to sample
    COUNT_FILTERED,           // of other processes or threads than those asked for
    COUNT_NO_USER_STACK,      // kernel threads
    COUNT_EXITED,             // the thread had given its memory back
    COUNT_COMPAT,             // 32-bit programs
    COUNT_DEFERRED,           // walks put off to the return to user space
    COUNT_DEFERRED_DONE,      // of those, walked
    COUNT_DEFERRED_BUSY,      // not put off, because the thread had too many waiting
    COUNT_DEFERRED_FAILED,    // not put off, because the kernel refused
    COUNT_DEFERRED_FULL,      // not put off, because the map of pending samples was full
    COUNT_DEFERRED_NO_SLOT,   // put off, but no working memory was free
    COUNT_DEFERRED_CHANGED,   // put off, but the thread's registers or memory had changed
    COUNT_PENDING_EXIT,       // emitted as they were when their thread exited
    COUNT_PENDING_FLUSHED,    // emitted as they were at the end of the recording
    COUNT_PENDING_STOLEN,     // a callback that found its sample already emitted
    COUNT_ROW_HITS,           // rows found in the cache
    COUNT_ROW_MISSES,
    COUNT_MAPPING_HITS,       // mappings found in the cache
    COUNT_MAPPING_WALKS,      // lookups in the process's maple tree
    COUNT_MAPPING_RACES,      // of those, given up because the mappings changed meanwhile
    COUNT_MODULE_HITS,
    COUNT_MODULE_MISSES,
    COUNT_INHERITED,          // rows and modules taken from the parent process
    COUNT_NOT_FOLLOWED,       // children of targets for which the map of targets had no room
    COUNT_PROGRAM_PERF,       // runs of each program
    COUNT_PROGRAM_SYSCALL,
    COUNT_MAX,
};

#endif
