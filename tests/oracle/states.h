/* Reads what the stepper wrote (records.h), for programs that hold somebody else's unwinder against it: `each_state` calls back with every state,
 * and the answer goes out as (u64 step, u32 complete, u32 frames, frames x u64 ip, frames x u8 exact).
 */
#ifndef ORACLE_STATES_H
#define ORACLE_STATES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "records.h"

#define FRAMES_MAX 20000
#define REGISTERS 18 /* DWARF 0-16, fs_base */

struct state {
    uint64_t step, time_ns;
    uint32_t tid, flags;
    uint64_t registers[REGISTERS];
    uint32_t ranges;
    uint64_t bounds[32];
};

static struct state current;
static char *current_maps;
static size_t current_maps_size;
static int maps_are_new;
static uint8_t *vdso_bytes;
static uint64_t vdso_address;
static size_t vdso_size;

static uint64_t answer_ips[FRAMES_MAX];
static uint8_t answer_exact[FRAMES_MAX];
static uint32_t answer_frames;

/* A word of the stack; 0 when the state does not hold it. */
static int stack_word(uint64_t address, uint64_t *value)
{
    for (uint32_t i = 0; i < current.ranges; i++) {
        if (address < current.bounds[2 * i] || address + 8 > current.bounds[2 * i + 1])
            continue;
        for (int b = 0; b < 8; b++)
            ((uint8_t *)value)[b] = page_at((address + b) & ~(uint64_t)(PAGE - 1))->bytes[(address + b) % PAGE];
        return 1;
    }
    return 0;
}

static void apply_changes(const uint8_t *at, uint32_t runs)
{
    for (uint32_t i = 0; i < runs; i++) {
        uint64_t address;
        uint32_t size;
        memcpy(&address, at, 8);
        memcpy(&size, at + 8, 4);
        at += 12;
        memcpy(page_at(address & ~(uint64_t)(PAGE - 1))->bytes + address % PAGE, at, size); /* a run never crosses a page */
        at += size;
    }
}

static void read_state(const uint8_t *data)
{
    uint32_t counts[3];
    memcpy(&current.step, data, 8);
    memcpy(&current.time_ns, data + 8, 8);
    memcpy(&current.tid, data + 16, 4);
    memcpy(&current.flags, data + 20, 4);
    memcpy(current.registers, data + 24, 8 * REGISTERS);
    data += 24 + 8 * REGISTERS;
    memcpy(counts, data, 12);
    data += 12 + 8ul * counts[0];
    current.ranges = counts[1];
    memcpy(current.bounds, data, 16ul * counts[1]);
    apply_changes(data + 16ul * counts[1], counts[2]);
}

static void add_frame(uint64_t ip, int exact)
{
    if (answer_frames < FRAMES_MAX) {
        answer_ips[answer_frames] = ip;
        answer_exact[answer_frames++] = (uint8_t)exact;
    }
}

static void put_answer(FILE *out, int complete)
{
    uint32_t head[2] = {(uint32_t)complete, answer_frames};
    fwrite(&current.step, 8, 1, out);
    fwrite(head, 8, 1, out);
    fwrite(answer_ips, 8, answer_frames, out);
    fwrite(answer_exact, 1, answer_frames, out);
}

static void take_record(const uint32_t head[2], uint8_t *data, FILE *out, int (*unwind)(void))
{
    if (head[0] == RECORD_MAPS) {
        current_maps = realloc(current_maps, head[1] + 1);
        memcpy(current_maps, data, head[1]);
        current_maps[head[1]] = 0;
        current_maps_size = head[1];
        maps_are_new = 1;
    } else if (head[0] == RECORD_VDSO) {
        memcpy(&vdso_address, data, 8);
        vdso_size = head[1] - 8;
        vdso_bytes = realloc(vdso_bytes, vdso_size);
        memcpy(vdso_bytes, data + 8, vdso_size);
    } else if (head[0] == RECORD_STATE) {
        read_state(data);
        answer_frames = 0;
        put_answer(out, unwind());
    }
}

static int each_state(const char *from, const char *to, int (*unwind)(void))
{
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    uint32_t head[2];
    uint8_t *data = NULL;
    if (!in || !out)
        return 2;
    while (fread(head, sizeof head, 1, in) == 1) {
        data = realloc(data, head[1] + 1);
        if (fread(data, 1, head[1], in) != head[1])
            break;
        take_record(head, data, out, unwind);
    }
    fclose(in);
    return fclose(out) ? 1 : 0;
}

#endif
