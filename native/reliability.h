// What makes a stack suspect, decided once a row: R4 (a return address follows a call), R9a (the return address is where the ABI has it),
// R9b (an exception is not being committed), and coroutine bases. docs/verdicts.md has the rules; src/unspool/unwind has them in Python.
#ifndef UNSPOOL_RELIABILITY_H
#define UNSPOOL_RELIABILITY_H

#include "cfi_program.h"

// ---- R4

// Bytes of the longest call without prefixes: ff /2 with ModRM, SIB and a 32-bit displacement.
#define CALL_MAX 7

// The length of the ff /2 instruction with this ModRM and SIB byte, 0 for another one (Intel SDM volume 2, tables 2-2 and 2-3).
ALWAYS_INLINE u32 indirect_call_size(u32 modrm, u32 sib) {
    u32 mode = modrm >> 6;
    u32 operand = modrm & 7;
    if ((modrm >> 3 & 7) != 2) return 0;
    if (mode == 3) return 2;
    u32 size = operand == 4 ? 3 : 2;
    if (mode == 1) return size + 1;
    if (mode == 2) return size + 4;
    if (operand == 5) return 6;
    if (operand == 4 && (sib & 7) == 5) return 7;
    return size;
}

// Whether the 8 bytes before a return address, the last one in the top byte, end in a near call: e8 rel32 or ff /2.
ALWAYS_INLINE u32 ends_in_call(u64 bytes) {
    if ((bytes >> 24 & 0xff) == 0xe8) return 1;
    for (u32 size = 2; size <= CALL_MAX; size++) {
        u64 code = bytes >> (64 - 8 * size);
        u32 sib = size > 2 ? (u32)(code >> 16) & 0xff : 0;
        if ((code & 0xff) == 0xff && indirect_call_size((u32)(code >> 8) & 0xff, sib) == size) return 1;
    }
    return 0;
}

// R4: whether a call instruction ends at `ra`: 1 or 0, or a negative stop that may pass. Bytes that cannot be read are no call.
SHARED int follows_call(struct walk *w, u64 ra) {
    if (!w) return 0;
    u64 bytes = 0;
    for (u32 i = 0; i < CALL_MAX; i++) {
        // The page before may not be there: it is read only when this one does not decide.
        u64 at = ra - 1 - i;
        if (i && (at & 4095) == 4095 && ends_in_call(bytes)) return 1;
        int byte = code_byte(w, at);
        if (byte < 0) {
            if (is_passing(w->read_failed)) return -(int)w->read_failed;
            break;
        }
        bytes |= ((u64)(u32)byte & 0xff) << (56 - 8 * i);
    }
    return (int)ends_in_call(bytes);
}

// ---- where threads begin

// A thread's first instructions reach this far behind the system call that made it.
#define BIRTH_CODE 64

// Whether a `syscall` instruction (0f 05) lies in the BIRTH_CODE bytes before `pc`: 1 or 0, or a negative stop that may pass.
SHARED int follows_syscall(struct walk *w, u64 pc) {
    if (!w) return 0;
    int after = 0;
    for (u32 i = 1; i <= BIRTH_CODE; i++) {
        int byte = code_byte(w, pc - i);
        if (byte < 0) return is_passing(w->read_failed) ? -(int)w->read_failed : 0;
        if (byte == 0x0f && after == 0x05) return 1;
        after = byte;
    }
    return 0;
}

// ---- coroutine bases

// glibc's __start_context begins with mov %rbx,%rsp; mov (%rsp),%rdi and is 26 bytes long.
#define START_CONTEXT 0x243c8b48dc8948ULL
#define START_CONTEXT_MAX 64

// Whether the FDE in w->cfi is __start_context's: 1 or 0, or a negative stop that may pass.
SHARED int is_start_context(struct walk *w) {
    if (!w) return 0;
    if (w->cfi.pc_end - w->cfi.pc_begin > START_CONTEXT_MAX) return 0;
    int stop = code_number(w, w->cfi.pc_begin, 7);
    if (stop) return is_passing((u32)stop) ? -stop : 0;
    return w->value == START_CONTEXT;
}

// Whether the code at `ip` is where a Boost.Context coroutine ends: [endbr64;] xor %rdi,%rdi; call; hlt. 1 or 0, or a negative stop that may pass.
SHARED int is_context_exit(struct walk *w, u64 ip) {
    if (!w) return 0;
    int stop = code_number(w, ip, 4);
    if (stop) return is_passing((u32)stop) ? -stop : 0;
    u64 at = (u32)w->value == 0xfa1e0ff3 ? ip + 4 : ip;
    stop = code_number(w, at, 4);
    if (stop) return is_passing((u32)stop) ? -stop : 0;
    if ((u32)w->value != 0xe8ff3148) return 0;
    int byte = code_byte(w, at + 8);
    return byte == 0xf4;
}

// ---- R9b

// Bytes of code before the jump to the landing pad in which the two calls of the commit stand, and how near their functions are.
#define COMMIT_WINDOW 256
#define COMMIT_NEAR 65536

// One byte of code: w->search.last is the end of the last call, before_last that of the call before it.
LOOP_BODY long commit_body(u64 index, void *context) {
    struct walk *w = ((struct loop *)context)->w;
    struct search *search = &w->search;
    (void)index;
    u64 at = search->at++;
    if (at + 5 > search->end) return 1;
    int byte = code_byte(w, at);
    u64 size = 0;
    if (byte == 0xe8) {
        search->stop = code_number(w, at + 1, 4);
        if (search->stop) return 1;
        s64 distance = (s64)(s32)w->value;
        if (distance >= -COMMIT_NEAR && distance <= COMMIT_NEAR) size = 5;
    } else if (byte == 0xff) {
        if (at + 6 <= search->end && code_byte(w, at + 1) == 0x15) size = 6;
    }
    if (byte < 0) {
        search->stop = (int)w->read_failed;
        return 1;
    }
    if (size) {
        search->before_last = search->last;
        search->last = at + size;
    }
    return 0;
}

// R9b: whether the frame with the return address `ra` in the FDE in w->cfi may have begun to commit an exception; the start of the row that jumps to the
// landing pad is w->cfi.commit_row. 1 or 0, or a negative stop that may pass.
SHARED int may_be_committing(struct walk *w, u64 ra) {
    if (!w) return 1;
    struct search *search = &w->search;
    struct loop loop = {.w = w};
    u64 leaving = w->cfi.commit_row;
    if (!leaving) return 1;
    search->at = leaving - w->cfi.pc_begin > COMMIT_WINDOW ? leaving - COMMIT_WINDOW : w->cfi.pc_begin;
    search->end = leaving;
    search->last = search->before_last = 0;
    search->stop = 0;
    LOOP(COMMIT_WINDOW, commit_body, &loop);
    if (search->stop) return is_passing((u32)search->stop) ? -search->stop : 1;
    if (!search->before_last) return 1;
    return ra >= search->before_last && ra <= leaving;
}

#endif
