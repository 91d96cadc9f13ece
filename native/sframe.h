// SFrame version 3 in the process's memory: the header of a module's section, the function that holds a pc, and its row ("The SFrame Format", binutils;
// the checks are those of the kernel series "unwind_user/sframe"). Nothing is kept of a section but what its header says.
#ifndef UNSPOOL_SFRAME_H
#define UNSPOOL_SFRAME_H

#include "memory.h"

#define SFRAME_HEADER 28
#define SFRAME_ENTRY 16
#define SFRAME_ATTRIBUTE 5

// The first eight bytes of a section that this walk reads: magic 0xdee2, version 3, flags FDE_SORTED | FDE_FUNC_START_PCREL, AMD64 little-endian, no
// fixed offset of the frame pointer, the return address at CFA - 8, no auxiliary header.
#define SFRAME_START 0x00f800030503dee2ULL

// Rows of one function at most: num_fres has 16 bits.
#define SFRAME_ROWS_MAX 0xffff

// Functions of one start that are tried: one of no bytes may share it with the next.
#define SFRAME_TRIES 2

// The header of the section at module.sframe, whose segment has module.sframe_size bytes; 0 or a stop that may pass. A section that cannot be used is
// forgotten: module.sframe is 0 then, and module.flags tells that there was one.
ALWAYS_INLINE int sframe_open(struct walk *w) {
    struct module *module = &w->module;
    u64 at = module->sframe, size = module->sframe_size;
    module->sframe = 0;
    module->flags |= MODULE_BAD_SFRAME;
    int stop = code_number(w, at, 8);
    if (stop) return is_passing((u32)stop) ? stop : 0;
    if (w->value != SFRAME_START) return 0;
    u32 word[5];
    for (u32 i = 0; i < 5; i++) {
        stop = code_number(w, at + 8 + 4 * i, 4);
        if (stop) return is_passing((u32)stop) ? stop : 0;
        word[i] = (u32)w->value;
    }
    u64 index = SFRAME_HEADER + (u64)word[3], rows = SFRAME_HEADER + (u64)word[4];
    if (!word[0] || !word[1] || index + (u64)word[0] * SFRAME_ENTRY > rows || rows + word[2] > size) return 0;
    module->sframe_index = at + index;
    module->sframe_count = word[0];
    module->sframe_rows = at + rows;
    module->sframe_size = word[2];
    module->sframe = at;
    module->flags &= ~(u32)MODULE_BAD_SFRAME;
    return 0;
}

// The actual address of the function `number` of the index into w->value; 0 or a stop. Starts are relative to their own field, which is 4-aligned.
ALWAYS_INLINE int sframe_start(struct walk *w, u32 number) {
    u64 at = w->module.sframe_index + (u64)number * SFRAME_ENTRY;
    int stop = code_number(w, at, 4);
    if (stop) return stop;
    u64 low = w->value;
    stop = code_number(w, at + 4, 4);
    if (stop) return stop;
    w->value = at + (low | w->value << 32);
    return 0;
}

// The wanted function is in [low, high); [last, before_last] bounds the starts that the next probe may show.
LOOP_BODY long sframe_body(u64 index, void *context) {
    struct walk *w = ((struct loop *)context)->w;
    struct search *search = &w->search;
    (void)index;
    if (search->low >= search->high) return 1;
    u32 middle = search->low + (search->high - search->low) / 2;
    search->stop = work(w, 1) ? sframe_start(w, middle) : STOP_PARSE_BUDGET;
    if (search->stop) return 1;
    u64 start = w->value;
    if (start < search->last || start > search->before_last) {
        search->stop = STOP_BAD_SFRAME;
        return 1;
    }
    if (start <= search->pc) {
        search->low = middle + 1;
        search->last = start;
    } else {
        search->high = middle;
        search->before_last = start;
    }
    return 0;
}

// One row: steps over it, and remembers it (search->last: where its info byte is) while its start is not behind the wanted offset (search->size).
LOOP_BODY long sframe_row_body(u64 index, void *context) {
    struct walk *w = ((struct loop *)context)->w;
    struct search *search = &w->search;
    u32 width = search->high;
    search->stop = STOP_BAD_SFRAME;
    if (search->at + width + 1 > search->end) return 1;
    if (!work(w, 1)) {
        search->stop = STOP_PARSE_BUDGET;
        return 1;
    }
    int stop = code_number(w, search->at, width);
    u64 start = w->value;
    int info = stop ? -1 : code_byte(w, search->at + width);
    if (info < 0) {
        search->stop = stop ? stop : (int)w->read_failed;
        return 1;
    }
    u32 words = (u32)info >> 1 & 15, size = (u32)info >> 5 & 3;
    u64 next = search->at + width + 1 + ((u64)words << size);
    if (size == 3 || next > search->end || (index && start <= search->before_last)) return 1;
    search->stop = 0;
    if (start > search->size) return 1;
    search->before_last = start;
    search->last = search->at + width;
    search->found = 1;
    search->at = next;
    return 0;
}

// Data word `number` of the row whose info byte is at `at`: sign-extended into w->value; 0 or a stop.
ALWAYS_INLINE int sframe_word(struct walk *w, u64 at, u32 number, u32 code) {
    int stop = code_number(w, at + 1 + ((u64)number << code), 1u << code);
    if (stop) return stop;
    if (code == 0) w->value = (u64)(s64)(s8)w->value;
    if (code == 1) w->value = (u64)(s64)(s16)w->value;
    if (code == 2) w->value = (u64)(s64)(s32)w->value;
    return 0;
}

ALWAYS_INLINE struct rule sframe_rule(u32 kind, u32 base, u64 offset) {
    struct rule rule = {(u8)kind, (u8)base, (s16)offset};
    if ((s64)offset != (s64)(s16)offset) rule.kind = RULE_UNSUPPORTED;
    return rule;
}

// A pair of control and offset words (flexible functions) from word `*number` on into `rule`; a lone 0 leaves it. 0 or a stop.
ALWAYS_INLINE int sframe_pair(struct walk *w, u64 at, u32 *number, u32 words, u32 code, struct rule *rule) {
    if (*number >= words) return 0;
    int stop = sframe_word(w, at, (*number)++, code);
    if (stop) return stop;
    // Control words are unsigned.
    u32 control = (u32)w->value & (code == 0 ? 0xffu : code == 1 ? 0xffffu : 0xffffffffu);
    if (!control) return 0;
    if ((control & 4) || *number >= words) return STOP_BAD_SFRAME;
    stop = sframe_word(w, at, (*number)++, code);
    if (stop) return stop;
    u32 in_register = control & 1, deref = control & 2, base = control >> 3;
    if (in_register && base > 15) {
        rule->kind = RULE_UNSUPPORTED;
        return 0;
    }
    u32 kind = in_register ? (deref ? RULE_AT_REG : RULE_REG_VALUE) : (deref ? RULE_AT_CFA : RULE_CFA_VALUE);
    *rule = sframe_rule(kind, in_register ? base : 0, w->value);
    return 0;
}

// A flexible row's words into w->sframe.row; 0 or a stop.
SHARED int sframe_flexible(struct walk *w, u64 at, u32 words, u32 code) {
    if (!w) return STOP_BAD_SFRAME;
    struct row *row = &w->sframe.row;
    if (words < 2) return STOP_BAD_SFRAME;
    u32 number = 0;
    int stop = sframe_word(w, at, 0, code);
    if (stop) return stop;
    u32 control = (u32)w->value & (code == 0 ? 0xffu : code == 1 ? 0xffffu : 0xffffffffu);
    if (!(control & 1) || (control & 4)) return STOP_BAD_SFRAME;
    stop = sframe_word(w, at, 1, code);
    if (stop) return stop;
    number = 2;
    row->cfa_kind = control >> 3 > 15 ? CFA_UNSUPPORTED : control & 2 ? CFA_DEREF : CFA_REG;
    row->cfa_base = (u8)(control >> 3 & 15);
    row->cfa_inner = control & 2 ? (s32)w->value : 0;
    row->cfa_offset = control & 2 ? 0 : (s32)w->value;
    stop = sframe_pair(w, at, &number, words, code, &row->rules[SLOT_RA]);
    if (!stop) stop = sframe_pair(w, at, &number, words, code, &row->rules[SLOT_RBP]);
    if (stop) return stop;
    return number == words ? 0 : STOP_BAD_SFRAME;
}

// The row whose info byte is at `at` into w->sframe.row; 0 or a stop.
ALWAYS_INLINE int sframe_decode(struct walk *w, u64 at, u32 flexible) {
    struct row *row = &w->sframe.row;
    __builtin_memset(row, 0, sizeof(*row));
    row->rules[SLOT_RA] = (struct rule){RULE_AT_CFA, 0, -8};
    int info = code_byte(w, at);
    if (info < 0) return (int)w->read_failed;
    u32 words = (u32)info >> 1 & 15, code = (u32)info >> 5 & 3;
    if (!words) {
        row->cfa_kind = CFA_REG;
        row->cfa_base = REG_RSP;
        row->rules[SLOT_RA].kind = RULE_UNDEFINED;
        return 0;
    }
    if (flexible) return sframe_flexible(w, at, words, code);
    if (words > 2) return STOP_BAD_SFRAME;
    int stop = sframe_word(w, at, 0, code);
    if (stop) return stop;
    row->cfa_kind = CFA_REG;
    row->cfa_base = info & 1 ? REG_RSP : REG_RBP;
    row->cfa_offset = (s32)w->value;
    if (words == 1) return 0;
    stop = sframe_word(w, at, 1, code);
    if (stop) return stop;
    row->rules[SLOT_RBP] = sframe_rule(RULE_AT_CFA, 0, w->value);
    return 0;
}

// The section broke a rule: it is not asked again.
ALWAYS_INLINE void sframe_drop(struct walk *w) {
    w->module.sframe = 0;
    w->module.flags |= MODULE_BAD_SFRAME;
    home_keep_module(w);
}

// The function of the index that holds `pc`: its range into w->sframe, the place of its attribute into w->value; 0 or a stop.
SHARED int sframe_function(struct walk *w, u64 pc) {
    if (!w) return STOP_NO_UNWIND_INFO;
    struct search *search = &w->search;
    struct loop loop = {.w = w};
    search->pc = pc;
    search->low = 0;
    search->high = w->module.sframe_count;
    search->last = w->module.start;
    search->before_last = w->module.end;
    search->stop = 0;
    LOOP(33, sframe_body, &loop);
    if (search->stop) return search->stop;
    u32 number = search->low;
    for (u32 tries = 0; tries < SFRAME_TRIES; tries++) {
        if (!number) break;
        number--;
        u64 at = w->module.sframe_index + (u64)number * SFRAME_ENTRY;
        int stop = sframe_start(w, number);
        if (stop) return stop;
        w->sframe.begin = w->value;
        stop = code_number(w, at + 8, 4);
        if (stop) return stop;
        w->sframe.end = w->sframe.begin + w->value;
        stop = code_number(w, at + 12, 4);
        if (stop) return stop;
        if (pc < w->sframe.end) return 0;
        if (w->sframe.begin != w->sframe.end) break;
    }
    return STOP_NO_UNWIND_INFO;
}

// The row for `pc` of the function that sframe_function found, whose attribute is at `place` of the rows, into w->sframe.row; 0, NO_UNWIND_INFO, BAD_SFRAME
// or a stop that may pass.
SHARED int sframe_row(struct walk *w, u64 pc, u64 place) {
    if (!w) return STOP_NO_UNWIND_INFO;
    struct module *module = &w->module;
    struct search *search = &w->search;
    if (place + SFRAME_ATTRIBUTE > module->sframe_size) return STOP_BAD_SFRAME;
    u64 at = module->sframe_rows + place;
    int stop = code_number(w, at, 4);
    if (stop) return stop;
    u32 count = (u32)w->value & SFRAME_ROWS_MAX, info = (u32)w->value >> 16 & 0xff, info2 = (u32)w->value >> 24;
    int repeat = code_byte(w, at + 4);
    if (repeat < 0) return (int)w->read_failed;
    if ((info & 15) > 2 || (info2 & 31) > 1 || ((info & 16) && !repeat)) return STOP_BAD_SFRAME;
    w->sframe.signal = info >> 7;
    search->size = pc - w->sframe.begin;
    if (info & 16) search->size = (u32)search->size % ((u32)repeat & 0xff);
    search->at = at + SFRAME_ATTRIBUTE;
    search->end = module->sframe_rows + module->sframe_size;
    search->high = 1u << (info & 3);
    search->found = 0;
    search->stop = 0;
    struct loop loop = {.w = w};
    LOOP(count, sframe_row_body, &loop);
    if (search->stop) return search->stop;
    // A signal frame without rows: its registers are in the kernel's frame, which the CFI describes.
    if (!search->found) return STOP_NO_UNWIND_INFO;
    return sframe_decode(w, search->last, info2 & 1);
}

// What the module's section says of `pc`, into w->sframe; 0, NO_UNWIND_INFO (ask the CFI), BAD_SFRAME (the section is not to be asked again), or a stop that
// may pass. Inline: two functions in turn, and not one in the other, keep the nesting within the verifier's limit.
ALWAYS_INLINE int sframe_find(struct walk *w, u64 pc) {
    int stop = sframe_function(w, pc);
    return stop ? stop : sframe_row(w, pc, w->value);
}

#endif
