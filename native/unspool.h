// The walk for programs: a thread's registers, mappings and memory in, its call stack with a verdict out. x86-64; link with _unspool.so.
//
// Stable: names and structures stay as they are within one UNSPOOL_API_VERSION. Not thread-safe: one context a thread.
#ifndef UNSPOOL_H
#define UNSPOOL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UNSPOOL_API_VERSION 1

#define UNSPOOL_API __attribute__((visibility("default")))

enum unspool_mapping_flag {
    UNSPOOL_WRITABLE = 1,
    UNSPOOL_EXECUTABLE = 2,
    UNSPOOL_VDSO = 4,
    UNSPOOL_UPROBES = 8,  // the [uprobes] page, to which uretprobes lead returns
};

// One mapping, as /proc/PID/maps shows it. Mappings with the same `file` show the same file; 0: no file.
struct unspool_mapping {
    uint64_t start;
    uint64_t end;
    uint64_t offset;
    uint64_t file;
    uint32_t flags;
    uint32_t reserved;
};

// Where stacks may end: AT_ENTRY, AT_BASE + the interpreter's e_entry, and mm->start_stack (field 28 of /proc/PID/stat). 0: not known.
struct unspool_ends {
    uint64_t process_entry;
    uint64_t interpreter_entry;
    uint64_t initial_sp;
};

// A thread's registers by DWARF number (rax rdx rcx rbx rsi rdi rbp rsp r8-r15); bit n of `known`: values[n] is known.
// `original_returns`: the return addresses that uretprobes replaced, innermost first; NULL when they are not known.
struct unspool_thread {
    uint64_t values[16];
    uint64_t ip;
    uint64_t thread_pointer;  // fs_base, 0 when not known
    const uint64_t *original_returns;
    uint32_t original_count;
    uint32_t known;
};

enum unspool_frame_flag {
    UNSPOOL_EXACT = 1,   // ip is the very instruction, not the one after a call
    UNSPOOL_SIGNAL = 2,  // a signal trampoline
    UNSPOOL_CFA = 4,     // cfa is known
};

struct unspool_frame {
    uint64_t ip;
    uint64_t sp;
    uint64_t cfa;
    uint32_t trust;  // 0 registers, 1 call frame information, 2 SFrame
    uint32_t flags;  // enum unspool_frame_flag
};

// The result. The caller gives `frames` and `capacity`; a stack of more frames stops with frame-limit. With `frames` NULL they are only counted.
struct unspool_stack {
    struct unspool_frame *frames;
    uint32_t capacity;
    uint32_t count;
    uint32_t stop;             // unspool_stop_name
    uint32_t verdict;          // unspool_verdict_name
    uint32_t reason;           // of an unreliable verdict, unspool_stop_name
    uint32_t first_bad_frame;  // of an unreliable verdict: frames before it can be believed
    uint64_t stop_address;     // the address that the stop is about
};

// Copies `size` bytes at `address` of the thread's memory; 0 when all were copied.
typedef int (*unspool_read)(void *user, uint64_t address, void *to, size_t size);

struct unspool_context;

// UNSPOOL_API_VERSION of the library, and its release.
UNSPOOL_API int unspool_api_version(void);
UNSPOOL_API const char *unspool_version(void);

// A context for one address space. The mappings (sorted by address) are copied. NULL: no memory.
UNSPOOL_API struct unspool_context *unspool_open(const struct unspool_mapping *mappings, size_t count, const struct unspool_ends *ends);
UNSPOOL_API void unspool_close(struct unspool_context *context);

// Where memory comes from: a function; or a live process, by process_vm_readv(2), pages kept until unspool_forget.
UNSPOOL_API void unspool_use_reader(struct unspool_context *context, unspool_read read, void *user);
UNSPOOL_API void unspool_use_process(struct unspool_context *context, int pid);

// Which unwind data may be used: 1 SFrame, 2 call frame information, 3 both (as it is without this call; SFrame is asked first).
UNSPOOL_API void unspool_use_methods(struct unspool_context *context, unsigned methods);

// A copied piece of memory that hides what the source has there: the stack bytes of a sample. `data` is not copied; NULL takes it away.
UNSPOOL_API void unspool_use_bytes(struct unspool_context *context, uint64_t start, const void *data, size_t size);

// Memory has changed: pages that were kept are dropped. What was learned of the code stays, because the mappings are the same.
UNSPOOL_API void unspool_forget(struct unspool_context *context);

// Where the threads of the next walks began, when their creator waits for them in a system call that names their stack (CLONE_VFORK of clone or clone3,
// as posix_spawn makes it): the address behind that system call, the stack pointer it gave them, and the creator's own. 0: not known.
UNSPOOL_API void unspool_use_birth(struct unspool_context *context, uint64_t ip, uint64_t sp, uint64_t creator_sp);

// Walks one stack.
UNSPOOL_API void unspool_walk(struct unspool_context *context, const struct unspool_thread *thread, struct unspool_stack *stack);

// Lower case with hyphens: "end-process-entry", "no-unwind-info"; "reliable". NULL for a number that has no name.
UNSPOOL_API const char *unspool_stop_name(uint32_t stop);
UNSPOOL_API const char *unspool_verdict_name(uint32_t verdict);

// Many stacks of one address space, each with its own copied stack: the states of a recording or a corpus.
struct unspool_state {
    struct unspool_thread thread;
    uint64_t stack_start;
    const void *stack_data;
    uint64_t stack_size;
};
UNSPOOL_API void unspool_walk_states(struct unspool_context *context, const struct unspool_state *states, struct unspool_stack *stacks, size_t count);

#ifdef __cplusplus
}
#endif

#endif
