// A row: how the caller's registers are found from a frame's, for one pc. Decided once from the CFI, then cached by the home and applied many times.
#ifndef UNSPOOL_ROW_H
#define UNSPOOL_ROW_H

#include "types.h"

// DWARF numbers of x86-64 (System V psABI AMD64, figure 3.36).
enum reg {
    REG_RAX = 0,
    REG_RDX = 1,
    REG_RCX = 2,
    REG_RBX = 3,
    REG_RSI = 4,
    REG_RDI = 5,
    REG_RBP = 6,
    REG_RSP = 7,
    REG_R8 = 8,
    REG_R10 = 10,
    REG_R12 = 12,
    REG_R15 = 15,
    REG_RA = 16,
};

// A register that this walk does not keep: never known.
#define REG_OTHER 31

// Bits of `walk.known`: the registers that a function gives back, and the stack pointer.
#define REGS_ALL 0xffff
#define REGS_CALLEE_SAVED ((1 << 3) | (1 << 6) | (0xf << 12))
#define REGS_SFRAME ((1 << REG_RBP) | (1 << REG_RSP))
#define REGS_KEPT (REGS_CALLEE_SAVED | (1 << REG_RSP))

// The rules of a row: one for each callee-saved register, the return address, and the stack pointer (RULE_SAME there: the caller's is the CFA).
enum slot { SLOT_RBX, SLOT_RBP, SLOT_R12, SLOT_R13, SLOT_R14, SLOT_R15, SLOT_RA, SLOT_RSP, SLOT_COUNT };

enum rule_kind {
    RULE_SAME,         // the caller's value is the register's own
    RULE_AT_CFA,       // *(cfa + offset)
    RULE_CFA_VALUE,    // cfa + offset
    RULE_AT_REG,       // *(base + offset)
    RULE_REG_VALUE,    // base + offset
    RULE_UNDEFINED,    // the caller's value is lost
    RULE_UNSUPPORTED,  // a rule that this walk cannot follow
};

struct rule {
    u8 kind;
    u8 base;
    s16 offset;
};

enum cfa_kind {
    CFA_NONE,         // no rule was given
    CFA_REG,          // cfa = base + offset
    CFA_FORM,         // the same, given by an expression: instructions may not change a part of it
    CFA_DEREF,        // cfa = *(base + inner) + offset
    CFA_UNSUPPORTED,  // an expression that this walk cannot follow
};

enum row_flag {
    ROW_SIGNAL = 1,        // the frame of a signal trampoline: the caller's pc is exact, its CFA may be anywhere
    ROW_OUTERMOST = 2,     // the return address is undefined: this frame has no caller
    ROW_SIGCONTEXT = 4,    // a signal frame of the kernel's layout at rsp: every register is there
    ROW_STANDARD = 8,      // RA at cfa - 8, all other rules RULE_SAME or RULE_AT_CFA
    ROW_NOT_CALL = 16,     // R4: the bytes before this return address are no call
    ROW_NONSTANDARD = 32,  // R9a: the return address is not where the ABI puts it
    ROW_EH_COMMIT = 64,    // R9b: an exception may be in the middle of being committed here
    ROW_EXACT = 128,       // the ip was read as a return address, but is the very instruction: a trampoline's or a coroutine's base
    ROW_COROUTINE = 256,   // a coroutine's base: nothing is returned to from here
    ROW_STOP = 512,        // there is no row; `stop` says why
    ROW_LOST_RBP = 2048,   // rbp is said to be where it points to, in a frame that runs and is not found through it: GCC is wrong there (docs/verdicts.md)
    ROW_BIRTH = 4096,      // with ROW_OUTERMOST: a system call stands right before, so that a thread may begin here
    ROW_SFRAME = 1024,     // from an SFrame section: of the registers, the caller's rsp and rbp are all that is known
};

// Rows that a frame steps by without a second look.
#define ROW_PLAIN(flags) (((flags) & ~(ROW_STANDARD | ROW_SFRAME)) == 0)

struct row {
    s32 cfa_offset;
    s32 cfa_inner;
    u8 cfa_kind;
    u8 cfa_base;
    u16 flags;
    u8 saved;  // bit n: rules[n] is not RULE_SAME
    u8 stop;   // with ROW_STOP
    u16 ehdata;  // which of rax (bit 0) and rdx (bit 1) are saved
    union {
        struct rule rules[SLOT_COUNT];
        struct {         // with ROW_OUTERMOST: the function that ends the stack, for ends.h
            u32 before;  // bytes from its first instruction to the lookup pc
            u32 after;   // bytes from the lookup pc to its end
        } function;
    };
};

_Static_assert(sizeof(struct rule) == 4, "a rule is 4 bytes");
_Static_assert(sizeof(struct row) == 48, "a row and a 16-byte key share a cache line");

#endif
