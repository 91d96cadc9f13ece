// Mutated unwind data and memory through the C walk, under the sanitizers: any bytes in, a marked stack out, in bounded work.
//   fuzz SEED WALKS FILE...     so many walks a file, one line a file; exit 1 when a walk took too long or left nonsense
#define _GNU_SOURCE
#include "library.c"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BASE 0x10000000ULL
#define STACK_START 0x7ff000000000ULL
#define STACK_BYTES 16384
#define FRAMES 512

// A walk that takes longer is a bug: under the sanitizers, on a busy machine, one needs some milliseconds of CPU time.
#define LONGEST_SECONDS 5.0

struct target {
    u8 *image;       // as mapped, mutated
    u8 *original;
    u64 size;
    u64 entry;
    u64 frame_hdr, frame_hdr_size;
    u64 eh_frame, eh_frame_size;
    u64 text, text_size;
};

static u64 random_state;

static u64 random_word(void) {
    // splitmix64
    u64 z = random_state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

static u64 below(u64 limit) {
    return limit ? random_word() % limit : 0;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int load(const char *path, struct target *target) {
    int fd = open(path, O_RDONLY);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat)) return 1;
    u8 *file = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (file == MAP_FAILED) return 1;
    const Elf64_Ehdr *header = (void *)file;
    const Elf64_Phdr *segments = (void *)(file + header->e_phoff);
    memset(target, 0, sizeof(*target));
    for (int i = 0; i < header->e_phnum; i++) {
        u64 end = segments[i].p_vaddr + segments[i].p_memsz;
        if (segments[i].p_type == PT_LOAD && end > target->size) target->size = end;
        if (segments[i].p_type == PT_LOAD && segments[i].p_flags & PF_X) {
            target->text = segments[i].p_vaddr;
            target->text_size = segments[i].p_memsz;
        }
        if (segments[i].p_type == PT_GNU_EH_FRAME) {
            target->frame_hdr = segments[i].p_vaddr;
            target->frame_hdr_size = segments[i].p_memsz;
        }
    }
    target->size = (target->size + 4095) & ~4095ULL;
    target->entry = header->e_entry;
    target->image = calloc(1, target->size);
    target->original = calloc(1, target->size);
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD) memcpy(target->image + segments[i].p_vaddr, file + segments[i].p_offset, segments[i].p_filesz);
    memcpy(target->original, target->image, target->size);
    munmap(file, (size_t)stat.st_size);
    s32 distance;
    memcpy(&distance, target->image + target->frame_hdr + 4, 4);
    target->eh_frame = target->frame_hdr + 4 + (u64)(s64)distance;
    if (target->eh_frame >= target->size) return 1;
    target->eh_frame_size = target->size - target->eh_frame < (1 << 18) ? target->size - target->eh_frame : 1 << 18;
    return 0;
}

static int read_target(void *user, uint64_t address, void *to, size_t size) {
    const struct target *target = user;
    if (address < BASE || size > target->size || address - BASE > target->size - size) return 1;
    memcpy(to, target->image + (address - BASE), size);
    return 0;
}

// Bytes that parsers fear.
static const u8 EVIL[] = {0x00, 0xff, 0x7f, 0x80, 0x0f, 0x10, 0x16, 0x2f, 0x0a, 0x0b, 0xfd, 0x01};

static void mutate_range(struct target *target, u64 start, u64 size) {
    u64 times = 1 + below(24);
    while (times--) {
        u64 at = start + below(size);
        if (at >= target->size) continue;
        switch (below(4)) {
        case 0:
            target->image[at] ^= (u8)(1u << below(8));
            break;
        case 1:
            target->image[at] = EVIL[below(sizeof(EVIL))];
            break;
        case 2:
            target->image[at] = (u8)random_word();
            break;
        default:
            for (u64 i = 0; i < 8 && at + i < target->size; i++) target->image[at + i] = EVIL[below(sizeof(EVIL))];
        }
    }
}

// The FDE that the unchanged table gives for a random place of the table.
static u64 random_fde(const struct target *target, u64 *pc) {
    u64 pairs = (target->frame_hdr_size - 12) / 8;
    s32 pair[2];
    memcpy(pair, target->original + target->frame_hdr + 12 + below(pairs) * 8, 8);
    *pc = target->frame_hdr + (u64)(s64)pair[0];
    return target->frame_hdr + (u64)(s64)pair[1];
}

static void mutate(struct target *target, u64 fde) {
    switch (below(8)) {
    case 0:
        mutate_range(target, 0, 64 + 56 * 14);
        break;
    case 1:
        mutate_range(target, target->frame_hdr, 12);
        break;
    case 2:
        mutate_range(target, target->frame_hdr, target->frame_hdr_size);
        break;
    case 3:
        mutate_range(target, target->eh_frame, 24);
        break;
    case 4:
        mutate_range(target, target->text, target->text_size);
        break;
    default:
        mutate_range(target, fde, 48);
    }
}

static void random_stack(const struct target *target, u8 *stack) {
    for (u64 at = 0; at < STACK_BYTES; at += 8) {
        u64 word = random_word();
        if (below(2)) word = BASE + target->text + below(target->text_size);
        if (below(8) == 0) word = STACK_START + (below(STACK_BYTES) & ~7ULL);
        memcpy(stack + at, &word, 8);
    }
}

static int is_sound(const struct unspool_stack *stack) {
    if (stack->count > FRAMES || !unspool_stop_name(stack->stop) || stack->stop == 0) return 0;
    if (stack->verdict == VERDICT_RELIABLE) return STOP_IS_END(stack->stop) && stack->first_bad_frame == NO_BAD_FRAME;
    return stack->verdict == VERDICT_UNRELIABLE && stack->first_bad_frame < (stack->count ? stack->count : 1) && stack->reason != 0;
}

static int walk_mutant(struct target *target, u64 pc, u8 *bytes) {
    struct unspool_mapping mappings[2] = {
        {.start = BASE, .end = BASE + target->size, .file = 1, .flags = UNSPOOL_EXECUTABLE},
        {.start = STACK_START, .end = STACK_START + STACK_BYTES, .flags = UNSPOOL_WRITABLE},
    };
    struct unspool_ends ends = {.process_entry = BASE + target->entry, .initial_sp = STACK_START + STACK_BYTES - 64};
    struct unspool_context *context = unspool_open(mappings, 2, &ends);
    struct unspool_thread thread = {.ip = BASE + pc + below(64), .thread_pointer = STACK_START + STACK_BYTES - 32, .known = REGS_ALL};
    for (int i = 0; i < 16; i++) thread.values[i] = below(3) ? STACK_START + (below(STACK_BYTES) & ~7ULL) : random_word();
    thread.values[REG_RSP] = STACK_START + (below(STACK_BYTES / 2) & ~7ULL);
    uint64_t originals[2] = {BASE + pc, BASE + target->text + 7};
    thread.original_returns = below(2) ? originals : NULL;
    thread.original_count = 2;
    struct unspool_frame frames[FRAMES];
    struct unspool_stack stack = {.frames = frames, .capacity = FRAMES};
    if (below(2)) unspool_use_birth(context, BASE + pc - below(64), thread.values[REG_RSP] + 8 * below(32), STACK_START + below(STACK_BYTES));
    unspool_use_reader(context, read_target, target);
    unspool_use_bytes(context, STACK_START, bytes, STACK_BYTES - below(2) * 100);
    unspool_walk(context, &thread, &stack);
    unspool_close(context);
    return is_sound(&stack) ? (int)stack.stop : -1;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    u64 most = strtoull(argv[2], NULL, 10);
    u8 *bytes = malloc(STACK_BYTES);
    for (int i = 3; i < argc; i++) {
        struct target target;
        random_state = strtoull(argv[1], NULL, 10) + (u64)i;
        if (load(argv[i], &target)) return 2;
        u64 walks = 0, kinds = 0;
        double worst = 0;
        for (; walks < most; walks++) {
            u64 pc, fde = random_fde(&target, &pc);
            mutate(&target, fde);
            random_stack(&target, bytes);
            double before = seconds();
            int stop = walk_mutant(&target, pc, bytes);
            double took = seconds() - before;
            if (took > worst) worst = took;
            if (stop < 0 || took > LONGEST_SECONDS) {
                printf("%s: walk %llu: stop %d, %.3f s\n", argv[i], walks, stop, took);
                return 1;
            }
            kinds |= 1ULL << (stop & 63);
            // Now and then the damage stays, so that it adds up.
            if (below(4)) memcpy(target.image, target.original, target.size);
        }
        printf("%s: %llu walks, %d kinds of stops, longest %.1f ms\n", argv[i], walks, __builtin_popcountll(kinds), worst * 1e3);
        free(target.image);
        free(target.original);
    }
    free(bytes);
    return 0;
}
