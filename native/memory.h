// Reading the walked thread's memory: mem_read is the one function that differs between the two homes. On it stand the two windows: the stack is read
// 1 KB at a time, unwind data 256 bytes at a time (a helper call costs the same for 8 bytes as for 1 KB).
#ifndef UNSPOOL_MEMORY_H
#define UNSPOOL_MEMORY_H

#include "walk_state.h"

#ifdef __bpf__

// 0 when `size` bytes at `address` were copied; PAGE_ABSENT when a page is not there: bpf_probe_read_user never faults.
// The home brings [w->fault, w->fault + w->fault_size) in, where it may, and resumes; for a page that it could not have it says so in w->unreadable.
ALWAYS_INLINE int mem_read(struct walk *w, u64 address, void *to, u32 size) {
    if (bpf_probe_read_user(to, size, (const void *)address) == 0) return 0;
    w->fault = address;
    w->fault_size = size;
    u64 last = (address + size - 1) >> 12;
    if (w->unreadable && (w->unreadable - 1 == address >> 12 || w->unreadable - 1 == last)) return STOP_MEM_FAULT;
    return STOP_PAGE_ABSENT;
}

#else

// 0 when all `size` bytes were copied; else a stop (MEM_FAULT, or what the context's memory says).
static int home_read(struct walk *w, u64 address, void *to, u32 size);

ALWAYS_INLINE int mem_read(struct walk *w, u64 address, void *to, u32 size) {
    int stop = home_read(w, address, to, size);
    if (stop == 0) return 0;
    w->fault = address;
    w->fault_size = size;
    return stop;
}

#endif

// Stops that say nothing of the unwind data: the same question may be answered another time.
ALWAYS_INLINE u32 is_passing(u32 stop) {
    return stop == STOP_PAGE_ABSENT || stop == STOP_PARSE_BUDGET;
}

// Takes `units` off the walk's budget; 0 when it is used up.
ALWAYS_INLINE int work(struct walk *w, u32 units) {
    if (w->work < units) {
        w->work = 0;
        return 0;
    }
    w->work -= units;
    return 1;
}

// ---- the stack

// Makes the stack window hold `address` and leaves the word there in w->value; 0 or a stop. A window that is not there as a whole (the edge of a
// stack copy) and a word that is not aligned are read by themselves.
SHARED int stack_fill(struct walk *w, u64 address) {
    if (!w) return STOP_MEM_FAULT;
    if (!work(w, 2)) return STOP_PARSE_BUDGET;
    u64 base = address & ~(u64)(STACK_WINDOW - 1);
    if (!(address & 7) && mem_read(w, base, w->window, STACK_WINDOW) == 0) {
        w->window_at = base;
        w->value = *(word64 *)(w->window + (address & (STACK_WINDOW - 8)));
        return 0;
    }
    if (!(address & 7)) w->window_at = NO_WINDOW;
    return mem_read(w, address, &w->value, 8);
}

// The word of the stack at `address`; 0 or a stop.
ALWAYS_INLINE int stack_word(struct walk *w, u64 address, u64 *value) {
    if ((address & ~(u64)(STACK_WINDOW - 8)) == w->window_at) {
        *value = *(word64 *)(w->window + (address & (STACK_WINDOW - 8)));
        return 0;
    }
    int stop = stack_fill(w, address);
    *value = w->value;
    return stop;
}

// ---- code and unwind data

// The byte at `at`, or -1 with the stop in w->read_failed.
SHARED int code_byte(struct walk *w, u64 at) {
    if (!w) return -1;
    if ((at & ~(u64)(CODE_WINDOW - 1)) == w->code_at) return w->code[at & (CODE_WINDOW - 1)];
    if (!work(w, 2)) {
        w->read_failed = STOP_PARSE_BUDGET;
        return -1;
    }
    u64 base = at & ~(u64)(CODE_WINDOW - 1);
    w->code_at = NO_WINDOW;
    if (mem_read(w, base, w->code, CODE_WINDOW) == 0) {
        w->code_at = base;
    } else {
        w->read_failed = mem_read(w, at, &w->code[at & (CODE_WINDOW - 1)], 1);
        if (w->read_failed) return -1;
    }
    return w->code[at & (CODE_WINDOW - 1)];
}

// The little-endian number of `size` bytes (1..8) at `at` into w->value; 0 or a stop.
SHARED int code_number(struct walk *w, u64 at, u32 size) {
    if (!w) return STOP_MEM_FAULT;
    int byte = code_byte(w, at);
    if (byte < 0) return w->read_failed;
    u64 window = at & ~(u64)(CODE_WINDOW - 1);
    if (size == 4 && !(at & 3) && window == w->code_at) {
        w->value = *(word32 *)(w->code + (at & (CODE_WINDOW - 4)));
        return 0;
    }
    if (size == 8 && !(at & 7) && window == w->code_at) {
        w->value = *(word64 *)(w->code + (at & (CODE_WINDOW - 8)));
        return 0;
    }
    u64 value = (u32)byte & 0xff;
    for (u32 i = 1; i < 8; i++) {
        if (i >= size) break;
        byte = code_byte(w, at + i);
        if (byte < 0) return w->read_failed;
        value |= ((u64)(u32)byte & 0xff) << (8 * i);
    }
    w->value = value;
    return 0;
}

// ---- the cursor: decoders that move w->cursor and leave what they read in w->value; 0 or a stop

ALWAYS_INLINE int take_byte(struct walk *w) {
    if (w->cursor >= w->cursor_end) {
        w->read_failed = STOP_BAD_CFI;
        return -1;
    }
    int byte = code_byte(w, w->cursor);
    w->cursor++;
    return byte;
}

ALWAYS_INLINE int take_number(struct walk *w, u32 size) {
    if (w->cursor_end - w->cursor < size || w->cursor > w->cursor_end) return STOP_BAD_CFI;
    int stop = code_number(w, w->cursor, size);
    w->cursor += size;
    return stop;
}

// A LEB128 number of at most 10 bytes (64 bits); `is_signed`: SLEB128.
ALWAYS_INLINE int take_leb_here(struct walk *w, u32 is_signed) {
    u64 value = 0;
    for (u32 shift = 0; shift < 70; shift += 7) {
        int byte = take_byte(w);
        if (byte < 0) return (int)w->read_failed;
        value |= ((u64)(u32)byte & 0x7f) << (shift & 63);
        if (byte & 0x80) continue;
        if (is_signed && (byte & 0x40) && shift < 57) value |= ~0ULL << ((shift + 7) & 63);
        w->value = value;
        return 0;
    }
    return STOP_BAD_CFI;
}

SHARED int take_leb(struct walk *w, u32 is_signed) {
    if (!w) return STOP_BAD_CFI;
    return take_leb_here(w, is_signed);
}

#define take_uleb(w) take_leb((w), 0)
#define take_sleb(w) take_leb((w), 1)

#endif
