// Every row of an .eh_frame section at once, for tools that convert whole files (src/unspool/native/frame_rows.py has the Python twin). Not installed.
#ifndef UNSPOOL_FRAME_ROWS_H
#define UNSPOOL_FRAME_ROWS_H

#include "types.h"

// One row. `plain`: the fields from cfa_offset on say all of it; else the function needs a reader that knows every expression.
struct frame_row {
    u64 entry;     // address of its FDE
    u64 function;  // start of the FDE's range
    u64 function_end;
    u64 start;
    s32 cfa_offset;  // cfa = base + cfa_offset, or *(base + cfa_offset) with cfa_deref
    s16 fp_offset;
    s16 ra_offset;
    u8 cfa_base;
    u8 cfa_deref;
    u8 fp_kind;  // enum rule_kind
    u8 fp_base;
    u8 ra_kind;
    u8 ra_base;
    u8 plain;
    u8 spare;
};

_Static_assert(sizeof(struct frame_row) == 48, "struct frame_row has a Python twin");

// The rows of the section's `size` bytes, whose first is at `address`, in the section's order. Their number, of which `capacity` were written; or -1: the
// section is broken.
__attribute__((visibility("default"))) s64 unspool_frame_rows(const void *section, u64 size, u64 address, struct frame_row *rows, u64 capacity);

#endif
