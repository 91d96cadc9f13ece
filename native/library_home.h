// User space as the walk's home: mappings in an array, memory from a reader or a process, caches in the context.
#ifndef UNSPOOL_LIBRARY_HOME_H
#define UNSPOOL_LIBRARY_HOME_H

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "unspool.h"
#include "walk_state.h"

// Rows kept, direct-mapped by key: 512 KB.
#define ROWS_KEPT 8192

// Pages of a live process kept, direct-mapped by number: 1 MB.
#define PAGES_KEPT 256
#define PAGE 4096

struct kept_row {
    u64 key;
    struct row row;
};

struct kept_page {
    u64 number;  // the page's number, plus one; 0: none
    u8 bytes[PAGE];
};

struct unspool_context {
    struct walk walk;
    struct unspool_mapping *mappings;
    struct module *modules;  // one a mapping
    size_t count;
    struct unspool_ends ends;
    unspool_read read;
    void *user;
    int pid;
    struct birth birth;
    u64 bytes_start;
    const u8 *bytes;
    u64 bytes_size;
    struct kept_page *pages;
    const struct unspool_thread *thread;
    u32 originals;  // of thread->original_returns, used
    struct unspool_stack *stack;
    struct kept_row rows[ROWS_KEPT];
};

static struct unspool_context *home_of(const struct walk *w) {
    return w->home;
}

// ---- memory

static int read_process(const struct unspool_context *context, u64 address, void *to, size_t size) {
    struct iovec local = {.iov_base = to, .iov_len = size};
    struct iovec remote = {.iov_base = (void *)address, .iov_len = size};
    return process_vm_readv(context->pid, &local, 1, &remote, 1, 0) == (ssize_t)size ? 0 : STOP_MEM_FAULT;
}

// A read through the kept pages; it lies within one page.
static int read_page(struct unspool_context *context, u64 address, void *to, size_t size) {
    u64 number = address / PAGE;
    struct kept_page *page = &context->pages[number % PAGES_KEPT];
    if (page->number != number + 1) {
        page->number = 0;
        int stop = read_process(context, number * PAGE, page->bytes, PAGE);
        if (stop) return stop;
        page->number = number + 1;
    }
    memcpy(to, page->bytes + address % PAGE, size);
    return 0;
}

static int read_source(struct unspool_context *context, u64 address, void *to, size_t size) {
    if (context->read) return context->read(context->user, address, to, size) ? STOP_MEM_FAULT : 0;
    if (!context->pages) return STOP_MEM_FAULT;
    while (size) {
        size_t part = PAGE - address % PAGE;
        if (part > size) part = size;
        int stop = read_page(context, address, to, part);
        if (stop) return stop;
        address += part;
        to = (u8 *)to + part;
        size -= part;
    }
    return 0;
}

static int home_read(struct walk *w, u64 address, void *to, u32 size) {
    struct unspool_context *context = home_of(w);
    u64 end = address + size;
    if (end < address) return STOP_MEM_FAULT;
    if (context->bytes) {
        u64 bytes_end = context->bytes_start + context->bytes_size;
        if (address >= context->bytes_start && end <= bytes_end) {
            memcpy(to, context->bytes + (address - context->bytes_start), size);
            return 0;
        }
        // A read that is half in the copy would be of two instants: the walk asks for the word alone.
        if (address < bytes_end && end > context->bytes_start) return STOP_MEM_FAULT;
    }
    return read_source(context, address, to, size);
}

// ---- mappings

// The mapping that holds the address, NULL when there is none.
static const struct unspool_mapping *find_mapping(const struct unspool_context *context, u64 address) {
    size_t low = 0;
    size_t high = context->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (context->mappings[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == context->count || address < context->mappings[low].start) return NULL;
    return &context->mappings[low];
}

// Where the file's first byte is mapped: the nearest place at or below.
static u64 find_header(const struct unspool_context *context, const struct unspool_mapping *mapping) {
    if (mapping->flags & UNSPOOL_VDSO) return mapping->start - mapping->offset;
    for (const struct unspool_mapping *at = mapping;; at--) {
        if (at->file == mapping->file && at->offset == 0) return at->start;
        if (at == context->mappings) return 0;
    }
}

static int home_find_module(struct walk *w, u64 pc) {
    struct unspool_context *context = home_of(w);
    const struct unspool_mapping *mapping = find_mapping(context, pc);
    if (!mapping) return STOP_NO_MAPPING;
    if (!(mapping->flags & UNSPOOL_EXECUTABLE)) return STOP_NOT_EXECUTABLE;
    if (mapping->flags & UNSPOOL_UPROBES) return STOP_RA_REWRITTEN;
    if (!mapping->file && !(mapping->flags & UNSPOOL_VDSO)) return STOP_ANON_CODE;
    u64 id = (u64)(mapping - context->mappings);
    if (context->modules[id].flags & MODULE_PARSED) {
        w->module = context->modules[id];
        return 0;
    }
    memset(&w->module, 0, sizeof(w->module));
    w->module.start = mapping->start;
    w->module.end = mapping->end;
    w->module.id = id;
    w->module.header = find_header(context, mapping);
    w->module.flags = mapping->flags & UNSPOOL_VDSO ? MODULE_VDSO : 0;
    return 0;
}

static void home_keep_module(struct walk *w) {
    home_of(w)->modules[w->module.id] = w->module;
}

static void home_stack_bounds(struct walk *w) {
    const struct unspool_mapping *mapping = find_mapping(home_of(w), w->regs[REG_RSP]);
    u32 writable = mapping && mapping->flags & UNSPOOL_WRITABLE;
    w->stack_low = writable ? mapping->start : 1;
    w->stack_high = writable ? mapping->end : 1;
}

// ---- rows

static struct kept_row *row_place(struct walk *w, u64 key) {
    u64 hash = key * 0x9e3779b97f4a7c15ULL;
    return &home_of(w)->rows[hash >> 51];
}

static int home_get_row(struct walk *w, u64 key) {
    const struct kept_row *kept = row_place(w, key);
    if (kept->key != key) return 0;
    w->row = kept->row;
    return 1;
}

static void home_put_row(struct walk *w, u64 key) {
    struct kept_row *kept = row_place(w, key);
    kept->key = key;
    kept->row = w->row;
}

// ---- frames

static int home_put_frame(struct walk *w, u64 ip, u32 marks) {
    struct unspool_stack *stack = home_of(w)->stack;
    if (!stack->frames) return 0;
    struct unspool_frame *frame = &stack->frames[w->depth];
    frame->ip = ip;
    frame->sp = w->regs[REG_RSP];
    frame->cfa = 0;
    frame->trust = marks & FRAME_TRUST_MASK;
    frame->flags = (marks & FRAME_EXACT ? UNSPOOL_EXACT : 0) | (marks & FRAME_SIGNAL ? UNSPOOL_SIGNAL : 0);
    return 0;
}

static void home_frame_cfa(struct walk *w) {
    struct unspool_stack *stack = home_of(w)->stack;
    if (!stack->frames) return;
    struct unspool_frame *frame = &stack->frames[w->depth - 1];
    frame->cfa = w->cfa;
    frame->flags |= UNSPOOL_CFA;
}

// The caller of the library has the file, and its own way to unwind with it.
ALWAYS_INLINE int home_frame_section(struct walk *w) {
    (void)w;
    return 0;
}

static int home_original_return(struct walk *w, u64 *ra) {
    struct unspool_context *context = home_of(w);
    const struct unspool_thread *thread = context->thread;
    if (!thread->original_returns || context->originals >= thread->original_count) return STOP_RA_REWRITTEN;
    *ra = thread->original_returns[context->originals++];
    return 0;
}

static int home_birth(struct walk *w) {
    w->birth = home_of(w)->birth;
    return w->birth.ip != 0;
}

#endif
