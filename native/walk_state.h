// One walk: the thread's registers as they move outwards, the frames found, why the walk stopped, and scratch memory. The home owns it (BPF: a slot of
// a map; user space: a context) and fills the part marked "in"; walk.h does the rest.
//
// The home provides these functions before it includes walk.h (all take the walk; BPF: each may be inline, static or global). Before it asks for a row,
// the walk has found the module.
//
//   int home_find_module(w, pc)   fills w->module for the mapping that holds pc; 0, or a stop: NO_MAPPING, NOT_EXECUTABLE, ANON_CODE, RA_REWRITTEN
//                                 ([uprobes]), PAGE_ABSENT (not known without faulting or locking: the home is asked again when the walk is resumed).
//                                 It may give a module that home_keep_module was given before: then MODULE_PARSED is set in w->module.flags.
//   void home_keep_module(w)      w->module was parsed: the home may cache it for its address space.
//   int home_get_row(w, key)      copies a cached row into w->row, 1; or 0. The key is the pc, and KEY_EXACT when it is not a return address.
//   void home_put_row(w, key)     w->row was decided: the home may cache it (rows with ROW_STOP are given too: the negative cache).
//   int home_put_frame(w, ip, marks)  appends a frame (marks: record.h FRAME_*); 0, or FRAME_LIMIT. w->depth is its index; the walk counts it up.
//   void home_frame_cfa(w)        the last frame's CFA is now known: w->cfa.
//   int home_frame_section(w)     sets w->module.eh_frame and header_end where the home knows them although no program header says it: 1, or 0.
//   int home_original_return(w, &ra)  the next return address that a uretprobe replaced; 0, or RA_REWRITTEN when the home does not know.
//   void home_stack_bounds(w)     sets w->stack_low, w->stack_high to the writable mapping that holds rsp; 1, 1 when none does; 0, 0 when the home does
//                                 not know (then nothing is checked against it, and no thread's TLS makes an accepted end).
//   int home_birth(w)             sets w->birth to where the thread began, when its creator waits in the system call that says so: 1, or 0.
#ifndef UNSPOOL_WALK_STATE_H
#define UNSPOOL_WALK_STATE_H

#include "record.h"
#include "row.h"
#include "stops.h"
#include "types.h"

// Bytes of stack read at once: an aligned window never crosses a page, so it is there as a whole or not at all.
#define STACK_WINDOW 1024

// Bytes of unwind data read at once.
#define CODE_WINDOW 256

// Nested DW_CFA_remember_state at most.
#define REMEMBER_MAX 4

// Bytes of a DWARF expression that can be one of the known patterns (the longest, a PLT's CFA, has 11).
#define EXPRESSION_MAX 14

// Set in the key of a row whose pc is the very instruction, not the one after a call.
#define KEY_EXACT (1ULL << 63)

// How a row may be found. Both are proofs; SFrame is asked first.
enum method {
    METHOD_SFRAME = 1,
    METHOD_CFI = 2,
    METHOD_ALL = 3,
};

enum module_flag {
    MODULE_PARSED = 1,     // the ELF header was read: the fields from `bias` on hold
    MODULE_TABLE = 2,      // .eh_frame_hdr has a search table that this walk can use
    MODULE_VDSO = 4,
    MODULE_BAD_SFRAME = 8, // its SFrame section breaks a rule, and is not asked again
};

// The mapping that holds a pc, and what its file's ELF header says.
struct module {
    u64 start;      // in: the executable mapping, [start, end)
    u64 end;
    u64 header;     // in: where the file's first byte (offset 0, the ELF header) is mapped; 0 when it is not
    u64 id;         // in: the home's own, to recognise the module
    u64 bias;       // actual minus stated address
    u64 header_end; // end of the read-only bytes that follow the ELF header (p_vaddr + p_memsz of the last PT_LOAD, biased)
    u64 frame_hdr;  // .eh_frame_hdr, 0 when the file has none
    u64 eh_frame;   // .eh_frame, 0 when it is not known
    u64 table;      // the search table: pairs of s32 relative to frame_hdr
    u32 count;      // its pairs
    u32 flags;      // enum module_flag; in: MODULE_PARSED, MODULE_VDSO
    u32 stop;       // why it has no call frame information, 0 when it has
    u32 sframe_count;  // functions in the index of its SFrame section
    u64 sframe;        // the SFrame section, 0 when there is none that this walk can use
    u64 sframe_index;  // its index
    u64 sframe_rows;   // its FRE sub-section
    u32 sframe_size;   // bytes of that; before the header was read: of the segment
    u32 spare;
};

// What an expression of the form  base + inner  or  *(base + inner) + offset  says.
struct form {
    s64 inner;
    s64 offset;
    u32 base;
    u32 derefs;
    u32 known;  // it has one of these forms
    u32 at;     // while it is read: the next byte
};

// One CIE and FDE, and the rows of their programs while they are interpreted.
struct cfi {
    u64 pc_begin;      // the FDE's range, actual addresses
    u64 pc_end;
    u64 location;      // of the row under construction
    u64 target;        // the pc whose row is wanted
    u64 next;          // where the row after it starts, when it is complete by an advance
    u64 cie;           // address of the CIE's length field
    u64 cie_program, cie_program_end;
    u64 fde_program, fde_program_end;
    u64 code_align;
    s64 data_align;
    u64 commit_row;    // start of the first row that belongs to __builtin_eh_return (R9b), 0 when there is none
    u32 stop;          // of the program
    u32 done;          // the row for the target is complete
    u8 encoding;       // of pc_begin
    u8 augmented;      // 'z'
    u8 signal;         // 'S'
    u8 whole;          // the program is run to its end, for commit_row
    u8 remembered;     // states on the stack
    u8 in_cie;         // the CIE's program is run
    u8 expression[EXPRESSION_MAX + 4];  // a number is read as four bytes, of which the last may lie behind the expression
    struct form form;
    struct row row;
    struct row initial;  // after the CIE's program, for DW_CFA_restore
    struct row states[REMEMBER_MAX];
};

enum placed {
    PLACED_NOT,
    PLACED,
    PLACED_FOR_NOW,  // put before its row was known: put again when the walk is resumed
};

// What the loops of a search keep: here and not on the stack, which is 512 bytes for all nested BPF functions together.
struct search {
    u64 pc;
    u64 at;
    u64 size;
    u64 end;
    u64 last;
    u64 before_last;
    u32 low;
    u32 high;
    u32 found;
    int stop;
};

// How a thread came to run on a stack of its own, as the system call says in which its creator waits (vfork): where its first instruction is, its
// first stack pointer, and its creator's. All 0: not known.
struct birth {
    u64 ip;
    u64 sp;
    u64 creator_sp;
};

struct walk {
    // ---- in
    u64 regs[16];         // by DWARF number
    u64 ip;
    u32 known;            // bit n: regs[n] is known
    u32 max_frames;
    u64 thread_pointer;   // fs_base, 0 when not known
    u64 process_entry;    // AT_ENTRY, 0 when not known
    u64 interpreter_entry;
    u64 initial_sp;       // mm->start_stack
    u32 work;             // what the walk may still do: about one unit an opcode, a read, a table step (walk.h WORK_*)
    u32 exact;            // in: 1. ip is the very instruction, not a return address
    u32 methods;          // in: enum method, those that may find a row
    u32 trust;            // how the frame at ip was found

    // ---- out
    u32 depth;            // frames put
    u32 stop;             // enum of stops.h; STOP_NONE while it walks
    u64 stop_address;     // the pc or address that the stop is about
    u64 fault;            // with PAGE_ABSENT: the bytes that were missing, [fault, fault + fault_size)
    u32 fault_size;
    u32 first_bad_frame;  // NO_BAD_FRAME (the stack is reliable), or the innermost frame that cannot be believed
    u32 bad_reason;       // why; STOP_NONE
    u32 signals;          // signal frames passed

    // ---- its own
    struct birth birth;   // from home_birth
    u64 cfa;
    u64 stack_low, stack_high;
    u64 cycle_ip, cycle_sp;  // a (pc, sp) seen before: frame 0's, then that behind the 1st, 2nd, 4th, 8th ... signal frame
    u32 mark_frame;       // the innermost suspect frame so far, NO_BAD_FRAME
    u32 mark_reason;
    u64 next[SLOT_COUNT]; // the caller's registers by slot, while they are read
    u32 next_known;       // bit n: next[n] is known
    u32 spare;
    u64 window_at;        // address of window[], NO_WINDOW
    u64 code_at;          // address of code[], NO_WINDOW
    u64 cursor;           // next byte of unwind data
    u64 cursor_end;
    u32 read_failed;      // stop of the last failed read of unwind data, STOP_NONE
    u32 placed;           // the frame at ip: enum placed
    u64 value;            // what the last decoder gave
    struct row row;
    struct module module;
    struct search search;
    struct {
        u64 begin;  // the function's range, actual addresses
        u64 end;
        u64 signal;
        struct row row;
    } sframe;  // what the SFrame section says
    struct cfi cfi;
    u8 window[STACK_WINDOW] __attribute__((aligned(8)));
    u8 code[CODE_WINDOW] __attribute__((aligned(8)));
#ifdef __bpf__
    // ---- the home's own
    u64 unreadable;                   // the number of a page that cannot be brought in, plus one; 0
    u64 home[64];
    struct record record;             // the header of what is emitted: the frames follow it
    u64 frames[DEFERRED_FRAMES_MAX];  // addresses with marks (record.h), innermost first
#else
    void *home;
#endif
};

#define NO_WINDOW 1ULL

#endif
