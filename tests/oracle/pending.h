/* The true list of pending return points of one stepped thread: what a call, a return, a signal, a jump out and a stack switch do to it.
 *
 * An entry lives at its slot, the stack word that holds the return address. It is RETURNED when a `ret` (or rt_sigreturn) consumes that very
 * slot, and DISCARDED when the stack pointer rises above it in any other way. From such a rise to the jump or return that ends it (the landing)
 * the list carries a placeholder on top, because control will go to the landing whatever the stack says meanwhile.
 */
#ifndef ORACLE_PENDING_H
#define ORACLE_PENDING_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The kinds of entries; tests/oracle/truth.py has the same numbers. */
enum kind { KIND_CALL = 1, KIND_SIGNAL, KIND_RESTORER, KIND_COROUTINE, KIND_LANDING, KIND_URETPROBE, KIND_NOTHING };
/* What became of an entry; no record means that it was still pending when the program (or the run) ended. */
enum fate { FATE_RETURNED = 1, FATE_DISCARDED };

struct entry {
    uint64_t id, ra, slot;
    uint64_t stack_end;      /* end of the mapping that holds the slot: the name of the stack */
    uint64_t interrupted_sp; /* KIND_SIGNAL: where the interrupted code's stack pointer was ... */
    uint64_t interrupted_end; /* ... and the end of that mapping */
    uint32_t kind;
};

struct context {
    struct entry *entries;
    int count, room;
    uint64_t stack_end;
    uint64_t base_sp; /* a thread's first stack pointer; 0 for a coroutine */
    struct context *next;
};

/* Entries that were discarded in the jump that is going on: their fate needs the landing's address. */
struct jump {
    uint64_t *ids;
    int count, room;
    int open;
    int steps;
};

/* Written by the output half. */
void put_entry(const struct entry *entry);
void put_fate(uint64_t id, enum fate fate, uint64_t landing, int outermost);

static uint64_t next_id = 1;

static inline struct entry *top_of(struct context *c) { return c->count ? &c->entries[c->count - 1] : NULL; }

static struct entry *push(struct context *c, uint64_t ra, uint64_t slot, uint64_t stack_end, enum kind kind)
{
    if (c->count == c->room) {
        c->room = c->room ? 2 * c->room : 64;
        c->entries = realloc(c->entries, sizeof(struct entry) * c->room);
    }
    struct entry *e = &c->entries[c->count++];
    *e = (struct entry){.id = next_id++, .ra = ra, .slot = slot, .stack_end = stack_end, .kind = kind};
    if (kind != KIND_LANDING)
        put_entry(e);
    return e;
}

static void pop_returned(struct context *c)
{
    put_fate(top_of(c)->id, FATE_RETURNED, 0, 0);
    c->count--;
}

static void pop_discarded(struct context *c, struct jump *jump)
{
    if (jump->count == jump->room) {
        jump->room = jump->room ? 2 * jump->room : 64;
        jump->ids = realloc(jump->ids, sizeof(uint64_t) * jump->room);
    }
    jump->ids[jump->count++] = top_of(c)->id;
    c->count--;
}

/* The jump has landed: everything it dropped gets its fate, the outermost one may be the frame that control landed in. */
static void land(struct jump *jump, uint64_t pc)
{
    for (int i = 0; i < jump->count; i++)
        put_fate(jump->ids[i], FATE_DISCARDED, pc, i == jump->count - 1);
    jump->count = 0;
    jump->open = 0;
}

/* The placeholder turns out to stand for `pc`, or for nothing: what it hid was a return address that was taken off (call, pop) and the
 * function went on to return as usual. */
static void land_on_top(struct context *c, struct jump *jump, uint64_t pc)
{
    struct entry *e = top_of(c);
    e->ra = pc;
    e->kind = pc ? KIND_LANDING : KIND_NOTHING;
    put_entry(e);
    put_fate(e->id, FATE_RETURNED, 0, 0);
    c->count--;
    land(jump, pc);
}

/* Dead: its slot lies below the stack pointer of its own stack. The trampoline of a uretprobe keeps the address outside of the stack. */
static int is_dead(const struct entry *e, uint64_t sp, uint64_t stack_end)
{
    return e->kind != KIND_URETPROBE && e->kind != KIND_LANDING && (e->stack_end != stack_end || e->slot < sp);
}

static int drop_dead(struct context *c, struct jump *jump, uint64_t sp, uint64_t stack_end)
{
    int dropped = 0;
    struct entry *e;
    while ((e = top_of(c)) && is_dead(e, sp, stack_end)) {
        pop_discarded(c, jump);
        dropped++;
    }
    return dropped;
}

static void open_jump(struct context *c, struct jump *jump, uint64_t stack_end)
{
    jump->open = 1;
    jump->steps = 0;
    push(c, 0, 0, stack_end, KIND_LANDING);
}

/* The stack pointer rose (or moved to another stack) without a return. */
static void raised(struct context *c, struct jump *jump, uint64_t sp, uint64_t stack_end)
{
    struct entry *e = top_of(c);
    struct entry placeholder = {0};
    if (e && e->kind == KIND_LANDING) {
        placeholder = *e;
        c->count--;
    }
    int dropped = drop_dead(c, jump, sp, stack_end);
    if (placeholder.id)
        c->entries[c->count++] = placeholder;
    else if (dropped)
        open_jump(c, jump, stack_end);
}

static void returned(struct context *c, struct jump *jump, uint64_t from_sp, uint64_t sp, uint64_t pc, uint64_t stack_end)
{
    struct entry *e = top_of(c);
    int landed = e && e->kind == KIND_LANDING, ordinary = 0;
    struct entry placeholder = {0};
    if (landed) {
        placeholder = *e;
        c->count--;
        e = top_of(c);
    }
    if (e && e->kind == KIND_URETPROBE && e->ra == pc) {
        pop_returned(c);
    } else if (e && e->slot == from_sp && e->stack_end == stack_end) {
        ordinary = e->ra == pc;
        if (ordinary)
            pop_returned(c);
        else if (pc >= 0x7fffffffe000 && pc < 0x7ffffffff000)
            e->kind = KIND_URETPROBE; /* the kernel holds the address now */
        else
            pop_discarded(c, jump);
    }
    drop_dead(c, jump, sp, stack_end);
    if (landed) {
        c->entries[c->count++] = placeholder;
        land_on_top(c, jump, ordinary ? 0 : pc);
    } else if (jump->count) {
        land(jump, pc);
    }
}

#endif
