// Walks that are interrupted at every page that is not there, as in the kernel: resumed, they must give what an undisturbed walk gives.
#define _GNU_SOURCE
#define home_read home_read_present
#include "library_home.h"
#undef home_read

#include "library.c"

#include <elf.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <unistd.h>

#define DEPTH 200
#define FRAMES 512
#define PAGES 4096

static u64 present[PAGES];  // page numbers that were brought in
static u32 present_count;
static u32 loss;  // of 1,000 reads of present pages, so many find it gone again
static u64 random_state = 1;
static u64 interruptions;

static u32 chance(u32 of_thousand) {
    random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (random_state >> 33) % 1000 < of_thousand;
}

static int is_present(u64 page) {
    for (u32 i = 0; i < present_count; i++)
        if (present[i] == page) return 1;
    return 0;
}

static int disturbed;

static int home_read(struct walk *w, u64 address, void *to, u32 size) {
    for (u64 page = address / PAGE; disturbed && page <= (address + size - 1) / PAGE; page++)
        if (!is_present(page) || chance(loss)) return STOP_PAGE_ABSENT;
    return home_read_present(w, address, to, size);
}

static struct unspool_mapping mappings[1024];

static size_t read_mappings(void) {
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[4600];
    size_t count = 0;
    while (maps && count < 1024 && fgets(line, sizeof(line), maps)) {
        unsigned long start, end, offset, inode;
        char permissions[5];
        if (sscanf(line, "%lx-%lx %4s %lx %*s %lu", &start, &end, permissions, &offset, &inode) != 5) continue;
        u32 flags = (permissions[1] == 'w' ? UNSPOOL_WRITABLE : 0) | (permissions[2] == 'x' ? UNSPOOL_EXECUTABLE : 0);
        mappings[count++] = (struct unspool_mapping){start, end, offset, inode, flags, 0};
    }
    if (maps) fclose(maps);
    return count;
}

static void bring_in(u64 address) {
    if (!is_present(address / PAGE) && present_count < PAGES) present[present_count++] = address / PAGE;
}

// One walk from the registers given, into `stack`.
static void walk_all(struct unspool_context *context, const struct unspool_thread *thread, struct unspool_stack *stack) {
    struct walk *w = &context->walk;
    take_thread(context, thread);
    w->max_frames = FRAMES;
    // Nothing is known of the code.
    w->module.flags = 0;
    memset(context->modules, 0, context->count * sizeof(*context->modules));
    forget_rows(context);
    context->stack = stack;
    walk_start(w);
    while (w->stop == STOP_PAGE_ABSENT) {
        interruptions++;
        bring_in(w->fault);
        bring_in(w->fault + w->fault_size - 1);
        walk_resume(w);
    }
    stack->count = w->depth;
    stack->stop = w->stop;
    stack->reason = w->bad_reason;
    stack->first_bad_frame = w->first_bad_frame;
}

static struct unspool_frame plain_frames[FRAMES], resumed_frames[FRAMES];

static int differ(const struct unspool_stack *plain, const struct unspool_stack *resumed) {
    return plain->count != resumed->count || plain->stop != resumed->stop || plain->reason != resumed->reason ||
           plain->first_bad_frame != resumed->first_bad_frame || memcmp(plain_frames, resumed_frames, plain->count * sizeof(plain_frames[0]));
}

static int compare(void) {
    struct unspool_thread thread = {.known = REGS_KEPT};
    // The registers of this very place, and its address.
    __asm__ volatile("movq %%rbx, 24(%0); movq %%rbp, 48(%0); movq %%rsp, 56(%0); movq %%r12, 96(%0); movq %%r13, 104(%0);"
                     "movq %%r14, 112(%0); movq %%r15, 120(%0); leaq 0(%%rip), %%rax; movq %%rax, 128(%0)"
                     :
                     : "D"(&thread)
                     : "rax", "memory");
    struct unspool_ends ends = {.process_entry = getauxval(AT_ENTRY)};
    size_t count = read_mappings();
    struct unspool_context *context = unspool_open(mappings, count, &ends);
    unspool_use_process(context, getpid());
    struct unspool_stack plain = {.frames = plain_frames, .capacity = FRAMES};
    struct unspool_stack resumed = {.frames = resumed_frames, .capacity = FRAMES};
    walk_all(context, &thread, &plain);
    disturbed = 1;
    int failures = plain.stop != STOP_END_PROCESS_ENTRY || plain.count < DEPTH;
    static const u32 LOSSES[] = {0, 100, 300};
    for (u32 i = 0; i < 3; i++) {
        loss = LOSSES[i];
        present_count = 0;
        interruptions = 0;
        walk_all(context, &thread, &resumed);
        failures += differ(&plain, &resumed);
        printf("%u in 1,000 lost: %u frames, stop %u, %llu interruptions\n", loss, resumed.count, resumed.stop, interruptions);
    }
    return failures;
}

// Frames of half a page, so that the stack covers many.
static __attribute__((noinline)) int deep(int depth) {
    volatile char room[2048];
    room[0] = (char)depth;
    int result = depth ? deep(depth - 1) : compare();
    return result + room[0] - (char)depth;
}

int main(void) {
    return deep(DEPTH) != 0;
}
