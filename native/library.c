// The user-space library: unspool.h over the walk of walk.h.
#define _GNU_SOURCE
#include "library_home.h"
#include "walk.h"

#ifndef UNSPOOL_VERSION
#define UNSPOOL_VERSION "0.1"
#endif

_Static_assert(ROWS_KEPT == 1 << (64 - 51), "row_place takes the top 13 bits");

int unspool_api_version(void) {
    return UNSPOOL_API_VERSION;
}

const char *unspool_version(void) {
    return UNSPOOL_VERSION;
}

// No pc is ~0: its key marks an empty place.
static void forget_rows(struct unspool_context *context) {
    for (size_t i = 0; i < ROWS_KEPT; i++) context->rows[i].key = ~0ULL;
}

struct unspool_context *unspool_open(const struct unspool_mapping *mappings, size_t count, const struct unspool_ends *ends) {
    struct unspool_context *context = calloc(1, sizeof(*context));
    if (!context) return NULL;
    context->mappings = calloc(count + 1, sizeof(*context->mappings));
    context->modules = calloc(count + 1, sizeof(*context->modules));
    if (!context->mappings || !context->modules) {
        unspool_close(context);
        return NULL;
    }
    if (count) memcpy(context->mappings, mappings, count * sizeof(*mappings));
    context->count = count;
    if (ends) context->ends = *ends;
    context->walk.methods = METHOD_ALL;
    context->walk.home = context;
    forget_rows(context);
    return context;
}

void unspool_close(struct unspool_context *context) {
    if (!context) return;
    free(context->pages);
    free(context->modules);
    free(context->mappings);
    free(context);
}

void unspool_use_reader(struct unspool_context *context, unspool_read read, void *user) {
    context->read = read;
    context->user = user;
}

void unspool_use_process(struct unspool_context *context, int pid) {
    context->read = NULL;
    context->pid = pid;
    if (!context->pages) context->pages = calloc(PAGES_KEPT, sizeof(*context->pages));
    unspool_forget(context);
}

void unspool_use_methods(struct unspool_context *context, unsigned methods) {
    context->walk.methods = methods & METHOD_ALL;
    forget_rows(context);
}

void unspool_use_bytes(struct unspool_context *context, uint64_t start, const void *data, size_t size) {
    context->bytes_start = start;
    context->bytes = data;
    context->bytes_size = start + size < start ? 0 : size;
}

void unspool_use_birth(struct unspool_context *context, uint64_t ip, uint64_t sp, uint64_t creator_sp) {
    context->birth = (struct birth){.ip = ip, .sp = sp, .creator_sp = creator_sp};
}

void unspool_forget(struct unspool_context *context) {
    if (!context->pages) return;
    for (size_t i = 0; i < PAGES_KEPT; i++) context->pages[i].number = 0;
}

// The "in" part of the walk's state.
static void take_thread(struct unspool_context *context, const struct unspool_thread *thread) {
    struct walk *w = &context->walk;
    memcpy(w->regs, thread->values, sizeof(w->regs));
    w->ip = thread->ip;
    w->known = thread->known & REGS_ALL;
    w->thread_pointer = thread->thread_pointer;
    w->process_entry = context->ends.process_entry;
    w->interpreter_entry = context->ends.interpreter_entry;
    w->initial_sp = context->ends.initial_sp;
    w->exact = 1;
    w->work = WORK_USER;
    w->module.start = w->module.end = 0;
    context->thread = thread;
    context->originals = 0;
}

void unspool_walk(struct unspool_context *context, const struct unspool_thread *thread, struct unspool_stack *stack) {
    struct walk *w = &context->walk;
    take_thread(context, thread);
    context->stack = stack;
    w->max_frames = stack->capacity;
    walk_start(w);
    stack->count = w->depth;
    stack->stop = w->stop;
    stack->stop_address = w->stop_address;
    stack->first_bad_frame = w->first_bad_frame;
    stack->reason = w->bad_reason;
    stack->verdict = w->first_bad_frame == NO_BAD_FRAME ? VERDICT_RELIABLE : VERDICT_UNRELIABLE;
    context->stack = NULL;
    context->thread = NULL;
}

void unspool_walk_states(struct unspool_context *context, const struct unspool_state *states, struct unspool_stack *stacks, size_t count) {
    for (size_t i = 0; i < count; i++) {
        unspool_use_bytes(context, states[i].stack_start, states[i].stack_data, states[i].stack_size);
        unspool_walk(context, &states[i].thread, &stacks[i]);
    }
    unspool_use_bytes(context, 0, NULL, 0);
}

#define LABEL(number, label) \
    case number:             \
        return label;

const char *unspool_stop_name(uint32_t stop) {
    switch (stop) {
        STOP_LABELS(LABEL)
    default:
        return NULL;
    }
}

const char *unspool_verdict_name(uint32_t verdict) {
    switch (verdict) {
        VERDICT_LABELS(LABEL)
    default:
        return NULL;
    }
}
