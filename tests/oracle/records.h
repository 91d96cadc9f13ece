/* The stepper's output: little-endian records (u32 type, u32 length, payload), read by tests/oracle/truth.py.
 *
 * A state holds registers, the ids of its pending entries, and the stack's bytes as changes to what was written before: the reader keeps the
 * same image and applies them.
 */
#ifndef ORACLE_RECORDS_H
#define ORACLE_RECORDS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum record { RECORD_HEADER = 1, RECORD_MAPS, RECORD_ENTRY, RECORD_FATE, RECORD_STATE, RECORD_END, RECORD_HITS, RECORD_VDSO, RECORD_BIRTH };

#define SHADOW_PAGES 65536 /* pages of stack that may be remembered: 256 MB, a power of two */
#define PAGE 4096

struct buffer {
    uint8_t *data;
    size_t size, room;
};

static FILE *output;
static struct buffer payload;

static void add(struct buffer *b, const void *data, size_t size)
{
    if (b->size + size > b->room) {
        b->room = (b->size + size) * 2;
        b->data = realloc(b->data, b->room);
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void add_u64(struct buffer *b, uint64_t value) { add(b, &value, 8); }
static void add_u32(struct buffer *b, uint32_t value) { add(b, &value, 4); }

static void put(enum record type, const void *data, size_t size)
{
    uint32_t head[2] = {type, (uint32_t)size};
    fwrite(head, sizeof head, 1, output);
    fwrite(data, size, 1, output);
}

static inline void put_payload(enum record type)
{
    put(type, payload.data, payload.size);
    payload.size = 0;
}

/* What the reader already knows of a stack page. Open addressing; a full table forgets everything, which only costs output. */
struct page {
    uint64_t address;
    uint8_t *bytes;
};
static struct page shadow[SHADOW_PAGES];
static int shadow_used;

static void forget_pages(void)
{
    for (int i = 0; i < SHADOW_PAGES; i++) {
        free(shadow[i].bytes);
        shadow[i] = (struct page){0};
    }
    shadow_used = 0;
}

static struct page *page_at(uint64_t address)
{
    uint64_t i = (address / PAGE) * 0x9e3779b97f4a7c15ull >> 48;
    for (;; i++) {
        struct page *p = &shadow[i % SHADOW_PAGES];
        if (p->bytes && p->address == address)
            return p;
        if (p->bytes)
            continue;
        if (shadow_used > SHADOW_PAGES / 2) {
            forget_pages();
            return page_at(address);
        }
        shadow_used++;
        *p = (struct page){address, calloc(1, PAGE)};
        return p;
    }
}

static int differs(const uint8_t *a, const uint8_t *b) { return memcmp(a, b, 8) != 0; }

/* Adds the changed runs of one stack range (8-byte aligned) as (u64 address, u32 size, bytes); returns how many there were. */
static inline uint32_t add_changes(struct buffer *b, uint64_t start, const uint8_t *bytes, size_t size)
{
    uint32_t runs = 0;
    size_t at = 0;
    while (at < size) {
        uint64_t address = start + at;
        size_t left = PAGE - address % PAGE;
        size_t part = left < size - at ? left : size - at;
        uint8_t *known = page_at(address - address % PAGE)->bytes + address % PAGE;
        size_t i = 0;
        while (i < part) {
            if (!differs(known + i, bytes + at + i)) {
                i += 8;
                continue;
            }
            size_t end = i + 8;
            for (size_t gap = 0; end + gap < part && gap <= 16; gap += 8)
                if (differs(known + end + gap, bytes + at + end + gap))
                    end += gap + 8, gap = (size_t)-8;
            add_u64(b, address + i);
            add_u32(b, (uint32_t)(end - i));
            add(b, bytes + at + i, end - i);
            memcpy(known + i, bytes + at + i, end - i);
            runs++;
            i = end;
        }
        at += part;
    }
    return runs;
}

#endif
