// The kernel's side of the walk: modules from the mapping tree, caches, frames, the return addresses that uprobes replaced. walk_state.h
// says what each home_ function owes the walk.
#ifndef UNSPOOL_HOME_BPF_H
#define UNSPOOL_HOME_BPF_H

#include "address_space.bpf.h"
#include "birth.bpf.h"
#include "capture.h"
#include "walk_state.h"

// Pairs of rows, of the whole machine: 2 MB. A row lies in either half of the pair that its key gives: of two rows that are met in every
// sample and share a place, a single one would push the other out for ever.
#define ROW_CACHE_SIZE 16384

#define MODULE_CACHE_SIZE 1024

#define SPACE_CACHE_SIZE 1024

// Mappings that are looked at, downwards from the code, for the one with the file's first byte.
#define HEADER_SEARCH_MAX 12

// include/uapi/linux/auxvec.h
#define AT_BASE 7
#define AT_ENTRY 9
#define AUXV_WORDS 44

#define ROW_WORDS (sizeof(struct row) / 8)
#define MODULE_WORDS (sizeof(struct module) / 8)

// Where e_entry lies in an ELF64 header.
#define ELF_ENTRY_OFFSET 24

// The words of a cache entry and their check, as in struct mapping_entry: an entry that was torn, or that another question wrote, is a
// miss.
struct row_entry {
    u64 check;
    u64 spare;
    union {
        struct row row;
        u64 words[ROW_WORDS];
    };
};

struct row_pair {
    struct row_entry newer;
    struct row_entry older;
};

struct module_entry {
    u64 check;
    union {
        struct module module;
        u64 words[MODULE_WORDS];
    };
};

// What ends a process's stacks: read once an address space.
struct space_entry {
    u64 check;
    union {
        struct {
            u64 process_entry;
            u64 interpreter_entry;
            u64 initial_sp;
        };
        u64 words[3];
    };
};

// What user space read in the section headers of files that have no PT_GNU_EH_FRAME.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, FRAME_SECTIONS_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, u32);
    __type(value, struct frame_section);
} frame_sections SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, u32);
} learned SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, ROW_CACHE_SIZE);
    __type(key, u32);
    __type(value, struct row_pair);
} row_cache SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, MODULE_CACHE_SIZE);
    __type(key, u32);
    __type(value, struct module_entry);
} module_cache SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, SPACE_CACHE_SIZE);
    __type(key, u32);
    __type(value, struct space_entry);
} space_cache SEC(".maps");

// ---- address space

// AT_ENTRY, the interpreter's e_entry and the initial stack pointer, from the kernel's copy of the auxiliary vector (mm->saved_auxv); 1
// when nothing is missing. An interpreter's ELF header that is not in memory is left in home->interpreter.
INLINE int space_read(struct space_entry *to, struct home *home) {
    struct mm_struct *mm = (struct mm_struct *)home->space.mm;
    u64 *auxv = home->node.words;
    u64 base = 0, entry = 0;
    __builtin_memset(to, 0, sizeof(*to));
    to->initial_sp = BPF_CORE_READ(mm, start_stack);
    // In two halves: the scratch holds 32 words.
    for (u32 half = 0; half < 2; half++) {
        u64 from = (u64)__builtin_preserve_access_index(&mm->saved_auxv) + half * AUXV_WORDS / 2 * 8;
        if (bpf_probe_read_kernel(auxv, AUXV_WORDS / 2 * 8, (void *)from))
            return 0;
#pragma unroll
        for (u32 i = 0; i < AUXV_WORDS / 2; i += 2) {
            base = auxv[i] == AT_BASE ? auxv[i + 1] : base;
            to->process_entry = auxv[i] == AT_ENTRY ? auxv[i + 1] : to->process_entry;
        }
    }
    if (!base)
        return to->process_entry != 0;
    if (bpf_probe_read_user(&entry, sizeof(entry), (void *)(base + ELF_ENTRY_OFFSET))) {
        home->interpreter = base;
        return 0;
    }
    to->interpreter_entry = base + entry;
    return to->process_entry != 0;
}

// Where the address space's stacks may end.
SHARED int home_open_ends(struct walk *w) {
    if (!w)
        return 0;
    struct home *home = home_of(w);
    struct space_entry found;
    u32 index = (u32)(hash_step(home->space.id, 1) >> 32) & (SPACE_CACHE_SIZE - 1);
    struct space_entry *entry = bpf_map_lookup_elem(&space_cache, &index);
    if (!entry)
        return 0;
    found = *entry;
    home->interpreter = 0;
    if (found.check != check_of(home->space.id, found.words, 3) && space_read(&found, home)) {
        entry->check = 0;
        __builtin_memcpy(entry->words, found.words, sizeof(found.words));
        entry->check = check_of(home->space.id, found.words, 3);
    }
    w->process_entry = found.process_entry;
    w->interpreter_entry = found.interpreter_entry;
    w->initial_sp = found.initial_sp;
    return 0;
}

// Fill the part of the walk's "in" that is the address space's. The walk's registers are there already.
INLINE void home_open(struct walk *w, struct task_struct *task, struct mm_struct *mm) {
    struct home *home = home_of(w);
    struct uprobe_task *utask = bpf_core_field_exists(task->utask) ? task->utask : 0;
    address_space_open(&home->space, mm);
    home->return_instance = utask ? (u64)BPF_CORE_READ(utask, return_instances) : 0;
    home_open_ends(w);
    w->thread_pointer = task->thread.fsbase;
    w->exact = 1;
    home->row_hits = 0;
    w->unreadable = 0;
    home->parent = PARENT_UNREAD;
    u32 zero = 0, *number = bpf_map_lookup_elem(&learned, &zero);
    home->learned = number ? *number : 0;
    w->module.start = w->module.end = 0;
}

// ---- modules

// Whether two mappings show the same file: identities differ, for they hold the place too.
INLINE int same_file(const struct mapping *mapping, const struct mapping *other) {
    return other->kind == MAPPING_FILE && other->file == mapping->file;
}

// Look at one address; then at the mapping below it.
LOOP_BODY long header_body(u64 index, void *context) {
    struct walk *w = ((struct loop *)context)->w;
    struct home *home = home_of(w);
    u64 found = tree_find(w, home->header_at), below = home->below;
    if (found && mapping_read(w, 1)) {
        below = home->other.start;
        if (same_file(&home->mapping, &home->other) && !home->other.offset) {
            home->header = below;
            return 1;
        }
    }
    // The first address was a guess; what follows goes downwards from the code.
    if (!index)
        below = home->mapping.start;
    home->header_at = below - 1;
    return below < 4096;
}

// Where the file's first byte is mapped, 0 when it is not: usually `offset` bytes below the code; else (lld and BOLT put them further
// apart) in a mapping not far below.
INLINE u64 find_header(struct walk *w) {
    struct home *home = home_of(w);
    struct loop loop = {w};
    if (!home->mapping.offset)
        return home->mapping.start;
    home->header_at = home->mapping.start - home->mapping.offset;
    home->header = 0;
    LOOP(HEADER_SEARCH_MAX, header_body, &loop);
    return home->header;
}

INLINE int stop_of(const struct mapping *mapping) {
    if (mapping->kind == MAPPING_NONE)
        return STOP_NO_MAPPING;
    if (mapping->kind == MAPPING_UPROBES)
        return STOP_RA_REWRITTEN;
    if (!(mapping->flags & VM_EXEC))
        return STOP_NOT_EXECUTABLE;
    return mapping->kind == MAPPING_ANON ? STOP_ANON_CODE : STOP_NONE;
}

INLINE struct module_entry *module_slot(u64 id) {
    u32 index = (u32)(id >> 20) & (MODULE_CACHE_SIZE - 1);
    return bpf_map_lookup_elem(&module_cache, &index);
}

INLINE int module_take(struct walk *w, u64 id) {
    struct module_entry *entry = module_slot(id);
    if (!entry)
        return 0;
    w->module = entry->module;
    return entry->check == check_of(id, (u64 *)&w->module, MODULE_WORDS);
}

SHARED int home_keep_module(struct walk *w) {
    if (!w)
        return 0;
    struct module_entry *entry = module_slot(w->module.id);
    if (!entry)
        return 0;
    entry->check = 0;
    entry->module = w->module;
    entry->check = check_of(w->module.id, entry->words, MODULE_WORDS);
    return 0;
}

INLINE u64 module_id(const struct home *home, u64 space, u64 identity) {
    return hash_step(hash_step(space, identity), home->learned);
}

// The parent's name for the same mapping, 0 when there is no parent. A new process has its parent's mappings, but not yet their pages:
// what was learned in the parent holds here as long as the identity is the same.
INLINE u64 parent_module(struct home *home) {
    if (home->parent == PARENT_UNREAD) {
        struct task_struct *task = (struct task_struct *)bpf_get_current_task();
        struct mm_struct *mm = BPF_CORE_READ(task, real_parent, mm);
        home->parent = mm ? BPF_CORE_READ(mm, context.ctx_id) : 0;
    }
    return home->parent ? module_id(home, home->parent, home->identity) : 0;
}

SHARED int home_find_module(struct walk *w, u64 pc) {
    if (!w)
        return STOP_NO_MAPPING;
    struct home *home = home_of(w);
    struct mapping *mapping = &home->mapping;
    mapping_find(w, pc, pc >> 12);
    int stop = stop_of(mapping);
    // While the mappings change, a miss proves nothing: look again in task context.
    if (stop == STOP_NO_MAPPING && !home->space.stable && home->space.epoch != NO_EPOCH) {
        w->fault_size = 0;
        return STOP_PAGE_ABSENT;
    }
    if (stop)
        return stop;
    u64 id = module_id(home, home->space.id, mapping->identity);
    home->identity = mapping->identity;
    home->file_key = mapping->kind == MAPPING_FILE ? (u32)mapping->file | 1 : 0;
    if (module_take(w, id)) {
        count(COUNT_MODULE_HITS);
        return 0;
    }
    u64 parent = parent_module(home);
    if (parent && module_take(w, parent)) {
        count(COUNT_INHERITED);
        w->module.id = id;
        home_keep_module(w);
        return 0;
    }
    count(COUNT_MODULE_MISSES);
    __builtin_memset(&w->module, 0, sizeof(w->module));
    w->module.start = mapping->start;
    w->module.end = mapping->end;
    w->module.id = id;
    w->module.flags = mapping->kind == MAPPING_VDSO ? MODULE_VDSO : 0;
    w->module.header = mapping->kind == MAPPING_VDSO ? mapping->start : find_header(w);
    return 0;
}

INLINE int home_frame_section(struct walk *w) {
    u32 key = home_of(w)->file_key;
    struct frame_section *section = bpf_map_lookup_elem(&frame_sections, &key);
    if (!section)
        return 0;
    w->module.eh_frame = w->module.bias + section->start;
    w->module.header_end = w->module.bias + section->end;
    return 1;
}

// ---- rows

INLINE struct row_pair *row_slot(u64 module, u64 key) {
    u32 index = (u32)(hash_step(module, key) >> 32) & (ROW_CACHE_SIZE - 1);
    return bpf_map_lookup_elem(&row_cache, &index);
}

INLINE int row_take(struct walk *w, u64 module, u64 key, const struct row_entry *entry) {
    w->row = entry->row;
    return entry->check == check_of(module ^ key, (u64 *)&w->row, ROW_WORDS);
}

INLINE void home_put_row(struct walk *w, u64 key) {
    struct row_pair *pair = row_slot(w->module.id, key);
    if (!pair)
        return;
    pair->older = pair->newer;
    pair->newer.check = 0;
    pair->newer.row = w->row;
    pair->newer.check = check_of(w->module.id ^ key, pair->newer.words, ROW_WORDS);
}

// The parent's row, which becomes the process's own; 1 or 0.
SHARED int home_inherit_row(struct walk *w, u64 key) {
    if (!w)
        return 0;
    u64 parent = parent_module(home_of(w));
    struct row_pair *pair = parent ? row_slot(parent, key) : 0;
    if (!pair || !(row_take(w, parent, key, &pair->newer) || row_take(w, parent, key, &pair->older)))
        return 0;
    home_put_row(w, key);
    count(COUNT_INHERITED);
    return 1;
}

// Rows are kept by what is mapped, not by when: a change of the mappings that leaves this one as it is leaves its rows.
INLINE int home_get_row(struct walk *w, u64 key) {
    struct row_pair *pair = row_slot(w->module.id, key);
    if (pair && (row_take(w, w->module.id, key, &pair->newer) || row_take(w, w->module.id, key, &pair->older))) {
        home_of(w)->row_hits++;
        return 1;
    }
    if (home_inherit_row(w, key))
        return 1;
    count(COUNT_ROW_MISSES);
    return 0;
}

// ---- frames

INLINE int home_put_frame(struct walk *w, u64 ip, u32 marks) {
    u32 depth = w->depth;
    if (depth >= w->max_frames || depth >= DEFERRED_FRAMES_MAX)
        return STOP_FRAME_LIMIT;
    w->frames[depth] = (ip & ((1ull << FRAME_ADDRESS_BITS) - 1)) | (u64)marks << FRAME_ADDRESS_BITS;
    return 0;
}

INLINE void home_frame_cfa(struct walk *w) {
    (void)w;
}

// The kernel keeps the return addresses that uretprobes replaced, innermost first; several probes on one call are chained to the first
// one's address (kernel/events/uprobes.c, prepare_uretprobe).
SHARED int home_next_return(struct walk *w) {
    if (!w)
        return STOP_RA_REWRITTEN;
    struct home *home = home_of(w);
    struct return_instance *instance = (struct return_instance *)home->return_instance;
    if (!instance)
        return STOP_RA_REWRITTEN;
    w->value = BPF_CORE_READ(instance, orig_ret_vaddr);
    for (u32 i = 0; i < 8 && BPF_CORE_READ(instance, chained); i++)
        instance = BPF_CORE_READ(instance, next);
    home->return_instance = (u64)BPF_CORE_READ(instance, next);
    return w->value ? STOP_NONE : STOP_RA_REWRITTEN;
}

INLINE int home_original_return(struct walk *w, u64 *ra) {
    int stop = home_next_return(w);
    *ra = w->value;
    return stop;
}

// The stack's own part of the mapping cache: 1 MB of addresses share an entry, which holds while the stack pointer stays in one mapping.
INLINE void home_stack_bounds(struct walk *w) {
    struct home *home = home_of(w);
    u64 sp = w->regs[REG_RSP];
    mapping_find(w, sp, sp >> 20 | 1ull << 63);
    int writable = home->mapping.kind != MAPPING_NONE && home->mapping.flags & VM_WRITE;
    // While the mappings change, a miss proves nothing.
    u64 nowhere = home->mapping.kind != MAPPING_NONE || home->space.stable;
    w->stack_low = writable ? home->mapping.start : nowhere;
    w->stack_high = writable ? home->mapping.end : nowhere;
}

#endif
