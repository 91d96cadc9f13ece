// frame_rows.h over the walk's own CFI interpreter.
#include "frame_rows.h"

#define _GNU_SOURCE
#include "library_home.h"
#include "walk.h"

struct section {
    const u8 *bytes;
    u64 size;
    u64 address;
};

static int read_section(void *user, uint64_t address, void *to, size_t size) {
    const struct section *section = user;
    if (address < section->address || address - section->address > section->size) return -1;
    u64 offset = address - section->address;
    if (size > section->size - offset) return -1;
    memcpy(to, section->bytes + offset, size);
    return 0;
}

// Whether the compact form says all of the row: no expression but a dereferenced base, no rule for rsp, nothing of a signal frame.
static int is_plain(const struct cfi *cfi) {
    const struct row *row = &cfi->row;
    u32 fp = row->rules[SLOT_RBP].kind, ra = row->rules[SLOT_RA].kind;
    if (cfi->signal || row->rules[SLOT_RSP].kind != RULE_SAME) return 0;
    if (row->cfa_kind != CFA_REG && !(row->cfa_kind == CFA_DEREF && row->cfa_offset == 0)) return 0;
    return (fp == RULE_SAME || fp == RULE_AT_CFA || fp == RULE_AT_REG) && (ra == RULE_AT_CFA || ra == RULE_UNDEFINED);
}

static struct frame_row compact(const struct cfi *cfi, u64 entry, u64 start) {
    const struct row *row = &cfi->row;
    struct frame_row out = {.entry = entry, .function = cfi->pc_begin, .function_end = cfi->pc_end, .start = start, .plain = (u8)is_plain(cfi)};
    if (!out.plain) return out;
    out.cfa_base = row->cfa_base;
    out.cfa_deref = row->cfa_kind == CFA_DEREF;
    out.cfa_offset = out.cfa_deref ? row->cfa_inner : row->cfa_offset;
    out.fp_kind = row->rules[SLOT_RBP].kind;
    out.fp_base = out.fp_kind == RULE_AT_REG ? row->rules[SLOT_RBP].base : 0;
    out.fp_offset = out.fp_kind == RULE_SAME ? 0 : row->rules[SLOT_RBP].offset;
    out.ra_kind = row->rules[SLOT_RA].kind;
    out.ra_offset = out.ra_kind == RULE_AT_CFA ? row->rules[SLOT_RA].offset : 0;
    return out;
}

// The rows of the FDE in w->cfi from `*count` on. A function whose program is broken gets one row that is not plain.
static void function_rows(struct walk *w, u64 entry, struct frame_row *rows, u64 capacity, u64 *count) {
    struct cfi *cfi = &w->cfi;
    u64 first = *count, start = cfi->pc_begin;
    int stop = cfi_row(w, start, 0);
    while (!stop) {
        if (*count < capacity) rows[*count] = compact(cfi, entry, start);
        ++*count;
        if (!cfi->done || cfi->next >= cfi->pc_end) return;
        start = cfi->location = cfi->target = cfi->next;
        w->work = WORK_USER;
        stop = program_run(w, w->cursor, w->cursor_end);
    }
    *count = first;
    if (*count < capacity) rows[*count] = (struct frame_row){.entry = entry, .function = cfi->pc_begin, .function_end = cfi->pc_end, .start = cfi->pc_begin};
    ++*count;
}

s64 unspool_frame_rows(const void *bytes, u64 size, u64 address, struct frame_row *rows, u64 capacity) {
    struct section section = {bytes, size, address};
    struct unspool_context *context = unspool_open(NULL, 0, NULL);
    if (!context) return -1;
    unspool_use_reader(context, read_section, &section);
    struct walk *w = &context->walk;
    w->code_at = NO_WINDOW;
    u64 count = 0;
    s64 result = -1;
    for (u64 at = address; at + 4 <= address + size;) {
        w->work = WORK_USER;
        if (entry_open(w, at) || w->cursor_end > address + size) goto close;
        u64 next = w->cursor_end;
        if (next == at + 4) break;
        if (take_number(w, 4)) goto close;
        if (w->value != 0) {
            if (fde_parse(w, at)) goto close;
            if (w->cfi.pc_end > w->cfi.pc_begin) function_rows(w, at, rows, capacity, &count);
        }
        at = next;
    }
    result = (s64)count;
close:
    unspool_close(context);
    return result;
}
