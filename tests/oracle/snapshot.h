/* One state of a thread as a record: registers, pending entries, and what its stacks hold near them. */
#ifndef ORACLE_SNAPSHOT_H
#define ORACLE_SNAPSHOT_H

#include <time.h>

#include "stepped.h"

#define MAX_STACK (1 << 20) /* a state with more stack than this is skipped and counted */
/* Why a state was taken, and how; tests/oracle/truth.py has the same numbers. */
#define FLAG_UNIFORM 1
#define FLAG_IN_JUMP 2
#define FLAG_PER_PC 4
#define FLAG_ENTERED 8

static uint64_t states, skipped, in_jump_states;

struct range {
    uint64_t end_of_stack, low, high;
};

static void cover(struct range *ranges, int *count, uint64_t stack_end, uint64_t low, uint64_t high)
{
    for (int i = 0; i < *count; i++) {
        if (ranges[i].end_of_stack != stack_end)
            continue;
        if (low < ranges[i].low)
            ranges[i].low = low;
        if (high > ranges[i].high)
            ranges[i].high = high;
        return;
    }
    if (*count < 16)
        ranges[(*count)++] = (struct range){stack_end, low, high};
}

static int stack_ranges(struct thread *t, struct range *ranges)
{
    int count = 0;
    struct context *c = t->context;
    uint64_t sp = t->regs.rsp & ~7ull;
    cover(ranges, &count, t->stack_end, sp - 128, sp + 256);
    for (int i = 0; i < c->count; i++) {
        struct entry *e = &c->entries[i];
        if (e->kind == KIND_LANDING || e->kind == KIND_URETPROBE)
            continue;
        cover(ranges, &count, e->stack_end, e->slot, e->slot + 256);
        if (e->kind == KIND_SIGNAL)
            cover(ranges, &count, e->interrupted_end, (e->interrupted_sp & ~7ull) - 128, (e->interrupted_sp & ~7ull) + 256);
    }
    if (c->base_sp)
        cover(ranges, &count, c->stack_end, c->base_sp, c->base_sp + 256);
    for (int i = 0; i < count; i++)
        if (ranges[i].high > ranges[i].end_of_stack)
            ranges[i].high = ranges[i].end_of_stack;
    return count;
}

static void put_state(struct thread *t, uint32_t flags)
{
    static uint8_t *bytes;
    static struct buffer changes;
    struct range ranges[16];
    int count = stack_ranges(t, ranges);
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += ranges[i].high - ranges[i].low;
    if (total > MAX_STACK || t->context->count > 100000) {
        skipped++;
        return;
    }
    if (maps_dirty || maps_changed)
        put_maps();
    if (!bytes)
        bytes = malloc(MAX_STACK);
    uint32_t runs = 0;
    changes.size = 0;
    for (int i = 0; i < count; i++) {
        size_t size = ranges[i].high - ranges[i].low;
        if (!peek(ranges[i].low, bytes, size)) {
            ranges[i].low += 128; /* the red zone may reach below the mapping */
            size -= 128;
            if (!peek(ranges[i].low, bytes, size)) {
                skipped++;
                return;
            }
        }
        runs += add_changes(&changes, ranges[i].low, bytes, size);
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct user_regs_struct *r = &t->regs;
    uint64_t regs[18] = {r->rax, r->rdx, r->rcx, r->rbx, r->rsi, r->rdi, r->rbp, r->rsp, r->r8,
                         r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15, r->rip, r->fs_base};
    struct context *c = t->context;
    add_u64(&payload, steps);
    add_u64(&payload, (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec);
    add_u32(&payload, t->tid);
    add_u32(&payload, flags | (t->jump.open ? FLAG_IN_JUMP : 0));
    add(&payload, regs, sizeof regs);
    add_u32(&payload, c->count);
    add_u32(&payload, count);
    add_u32(&payload, runs);
    for (int i = c->count - 1; i >= 0; i--)
        add_u64(&payload, c->entries[i].id);
    for (int i = 0; i < count; i++) {
        add_u64(&payload, ranges[i].low);
        add_u64(&payload, ranges[i].high);
    }
    add(&payload, changes.data, changes.size);
    put_payload(RECORD_STATE);
    states++;
    in_jump_states += t->jump.open;
}

#endif
