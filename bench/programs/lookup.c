/* Uncached lookups of rows in a file that has both .eh_frame and .sframe (unspool sframe make): the walk's own code, nothing kept between lookups.
     lookup FILE ROUNDS   prints JSON: ns and memory reads a lookup for each */
#define _GNU_SOURCE
#include "library_home.h"
#include "walk.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define BIAS 0x10000000ull
#define PCS 20000

static unsigned char *image;
static u64 image_start = ~0ull, image_size, text_start, text_end, reads;

static int read_image(void *user, uint64_t address, void *to, size_t size) {
    (void)user;
    reads++;
    if (address < BIAS || address - BIAS + size > image_size) return -1;
    memcpy(to, image + (address - BIAS), size);
    return 0;
}

static void load(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) exit(1);
    fseek(file, 0, SEEK_END);
    long length = ftell(file);
    rewind(file);
    unsigned char *data = malloc((size_t)length);
    if (fread(data, 1, (size_t)length, file) != (size_t)length) exit(1);
    Elf64_Ehdr *header = (Elf64_Ehdr *)data;
    Elf64_Phdr *segments = (Elf64_Phdr *)(data + header->e_phoff);
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD && segments[i].p_vaddr + segments[i].p_memsz > image_size)
            image_size = segments[i].p_vaddr + segments[i].p_memsz;
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD && segments[i].p_vaddr < image_start) image_start = segments[i].p_vaddr;
    image = calloc(1, image_size);
    for (int i = 0; i < header->e_phnum; i++) {
        if (segments[i].p_type != PT_LOAD) continue;
        memcpy(image + segments[i].p_vaddr, data + segments[i].p_offset, segments[i].p_filesz);
        if (segments[i].p_flags & PF_X) {
            text_start = BIAS + segments[i].p_vaddr;
            text_end = text_start + segments[i].p_memsz;
        }
    }
    free(data);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_cfi(struct walk *w, u64 pc) {
    w->code_at = NO_WINDOW;
    w->cfi.cie = 0;
    w->work = WORK_USER;
    int stop = fde_find(w, pc);
    return stop ? stop : cfi_row(w, pc, 0);
}

static int by_sframe(struct walk *w, u64 pc) {
    w->code_at = NO_WINDOW;
    w->work = WORK_USER;
    return sframe_find(w, pc);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    load(argv[1]);
    struct unspool_mapping mapping = {.start = BIAS + image_start, .end = BIAS + image_size, .file = 1, .flags = UNSPOOL_EXECUTABLE};
    struct unspool_context *context = unspool_open(&mapping, 1, NULL);
    unspool_use_reader(context, read_image, NULL);
    struct walk *w = &context->walk;
    w->code_at = NO_WINDOW;
    w->work = WORK_USER;
    static u64 pcs[PCS];
    srandom(1);
    for (u32 i = 0; i < PCS;) {
        u64 pc = text_start + (u64)random() % (text_end - text_start);
        if (module_at(w, pc)) return 1;
        if (!by_cfi(w, pc) && !by_sframe(w, pc)) pcs[i++] = pc;
        if (!i && !w->module.sframe) return 1;
    }
    double cfi = 0, sframe = 0;
    u64 cfi_reads = 0, sframe_reads = 0;
    long rounds = atol(argv[2]);
    for (long round = 0; round < rounds; round++) {
        reads = 0;
        double start = now();
        for (u32 i = 0; i < PCS; i++) by_cfi(w, pcs[i]);
        cfi += now() - start;
        cfi_reads += reads;
        reads = 0;
        start = now();
        for (u32 i = 0; i < PCS; i++) by_sframe(w, pcs[i]);
        sframe += now() - start;
        sframe_reads += reads;
    }
    double lookups = (double)rounds * PCS;
    printf("{\"cfi_ns\": %.1f, \"sframe_ns\": %.1f, \"cfi_reads\": %.2f, \"sframe_reads\": %.2f}\n", cfi / lookups, sframe / lookups,
           (double)cfi_reads / lookups, (double)sframe_reads / lookups);
    return 0;
}
