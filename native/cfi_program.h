// The call frame instructions of one CIE and FDE, run up to a pc: they leave the row in w->cfi.row (DWARF 5, 6.4.2; GNU_args_size: LSB).
// DWARF expressions are recognised by their form, not evaluated: compilers write six.
#ifndef UNSPOOL_CFI_PROGRAM_H
#define UNSPOOL_CFI_PROGRAM_H

#include "cfi.h"

// Instructions of one program at most.
#define CFI_OPS_MAX 65536

// Opcodes of DW_OP_* that occur in unwind data.
#define OP_DEREF 0x06
#define OP_PLUS 0x22
#define OP_PLUS_UCONST 0x23
#define OP_LIT0 0x30
#define OP_BREG0 0x70

// The slot of a register, SLOT_COUNT for one that is not tracked.
ALWAYS_INLINE u32 slot_of(u64 reg) {
    if (reg >= 12 && reg <= 15) return SLOT_R12 + (u32)(reg - 12);
    if (reg == REG_RBX) return SLOT_RBX;
    if (reg == REG_RBP) return SLOT_RBP;
    if (reg == REG_RA) return SLOT_RA;
    if (reg == REG_RSP) return SLOT_RSP;
    return SLOT_COUNT;
}

// Gives `reg` a rule in the row under construction. An offset that does not fit makes the rule one that cannot be followed.
ALWAYS_INLINE void set_rule(struct walk *w, u64 reg, u32 kind, u64 base, s64 offset) {
    struct row *row = &w->cfi.row;
    if (reg <= REG_RDX) {
        u16 bit = (u16)(1 << reg);
        row->ehdata = kind == RULE_AT_CFA ? row->ehdata | bit : row->ehdata & (u16)~bit;
        return;
    }
    u32 slot = slot_of(reg);
    if (slot >= SLOT_COUNT) return;
    if (offset != (s16)offset) kind = RULE_UNSUPPORTED;
    struct rule *rule = &row->rules[masked(slot, 7)];
    rule->kind = (u8)kind;
    rule->base = (u8)(base > 15 ? REG_OTHER : base);
    rule->offset = (s16)offset;
}

ALWAYS_INLINE void set_cfa(struct walk *w, u32 kind, u64 base, s64 offset, s64 inner) {
    struct row *row = &w->cfi.row;
    if (offset != (s32)offset || inner != (s32)inner) kind = CFA_UNSUPPORTED;
    row->cfa_kind = (u8)kind;
    row->cfa_base = (u8)(base > 15 ? REG_OTHER : base);
    row->cfa_offset = (s32)offset;
    row->cfa_inner = (s32)inner;
}

// DW_CFA_restore: the rule that the CIE gave.
ALWAYS_INLINE void restore_rule(struct walk *w, u64 reg) {
    struct cfi *cfi = &w->cfi;
    if (reg <= REG_RDX) {
        u16 bit = (u16)(1 << reg);
        cfi->row.ehdata = (u16)((cfi->row.ehdata & ~bit) | (cfi->initial.ehdata & bit));
        return;
    }
    u32 slot = slot_of(reg);
    if (slot < SLOT_COUNT) cfi->row.rules[masked(slot, 7)] = cfi->initial.rules[masked(slot, 7)];
}

// ---- expressions

// The PLT's: breg7 8; breg16 0; lit15; and; lit10 or lit11; ge; lit3; shl; plus. One row stands for all 16 bytes of an entry: cfa = rsp + 8, and 8 more
// from the push on. 0 when it is not this one, else the threshold.
ALWAYS_INLINE u32 plt_threshold(const u8 *bytes, u64 size) {
    if (size != 11 || bytes[0] != 0x77 || bytes[1] != 8 || bytes[2] != 0x80 || bytes[3] != 0 || bytes[4] != 0x3f || bytes[5] != 0x1a) return 0;
    if (bytes[7] != 0x2a || bytes[8] != 0x33 || bytes[9] != 0x24 || bytes[10] != 0x22) return 0;
    return bytes[6] >= OP_LIT0 && bytes[6] <= OP_LIT0 + 15 ? bytes[6] - OP_LIT0 : 0;
}

// Where `at` is put when the expression has none of the forms: more than any size.
#define FORM_NONE 64

// The LEB128 number at form.at, which moves past it; its bits into `*bits`. Numbers of more than 4 bytes do not occur in these forms. One path for all
// lengths, because the verifier follows each.
ALWAYS_INLINE s64 form_number(struct cfi *cfi, u32 *bits) {
    u32 at = cfi->form.at;
    if (at >= EXPRESSION_MAX) {
        cfi->form.at = FORM_NONE;
        return 0;
    }
    const u8 *byte = &cfi->expression[at];
    u32 more1 = byte[0] >> 7;
    u32 more2 = more1 & byte[1] >> 7;
    u32 more3 = more2 & byte[2] >> 7;
    u32 size = 1 + more1 + more2 + more3;
    *bits = 7 * size;
    cfi->form.at = at + size + (more3 & byte[3] >> 7) * FORM_NONE;
    return (s64)((byte[0] & 0x7f) | more1 * (byte[1] & 0x7f) << 7 | more2 * (byte[2] & 0x7f) << 14 | more3 * (byte[3] & 0x7f) << 21);
}

// One operation at form.at: deref, plus_uconst n, litN plus.
ALWAYS_INLINE void form_operation(struct cfi *cfi, u32 at, u64 size) {
    struct form *form = &cfi->form;
    u32 op = cfi->expression[at];
    u32 bits = 0;
    s64 number = 0;
    form->at = at + 1;
    if (op == OP_DEREF) {
        form->derefs++;
    } else if (op == OP_PLUS_UCONST) {
        number = form_number(cfi, &bits);
    } else if (op - OP_LIT0 < 32 && at + 1 < size && cfi->expression[at + 1] == OP_PLUS) {
        number = op - OP_LIT0;
        form->at = at + 2;
    } else {
        form->at = FORM_NONE;
    }
    if (form->derefs)
        form->offset += number;
    else
        form->inner += number;
}

// What the expression in w->cfi.expression says, into w->cfi.form: breg N, then any of: deref (once), plus_uconst n, litN plus.
SHARED int form_of(struct walk *w, u64 size) {
    if (!w) return 0;
    struct cfi *cfi = &w->cfi;
    struct form *form = &cfi->form;
    u32 base = (u32)cfi->expression[0] - OP_BREG0;
    u32 bits = 0;
    __builtin_memset(form, 0, sizeof(*form));
    if (size == 0 || size > EXPRESSION_MAX || base > 15) return 0;
    form->base = base;
    form->at = 1;
    s64 number = form_number(cfi, &bits);
    form->inner = bits && number >> (bits - 1) & 1 ? number - (1LL << bits) : number;
    for (u32 ops = 0; ops < 4; ops++) {
        // All is in memory between two operations: what is in registers the verifier would follow on every path.
        asm volatile("" ::: "memory");
        u32 at = form->at;
        if (at >= size || at >= EXPRESSION_MAX) break;
        form_operation(cfi, at, size);
    }
    form->known = form->at == size && form->derefs <= 1;
    return 0;
}

// The bytes of the expression at the cursor into w->cfi.expression (those that fit); its size into w->value; 0 or a stop. The cursor moves past it.
SHARED int take_expression(struct walk *w) {
    if (!w) return STOP_BAD_CFI;
    int stop = take_leb_here(w, 0);
    if (stop) return stop;
    u64 size = w->value;
    if (w->cursor > w->cursor_end || size > w->cursor_end - w->cursor) return STOP_BAD_CFI;
    for (u32 i = 0; i < EXPRESSION_MAX; i++) {
        if (i >= size) break;
        int byte = code_byte(w, w->cursor + i);
        if (byte < 0) return w->read_failed;
        w->cfi.expression[i] = (u8)byte;
    }
    w->cursor += size;
    w->value = size;
    return 0;
}

// The CFA from the expression in w->cfi.expression.
SHARED int cfa_of_expression(struct walk *w, u64 size) {
    if (!w) return STOP_BAD_CFI;
    const u8 *bytes = w->cfi.expression;
    u32 threshold = plt_threshold(bytes, size);
    if (threshold) {
        set_cfa(w, CFA_FORM, REG_RSP, (w->ip & 15) >= threshold ? 16 : 8, 0);
        return 0;
    }
    form_of(w, size);
    const struct form *form = &w->cfi.form;
    if (!form->known)
        set_cfa(w, CFA_UNSUPPORTED, 0, 0, 0);
    else if (form->derefs)
        set_cfa(w, CFA_DEREF, form->base, form->offset, form->inner);
    else
        set_cfa(w, CFA_FORM, form->base, form->inner, 0);
    return 0;
}

// A register's rule from the expression in w->cfi.expression: it gives the address of the saved value, or (`is_value`) the value itself.
SHARED int rule_of_expression(struct walk *w, u64 size, u64 reg, u32 is_value) {
    if (!w) return STOP_BAD_CFI;
    form_of(w, size);
    const struct form *form = &w->cfi.form;
    u32 kind = RULE_UNSUPPORTED;
    if (form->known && is_value && form->derefs == 0) kind = RULE_REG_VALUE;
    if (form->known && is_value && form->derefs == 1 && form->offset == 0) kind = RULE_AT_REG;
    if (form->known && !is_value && form->derefs == 0) kind = RULE_AT_REG;
    set_rule(w, reg, kind, form->base, form->inner);
    return 0;
}

// ---- instructions

// A factored offset; unsigned, because hostile factors overflow.
ALWAYS_INLINE s64 factored(const struct walk *w, u64 number) {
    return (s64)(number * (u64)w->cfi.data_align);
}

// R9b: remembers where the first row starts that only a __builtin_eh_return makes: the CFA in another register, or the return address elsewhere.
ALWAYS_INLINE void note_commit_row(struct walk *w) {
    struct cfi *cfi = &w->cfi;
    const struct row *row = &cfi->row;
    const struct rule *ra = &row->rules[SLOT_RA];
    if (cfi->commit_row) return;
    u32 usual_cfa = row->cfa_kind == CFA_REG && (row->cfa_base == REG_RSP || row->cfa_base == REG_RBP);
    if (usual_cfa && ra->kind == RULE_AT_CFA && ra->offset == -8) return;
    cfi->commit_row = cfi->location;
}

// Moves the row's location; 1 when the row for the target is complete.
ALWAYS_INLINE u32 advance(struct walk *w, u64 delta) {
    struct cfi *cfi = &w->cfi;
    u64 next = cfi->location + delta * cfi->code_align;
    if (cfi->whole) {
        if (next != cfi->location) note_commit_row(w);
    } else if (next > cfi->target) {
        cfi->next = next;
        return 1;
    }
    cfi->location = next;
    return 0;
}

// The register operand of an instruction (ULEB128); ~0 with `*stop` set when it cannot be read.
ALWAYS_INLINE u64 operand(struct walk *w, u32 is_signed, u32 *stop) {
    int failed = take_leb(w, is_signed);
    if (failed) {
        *stop = (u32)failed;
        return 0;
    }
    return w->value;
}

// Instructions 0x00 to 0x04: nop, set_loc, advance_loc1, 2 and 4.
ALWAYS_INLINE u32 run_location(struct walk *w, u32 op, u32 *done) {
    struct cfi *cfi = &w->cfi;
    if (op == 0x00) return 0;
    int failed = op == 0x01 ? take_pointer(w, cfi->encoding, 0) : take_number(w, 1u << ((op - 2) & 3));
    if (failed) return (u32)failed;
    if (op != 0x01) {
        *done = advance(w, w->value);
        return 0;
    }
    if (w->value < cfi->location) return STOP_BAD_CFI;
    if (!cfi->whole && w->value > cfi->target) *done = 1;
    if (cfi->whole) note_commit_row(w);
    cfi->location = w->value;
    return 0;
}

// Instructions that set the CFA or a whole row.
ALWAYS_INLINE u32 run_row(struct walk *w, u32 op) {
    struct cfi *cfi = &w->cfi;
    u32 stop = 0;
    int failed;
    u64 reg;
    u64 number;
    switch (op) {
    case 0x0a:  // remember_state
        if (cfi->remembered >= REMEMBER_MAX) return STOP_PARSE_BUDGET;
        cfi->states[masked(cfi->remembered, REMEMBER_MAX - 1)] = cfi->row;
        cfi->remembered++;
        return 0;
    case 0x0b:  // restore_state
        if (cfi->remembered == 0) return STOP_BAD_CFI;
        cfi->remembered--;
        cfi->row = cfi->states[masked(cfi->remembered, REMEMBER_MAX - 1)];
        return 0;
    case 0x0c:  // def_cfa
    case 0x12:  // def_cfa_sf
        reg = operand(w, 0, &stop);
        number = operand(w, op == 0x12, &stop);
        if (stop) return stop;
        set_cfa(w, CFA_REG, reg, op == 0x12 ? factored(w, number) : (s64)number, 0);
        return 0;
    case 0x0d:  // def_cfa_register
        reg = operand(w, 0, &stop);
        if (stop) return stop;
        if (cfi->row.cfa_kind != CFA_REG) return STOP_BAD_CFI;
        set_cfa(w, CFA_REG, reg, cfi->row.cfa_offset, 0);
        return 0;
    case 0x0e:  // def_cfa_offset
    case 0x13:  // def_cfa_offset_sf
        number = operand(w, op == 0x13, &stop);
        if (stop) return stop;
        if (cfi->row.cfa_kind != CFA_REG) return STOP_BAD_CFI;
        set_cfa(w, CFA_REG, cfi->row.cfa_base, op == 0x13 ? factored(w, number) : (s64)number, 0);
        return 0;
    case 0x0f:  // def_cfa_expression
        failed = take_expression(w);
        if (failed) return (u32)failed;
        return (u32)cfa_of_expression(w, w->value);
    case 0x2e:  // GNU_args_size: what the caller pushed as arguments; the unwinder does not need it
        operand(w, 0, &stop);
        return stop;
    default:
        return STOP_BAD_CFI;
    }
}

// Instructions that give one register a rule: register, then what the rule needs.
ALWAYS_INLINE u32 run_rule(struct walk *w, u32 op, u64 reg) {
    u32 stop = 0;
    u64 number = 0;
    int failed;
    switch (op) {
    case 0x05:  // offset_extended
    case 0x11:  // offset_extended_sf
    case 0x2f:  // GNU_negative_offset_extended
    case 0x14:  // val_offset
    case 0x15:  // val_offset_sf
        number = operand(w, op == 0x11 || op == 0x15, &stop);
        if (stop) return stop;
        if (op == 0x2f) number = 0 - number;
        set_rule(w, reg, op == 0x14 || op == 0x15 ? RULE_CFA_VALUE : RULE_AT_CFA, 0, factored(w, number));
        return 0;
    case 0x06:  // restore_extended
        restore_rule(w, reg);
        return 0;
    case 0x07:  // undefined
        set_rule(w, reg, RULE_UNDEFINED, 0, 0);
        return 0;
    case 0x08:  // same_value
        set_rule(w, reg, RULE_SAME, 0, 0);
        return 0;
    case 0x09:  // register
        number = operand(w, 0, &stop);
        if (stop) return stop;
        set_rule(w, reg, RULE_REG_VALUE, number, 0);
        return 0;
    case 0x10:  // expression
    case 0x16:  // val_expression
        failed = take_expression(w);
        if (failed) return (u32)failed;
        return (u32)rule_of_expression(w, w->value, reg, op == 0x16);
    default:
        return STOP_BAD_CFI;
    }
}

ALWAYS_INLINE u32 takes_register(u32 op) {
    return (op >= 0x05 && op <= 0x09) || op == 0x10 || op == 0x11 || (op >= 0x14 && op <= 0x16) || op == 0x2f;
}

LOOP_BODY long program_body(u64 index, void *context) {
    struct walk *w = ((struct loop *)context)->w;
    struct cfi *cfi = &w->cfi;
    (void)index;
    if (w->cursor >= w->cursor_end) return 1;
    if (!work(w, 1)) {
        cfi->stop = STOP_PARSE_BUDGET;
        return 1;
    }
    int byte = take_byte(w);
    if (byte < 0) {
        cfi->stop = w->read_failed;
        return 1;
    }
    u32 op = (u32)byte & 0xff;
    u32 stop = 0;
    u32 done = 0;
    if (cfi->in_cie && ((op >> 6) == 1 || (op >= 0x01 && op <= 0x04))) {
        stop = STOP_BAD_CFI;  // a CIE has no location that it could advance
    } else if ((op >> 6) == 1) {  // advance_loc
        done = advance(w, op & 0x3f);
    } else if ((op >> 6) == 3) {  // restore
        restore_rule(w, op & 0x3f);
    } else if ((op >> 6) == 2) {  // offset
        u64 number = operand(w, 0, &stop);
        if (!stop) set_rule(w, op & 0x3f, RULE_AT_CFA, 0, factored(w, number));
    } else if (takes_register(op)) {
        u64 reg = operand(w, 0, &stop);
        if (!stop) stop = run_rule(w, op, reg);
    } else if (op <= 0x04) {
        stop = run_location(w, op, &done);
    } else {
        stop = run_row(w, op);
    }
    cfi->stop = stop;
    cfi->done = done;
    return stop || done;
}

// Runs the program in [begin, end) on w->cfi.row; 0 or a stop.
ALWAYS_INLINE int program_run(struct walk *w, u64 begin, u64 end) {
    struct loop loop = {.w = w};
    w->cursor = begin;
    w->cursor_end = end;
    w->cfi.stop = 0;
    w->cfi.done = 0;
    LOOP(CFI_OPS_MAX, program_body, &loop);
    if (w->cfi.stop) return (int)w->cfi.stop;
    return w->cursor < w->cursor_end && !w->cfi.done ? STOP_PARSE_BUDGET : 0;
}

// The row for `pc` by the CIE and FDE in w->cfi, into w->cfi.row; 0 or a stop. `whole`: to the end of the programs, for w->cfi.commit_row.
// The last row ends with the FDE: rows beyond it are not reached, because pc lies in the FDE.
SHARED int cfi_row(struct walk *w, u64 pc, u32 whole) {
    if (!w) return STOP_BAD_CFI;
    struct cfi *cfi = &w->cfi;
    __builtin_memset(&cfi->row, 0, sizeof(cfi->row));
    cfi->whole = 0;
    cfi->commit_row = 0;
    cfi->remembered = 0;
    cfi->location = cfi->pc_begin;
    cfi->target = pc;
    cfi->in_cie = 1;
    int stop = program_run(w, cfi->cie_program, cfi->cie_program_end);
    if (stop) return stop;
    cfi->in_cie = 0;
    cfi->initial = cfi->row;
    cfi->whole = (u8)whole;
    cfi->remembered = 0;
    stop = program_run(w, cfi->fde_program, cfi->fde_program_end);
    if (stop) return stop;
    if (whole) note_commit_row(w);
    return 0;
}

#endif
