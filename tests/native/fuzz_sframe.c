// Damaged SFrame sections read by the walk's own code under sanitizers: fuzz_sframe FILE ROUNDS SEED. FILE has .sframe (unspool sframe make).
// Every lookup ends, with a row or a stop; what is not bounded by the checks of sframe.h the sanitizers report.
#define _GNU_SOURCE
#include "library_home.h"
#include "walk.h"

#include <elf.h>
#include <stdio.h>

#define BIAS 0x10000000ull
#define PT_SFRAME 0x6474e554

static u8 *image, *sound;
static u64 image_start = ~0ull, image_size, text_start, text_end, at, size;
static u64 state;

static u64 number(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int read_image(void *user, uint64_t address, void *to, size_t length) {
    (void)user;
    if (address < BIAS || address - BIAS > image_size || length > image_size - (address - BIAS)) return -1;
    memcpy(to, image + (address - BIAS), length);
    return 0;
}

static int load(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return 1;
    fseek(file, 0, SEEK_END);
    size_t length = (size_t)ftell(file);
    rewind(file);
    u8 *data = malloc(length);
    if (!data || fread(data, 1, length, file) != length) return 1;
    fclose(file);
    Elf64_Ehdr *header = (Elf64_Ehdr *)data;
    Elf64_Phdr *segments = (Elf64_Phdr *)(data + header->e_phoff);
    for (int i = 0; i < header->e_phnum; i++) {
        if (segments[i].p_type == PT_LOAD && segments[i].p_vaddr + segments[i].p_memsz > image_size)
            image_size = segments[i].p_vaddr + segments[i].p_memsz;
        if (segments[i].p_type == PT_LOAD && segments[i].p_vaddr < image_start) image_start = segments[i].p_vaddr;
    }
    image = calloc(1, image_size);
    for (int i = 0; i < header->e_phnum; i++) {
        if (segments[i].p_type == PT_LOAD) memcpy(image + segments[i].p_vaddr, data + segments[i].p_offset, segments[i].p_filesz);
        if (segments[i].p_type == PT_LOAD && segments[i].p_flags & PF_X) {
            text_start = segments[i].p_vaddr;
            text_end = text_start + segments[i].p_memsz;
        }
        if (segments[i].p_type == PT_SFRAME) {
            at = segments[i].p_vaddr;
            size = segments[i].p_filesz;
        }
    }
    free(data);
    sound = malloc(size ? size : 1);
    if (size) memcpy(sound, image + at, size);
    return !size || !text_end;
}

int main(int argc, char **argv) {
    if (argc != 4 || load(argv[1])) return 2;
    state = strtoull(argv[3], NULL, 10) * 2654435761u + 1;
    struct unspool_mapping mapping = {.start = BIAS + image_start, .end = BIAS + image_size, .file = 1, .flags = UNSPOOL_EXECUTABLE};
    u64 found = 0, refused = 0, dropped = 0;
    for (u64 round = 0; round < strtoull(argv[2], NULL, 10); round++) {
        // Half of the damage is in the header and the index, where it leads furthest.
        for (u64 i = 0, count = 1 + number() % 8; i < count; i++) image[at + number() % (number() & 1 && size > 512 ? 512 : size)] = (u8)number();
        struct unspool_context *context = unspool_open(&mapping, 1, NULL);
        unspool_use_reader(context, read_image, NULL);
        struct walk *w = &context->walk;
        for (u32 lookup = 0; lookup < 24; lookup++) {
            u64 pc = BIAS + text_start + number() % (text_end - text_start);
            w->code_at = NO_WINDOW;
            w->work = WORK_IMMEDIATE;
            w->exact = 1;
            w->ip = pc;
            int stop = row_decide(w);
            if (stop && !is_passing((u32)stop)) return 3;
            if (!stop && w->row.flags & ROW_SFRAME) found++;
            else refused++;
        }
        dropped += (w->module.flags & MODULE_BAD_SFRAME) != 0;
        unspool_close(context);
        memcpy(image + at, sound, size);
    }
    printf("found %llu, not found %llu, sections dropped %llu\n", found, refused, dropped);
    return found && dropped ? 0 : 4;
}
