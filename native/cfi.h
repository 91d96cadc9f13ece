// One FDE and its CIE: where they apply, and where their programs are (LSB core specification, "Exception Frames"; DWARF 5, 6.4.1).
#ifndef UNSPOOL_CFI_H
#define UNSPOOL_CFI_H

#include "module.h"

// Letters of an augmentation string that are read; GCC and LLVM write at most "zPLRSB".
#define AUGMENTATION_MAX 8

// The length field at `at`: leaves the first byte after it in w->cursor and the end in w->cursor_end; w->value is the length. 0 or a stop.
// 64-bit DWARF does not occur in .eh_frame (libgcc cannot read it) and is refused.
ALWAYS_INLINE int entry_open(struct walk *w, u64 at) {
    int stop = code_number(w, at, 4);
    if (stop) return stop;
    if (w->value >= 0xfffffff0) return STOP_BAD_CFI;
    w->cursor = at + 4;
    w->cursor_end = at + 4 + w->value;
    return 0;
}

// The augmentation data: one item a letter. Letters that are not known end it: its length is known.
ALWAYS_INLINE int cie_augmentation(struct walk *w, u64 letters) {
    struct cfi *cfi = &w->cfi;
    for (u32 i = 0; i < AUGMENTATION_MAX; i++) {
        int letter = code_byte(w, letters + i);
        if (letter < 0) return w->read_failed;
        int stop = 0;
        if (letter == 'R' || letter == 'L' || letter == 'P') {
            int encoding = take_byte(w);
            if (encoding < 0) return w->read_failed;
            if (letter == 'R') cfi->encoding = (u8)encoding;
            // The personality's address is skipped; reading it where it is indirect would be a read for nothing.
            if (letter == 'P') stop = take_pointer(w, (u32)encoding & ~(u32)PE_INDIRECT, 0);
        } else if (letter == 'S') {
            cfi->signal = 1;
        } else if (letter != 'B' && letter != 'G') {
            return 0;
        }
        if (stop) return stop;
    }
    return 0;
}

// The CIE at `at` into w->cfi; 0 or a stop.
ALWAYS_INLINE int cie_parse(struct walk *w, u64 at) {
    struct cfi *cfi = &w->cfi;
    cfi->cie = 0;
    cfi->encoding = 0;
    cfi->augmented = 0;
    cfi->signal = 0;
    int stop = entry_open(w, at);
    if (stop) return stop;
    u64 end = w->cursor_end;
    stop = take_number(w, 4);
    if (stop) return stop;
    if (w->value != 0) return STOP_BAD_CFI;
    int version = take_byte(w);
    if (version < 0) return w->read_failed;
    if (version != 1 && version != 3) return STOP_BAD_CFI;
    u64 letters = w->cursor;
    int first = code_byte(w, letters);
    if (first < 0) return w->read_failed;
    if (first != 0 && first != 'z') return STOP_BAD_CFI;
    u32 length = 0;
    for (; length < AUGMENTATION_MAX; length++) {
        int letter = code_byte(w, letters + length);
        if (letter < 0) return w->read_failed;
        if (letter == 0) break;
    }
    if (length == AUGMENTATION_MAX) return STOP_BAD_CFI;
    w->cursor = letters + length + 1;
    stop = take_uleb(w);
    if (stop) return stop;
    cfi->code_align = w->value;
    stop = take_sleb(w);
    if (stop) return stop;
    cfi->data_align = (s64)w->value;
    if (version == 1) {
        int ra = take_byte(w);
        if (ra < 0) return w->read_failed;
        w->value = (u64)(u32)ra & 0xff;
    } else {
        stop = take_uleb(w);
        if (stop) return stop;
    }
    if (w->value != REG_RA) return STOP_UNSUPPORTED_RULE;
    if (first == 'z') {
        cfi->augmented = 1;
        stop = take_uleb(w);
        if (stop) return stop;
        if (w->cursor > end || w->value > end - w->cursor) return STOP_BAD_CFI;
        u64 program = w->cursor + w->value;
        w->cursor_end = program;
        stop = cie_augmentation(w, letters + 1);
        if (stop) return stop;
        w->cursor = program;
    }
    cfi->cie_program = w->cursor;
    cfi->cie_program_end = end;
    cfi->cie = at;
    return 0;
}

// The FDE at `at` and its CIE into w->cfi; 0 or a stop. The CIE of the FDE before is not parsed again.
SHARED int fde_parse(struct walk *w, u64 at) {
    if (!w) return STOP_BAD_CFI;
    struct cfi *cfi = &w->cfi;
    int stop = entry_open(w, at);
    if (stop) return stop;
    u64 end = w->cursor_end;
    stop = take_number(w, 4);
    if (stop) return stop;
    u64 back = w->value;
    if (back == 0 || back > at + 4) return STOP_BAD_CFI;
    if (cfi->cie != at + 4 - back) {
        stop = cie_parse(w, at + 4 - back);
        if (stop) return stop;
    }
    w->cursor = at + 8;
    w->cursor_end = end;
    stop = take_pointer(w, cfi->encoding, 0);
    if (stop) return stop;
    cfi->pc_begin = w->value;
    stop = take_pointer(w, cfi->encoding & 0x0f, 0);
    if (stop) return stop;
    cfi->pc_end = cfi->pc_begin + w->value;
    if (cfi->pc_end < cfi->pc_begin) return STOP_BAD_CFI;
    if (cfi->augmented) {
        stop = take_uleb(w);
        if (stop) return stop;
        if (w->cursor > end || w->value > end - w->cursor) return STOP_BAD_CFI;
        w->cursor += w->value;
    }
    cfi->fde_program = w->cursor;
    cfi->fde_program_end = end;
    return 0;
}

#endif
