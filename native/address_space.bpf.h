// What is mapped at an address of the current process: the mapping tree of the kernel (lib/maple_tree.c), read without locks, and a cache
// of its answers.
//
// bpf_find_vma() answers only once per interrupt, so the tree is walked with bpf_probe_read_kernel: bounded, and every answer is checked
// against the VMA itself. docs/decisions/mappings-in-bpf.md argues the choice, the epoch and the cache.
#ifndef UNSPOOL_ADDRESS_SPACE_BPF_H
#define UNSPOOL_ADDRESS_SPACE_BPF_H

#include "kernel.h"
#include "counters.bpf.h"
#include "walk_state.h"

// Levels of a tree at most: ten slots an inner node, so eight levels hold 10^8 mappings; a process may have 65,530.
#define TREE_LEVELS_MAX 10

// lib/maple_tree.c, include/linux/maple_tree.h: nodes are 256 bytes, aligned; a pointer to a node carries its type in bits 3-6.
#define TREE_NODE_SIZE 256
#define TREE_NODE_MASK 255ul
#define TREE_TYPE_LEAF 1
#define TREE_TYPE_ARANGE 3

// Entries of the mapping cache: one for each page of code that was met lately, on the whole machine.
#define MAPPING_CACHE_SIZE 4096

// The epoch of a kernel that has none (before 6.4): odd, so that nothing is kept.
#define NO_EPOCH 0xffffffff

enum mapping_kind {
    MAPPING_NONE = 0,
    MAPPING_FILE = 1,
    MAPPING_VDSO = 2,
    MAPPING_ANON = 3,
    MAPPING_UPROBES = 4,
};

// One mapping of the process. Two mappings of equal identity show the same bytes at the same place.
struct mapping {
    u64 start;
    u64 end;
    u64 offset;    // of the file, in bytes
    u64 file;      // stands for the file: device, inode, generation, time of last change; 0 when there is none
    u64 identity;  // stands for all of the above and below
    u32 kind;
    u32 flags;  // VM_READ, VM_WRITE, VM_EXEC
};

// The current process's address space. `id` is never used again while the machine runs (arch/x86/include/asm/mmu.h: ctx_id), `epoch`
// changes with every change of its mappings.
struct address_space {
    u64 mm;
    u64 id;
    u64 vdso;
    u64 uprobes;
    u32 epoch;
    u32 stable;  // nobody is changing the mappings at this moment
};

// A cache entry is believed when `check` is the hash of the question and of the answer, so that torn writes, of another CPU or of an
// interrupt, are misses.
struct mapping_entry {
    u64 check;
    union {
        struct mapping mapping;
        u64 words[6];
    };
};

_Static_assert(sizeof(struct mapping) == 48, "struct mapping_entry.words");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, MAPPING_CACHE_SIZE);
    __type(key, u32);
    __type(value, struct mapping_entry);
} mapping_cache SEC(".maps");

// One step of a hash: multiplication by 2^64 over the golden ratio, and a shift that brings the high bits down.
INLINE u64 hash_step(u64 hash, u64 word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
    return hash ^ (hash >> 29);
}

// The check of a cache entry: of its key and its words. Each word has an odd factor of its own, so that the products need not wait for
// one another.
INLINE u64 check_of(u64 key, const u64 *words, u32 number) {
    u64 sum = key * 0xff51afd7ed558ccdull;
#pragma unroll
    for (u32 i = 0; i < number; i++)
        sum += (words[i] ^ (words[i] >> 32)) * (0x9e3779b97f4a7c15ull + i * 0xc2b2ae3d27d4eb4eull);
    // Never 0, which marks an entry that is being written.
    return sum | 1;
}

struct tree_node {
    u64 words[TREE_NODE_SIZE / 8];
};

// No address space has this id: it would be the 2^64th.
#define PARENT_UNREAD (~0ull)

// What the BPF home keeps in walk.home.
struct home {
    struct address_space space;
    struct mapping mapping;   // of the last pc
    struct mapping other;
    u64 address;              // of a search in the tree
    u64 entry;                // the node it has come to
    u64 found;                // the VMA, 0
    u64 below;                // where the hole begins in which `address` lies, or less
    u64 header_at;            // of the search for a file's first byte
    u64 header;
    u64 row_hits;             // of this walk: counted once, at its end
    u64 identity;             // of the last module's mapping
    u64 parent;               // id of the parent process's address space; PARENT_UNREAD, 0: none
    u32 faults;               // of the deferred walk
    u32 file_key;             // of the last module's file
    u32 learned;              // how many frame sections user space had given when the walk began
    u64 interpreter;          // AT_BASE, where its ELF header could not be read; 0
    u64 return_instance;      // of the next uretprobe whose return address is still to be met
    struct tree_node node;
};

_Static_assert(sizeof(struct home) <= sizeof(((struct walk *)0)->home), "the home fits in its room");

INLINE struct home *home_of(struct walk *w) {
    return (struct home *)w->home;
}

// Odd while the mappings are being changed. From 6.4 to 6.13 the count goes up only at the end of a change, so it is never odd.
INLINE u32 epoch_of(struct mm_struct *mm) {
    struct mm_struct___sequence *sequence = (struct mm_struct___sequence *)mm;
    struct mm_struct___number *number = (struct mm_struct___number *)mm;
    if (bpf_core_field_exists(sequence->mm_lock_seq.sequence))
        return BPF_CORE_READ(sequence, mm_lock_seq.sequence);
    if (bpf_core_field_exists(number->mm_lock_seq))
        return (u32)BPF_CORE_READ(number, mm_lock_seq) << 1;
    return NO_EPOCH;
}

INLINE u32 epoch_now(const struct address_space *space) {
    return epoch_of((struct mm_struct *)space->mm);
}

INLINE void address_space_refresh(struct address_space *space) {
    space->epoch = epoch_now(space);
    // A write section of a seqcount is open while the count is odd (include/linux/seqlock.h).
    space->stable = !(space->epoch & 1);
}

// The address space of the current task, which has one.
INLINE void address_space_open(struct address_space *space, struct mm_struct *mm) {
    struct xol_area *area = 0;
    if (bpf_core_field_exists(mm->uprobes_state.xol_area))
        area = BPF_CORE_READ(mm, uprobes_state.xol_area);
    space->mm = (u64)mm;
    space->id = BPF_CORE_READ(mm, context.ctx_id);
    space->vdso = (u64)BPF_CORE_READ(mm, context.vdso);
    space->uprobes = area ? BPF_CORE_READ(area, vaddr) : 0;
    address_space_refresh(space);
}

// 1 when a < b, without a branch: of one at every pivot the verifier would have to follow both ways.
INLINE u64 is_less(u64 a, u64 b) {
    u64 borrow = ((~a & b) | (~(a ^ b) & (a - b))) >> 63;
    asm volatile("" : "+r"(borrow));
    return borrow;
}

// The slot of a node that covers `address`. Pivots ascend; the first zero pivot ends a node that is not full (mtree_range_walk of
// lib/maple_tree.c). An inner node has fewer pivots, and then its slots follow: kernel addresses, which are above every user address.
INLINE u64 tree_slot(struct home *home, u32 first_pivot, u32 first_slot) {
    const u64 *pivots = &home->node.words[first_pivot & 15];
    u64 slot = 0, before = home->address - 1;
#pragma unroll
    for (u32 i = 0; i < 15; i++)
        slot += is_less(pivots[i] - 1, before);
    if (slot)
        home->below = home->node.words[(first_pivot + slot - 1) & 31] + 1;
    return home->node.words[(first_slot + slot) & 31];
}

// One level of the tree; 1 at its end. Where a node's words lie: struct maple_range_64 and maple_arange_64 of include/linux/maple_tree.h.
LOOP_BODY long tree_level(u64 index, void *context) {
    struct home *home = home_of(((struct loop *)context)->w);
    u64 entry = home->entry;
    u32 type = (entry >> 3) & 15;
    // Bit 1 marks the root as a node; what is no root is a node by its place.
    if ((!index && (entry & 3) != 2) || entry < 4096 || type < TREE_TYPE_LEAF || type > TREE_TYPE_ARANGE)
        return 1;
    if (bpf_probe_read_kernel(&home->node, sizeof(home->node), (void *)(entry & ~TREE_NODE_MASK)))
        return 1;
    u32 first_pivot = bpf_core_field_offset(struct maple_range_64, pivot) / 8;
    u32 first_slot = bpf_core_field_offset(struct maple_range_64, slot) / 8;
    if (type == TREE_TYPE_ARANGE) {
        first_pivot = bpf_core_field_offset(struct maple_arange_64, pivot) / 8;
        first_slot = bpf_core_field_offset(struct maple_arange_64, slot) / 8;
    }
    home->entry = tree_slot(home, first_pivot, first_slot);
    if (type != TREE_TYPE_LEAF)
        return 0;
    home->found = home->entry & 3 ? 0 : home->entry;
    return 1;
}

// The VMA that covers `address`; 0 when there is none, and then home->below says where the hole begins. The pointer may be stale: the
// caller checks it.
INLINE u64 tree_find(struct walk *w, u64 address) {
    struct home *home = home_of(w);
    struct loop loop = {w};
    // BPF_CORE_READ relocates every field of its first argument, so that is a plain variable.
    struct mm_struct *mm = (struct mm_struct *)home->space.mm;
    home->address = address;
    home->entry = (u64)BPF_CORE_READ(mm, mm_mt.ma_root);
    home->found = home->below = 0;
    LOOP(TREE_LEVELS_MAX, tree_level, &loop);
    return home->found;
}

// What stands for a file in a mapping's identity.
INLINE u64 file_identity(struct file *file) {
    struct inode *inode = BPF_CORE_READ(file, f_inode);
    u64 hash = hash_step(BPF_CORE_READ(inode, i_ino), BPF_CORE_READ(inode, i_sb, s_dev));
    hash = hash_step(hash, BPF_CORE_READ(inode, i_generation));
    // Kernel 6.11 and later; before, a file that is rewritten in place while it is mapped keeps its identity.
    if (bpf_core_field_exists(inode->i_mtime_sec))
        hash = hash_step(hash_step(hash, BPF_CORE_READ(inode, i_mtime_sec)), BPF_CORE_READ(inode, i_mtime_nsec));
    return hash;
}

// Fill home->mapping, or home->other, from the VMA that tree_find found; 0 when it does not cover the address, or is another process's
// (VMAs are reused while they are read without a lock).
SHARED int mapping_read(struct walk *w, u32 other) {
    if (!w)
        return 0;
    struct home *home = home_of(w);
    struct mapping *mapping = other ? &home->other : &home->mapping;
    struct vm_area_struct *vma = (struct vm_area_struct *)home->found;
    struct file *file = BPF_CORE_READ(vma, vm_file);
    mapping->start = BPF_CORE_READ(vma, vm_start);
    mapping->end = BPF_CORE_READ(vma, vm_end);
    mapping->offset = BPF_CORE_READ(vma, vm_pgoff) << 12;
    mapping->flags = BPF_CORE_READ(vma, vm_flags) & (VM_READ | VM_WRITE | VM_EXEC);
    mapping->kind = file ? MAPPING_FILE : MAPPING_ANON;
    if (!file && mapping->start == home->space.vdso)
        mapping->kind = MAPPING_VDSO;
    if (!file && home->space.uprobes && mapping->start == home->space.uprobes)
        mapping->kind = MAPPING_UPROBES;
    mapping->file = file ? file_identity(file) : 0;
    mapping->identity = hash_step(hash_step(hash_step(mapping->file, mapping->start), mapping->end), mapping->offset);
    mapping->identity = hash_step(mapping->identity, mapping->kind | (u64)mapping->flags << 32);
    return home->address >= mapping->start && home->address < mapping->end && (u64)BPF_CORE_READ(vma, vm_mm) == home->space.mm;
}

// The question of a cache entry: which address space, as it was in which epoch, and which part of it.
INLINE u64 mapping_key(const struct address_space *space, u64 part) {
    return hash_step(hash_step(space->id, part), space->epoch);
}

// The mapping at `address` into home->mapping, kind MAPPING_NONE when nothing is mapped there. Answers are kept as long as the epoch
// stands, one for each `part`: the caller's own division of the address space.
SHARED int mapping_find(struct walk *w, u64 address, u64 part) {
    if (!w)
        return 0;
    struct home *home = home_of(w);
    struct address_space *space = &home->space;
    struct mapping *mapping = &home->mapping;
    u64 key = mapping_key(space, part);
    u32 index = (u32)(hash_step(space->id, part) >> 32) & (MAPPING_CACHE_SIZE - 1);
    struct mapping_entry *entry = bpf_map_lookup_elem(&mapping_cache, &index);
    if (!entry)
        return 0;
    *mapping = entry->mapping;
    if (space->stable && entry->check == check_of(key, (u64 *)mapping, 6) && address >= mapping->start && address < mapping->end) {
        count(COUNT_MAPPING_HITS);
        return 0;
    }
    count(COUNT_MAPPING_WALKS);
    if (!tree_find(w, address) || !mapping_read(w, 0))
        __builtin_memset(mapping, 0, sizeof(*mapping));
    if (!space->stable || epoch_now(space) != space->epoch) {
        count(COUNT_MAPPING_RACES);
        return 0;
    }
    if (mapping->kind == MAPPING_NONE)
        return 0;
    entry->check = 0;
    entry->mapping = *mapping;
    entry->check = check_of(key, entry->words, 6);
    return 0;
}

#endif
