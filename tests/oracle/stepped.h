/* The stepped process as it is at this moment: its threads, its memory, its mappings, and what its instructions are. */
#ifndef ORACLE_STEPPED_H
#define ORACLE_STEPPED_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "pending.h"
#include "records.h"

#define PCS (1 << 22) /* distinct instructions that may be counted, a power of two */

enum insn { INSN_UNKNOWN, INSN_OTHER, INSN_CALL, INSN_RET, INSN_JUMP_REG, INSN_SYSCALL };

struct place {
    uint64_t pc;
    uint32_t generation;
    uint8_t insn;
    uint8_t samples;
    uint64_t hits;
};

struct map {
    uint64_t start, end;
};

struct thread {
    int tid;
    int fresh; /* not seen stopped yet */
    int injected;
    int is_child; /* of clone(CLONE_VM | CLONE_VFORK), until its execve */
    int stopped;  /* it waits to be told from a fork's child: its creator's event may come later than its own first stop */
    struct user_regs_struct creator;
    struct user_regs_struct regs;
    struct context *context;
    struct jump jump;
    uint64_t stack_start, stack_end;
};

static struct place *places;
static uint64_t places_used;
static struct map maps[65536];
static int map_count;
static int maps_dirty = 1, maps_changed = 1;
static uint32_t generation = 1;
static char *maps_text, *maps_written;
static size_t maps_size, maps_room, maps_written_size;
static uint64_t syscall_pc;
static int leader;
static uint64_t steps; /* instructions since the start */

static int peek(uint64_t address, void *to, size_t size)
{
    struct iovec local = {to, size}, remote = {(void *)address, size};
    return process_vm_readv(leader, &local, 1, &remote, 1, 0) == (ssize_t)size;
}

static uint64_t word_at(uint64_t address)
{
    uint64_t value = 0;
    peek(address, &value, 8);
    return value;
}

/* ---- mappings ---- */

static void read_maps(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", leader);
    FILE *f = fopen(path, "r");
    maps_size = 0;
    map_count = 0;
    if (!f)
        return;
    for (;;) {
        if (maps_room - maps_size < 65536)
            maps_text = realloc(maps_text, maps_room = maps_room * 2 + 131072);
        size_t got = fread(maps_text + maps_size, 1, maps_room - maps_size - 1, f);
        if (!got)
            break;
        maps_size += got;
    }
    fclose(f);
    maps_text[maps_size] = 0;
    for (char *line = maps_text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        unsigned long long start, end;
        if (sscanf(line, "%llx-%llx", &start, &end) == 2 && map_count < 65536)
            maps[map_count++] = (struct map){start, end};
    }
    maps_dirty = 0;
    maps_changed = 1;
}

static struct map *map_of(uint64_t address)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        if (maps_dirty || attempt)
            read_maps();
        for (int i = 0; i < map_count; i++)
            if (address >= maps[i].start && address < maps[i].end)
                return &maps[i];
    }
    return NULL;
}

static void put_maps(void)
{
    if (maps_dirty)
        read_maps();
    maps_changed = 0;
    if (maps_written_size == maps_size && !memcmp(maps_written, maps_text, maps_size))
        return;
    maps_written = realloc(maps_written, maps_size + 1);
    memcpy(maps_written, maps_text, maps_size);
    maps_written_size = maps_size;
    put(RECORD_MAPS, maps_text, maps_size);
}

/* ---- instructions ---- */

static enum insn decode(uint64_t pc)
{
    uint8_t b[16] = {0};
    if (!peek(pc, b, 16) && !peek(pc, b, 4) && !peek(pc, b, 1))
        return INSN_OTHER;
    int i = 0;
    while (i < 8 && (b[i] == 0x66 || b[i] == 0x67 || b[i] == 0xf2 || b[i] == 0xf3 || b[i] == 0x2e || b[i] == 0x36 || b[i] == 0x3e ||
                     b[i] == 0x26 || b[i] == 0x64 || b[i] == 0x65))
        i++;
    if ((b[i] & 0xf0) == 0x40)
        i++;
    if (b[i] == 0xe8)
        return INSN_CALL;
    if (b[i] == 0xc3 || b[i] == 0xc2)
        return INSN_RET;
    if (b[i] == 0x0f && b[i + 1] == 0x05)
        return INSN_SYSCALL;
    if (b[i] != 0xff)
        return INSN_OTHER;
    int reg = b[i + 1] >> 3 & 7;
    return reg == 2 ? INSN_CALL : reg == 4 ? INSN_JUMP_REG : INSN_OTHER;
}

static struct place *place_of(uint64_t pc)
{
    for (uint64_t i = pc * 0x9e3779b97f4a7c15ull >> 42;; i++) {
        struct place *p = &places[i & (PCS - 1)];
        if (p->pc == pc)
            return p;
        if (p->pc)
            continue;
        if (places_used++ > PCS * 3 / 4) {
            fprintf(stderr, "stepper: too many distinct instructions\n");
            exit(3);
        }
        p->pc = pc;
        return p;
    }
}

static enum insn insn_at(struct place *p)
{
    if (p->insn == INSN_UNKNOWN || p->generation != generation) {
        p->insn = decode(p->pc);
        if (p->insn == INSN_SYSCALL && !syscall_pc)
            syscall_pc = p->pc; /* the loader's or the program's first one, which stays mapped */
        p->generation = generation;
    }
    return p->insn;
}

#endif
