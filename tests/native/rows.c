// Prints the rows of an ELF file as the C walk decides them: for each pc (hexadecimal, stated address) on standard input one line.
//   rows FILE < pcs
#define _GNU_SOURCE
#include "library.c"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// Where the file's first byte is "mapped".
#define BIAS 0x10000000ULL

static u8 *image;
static u64 image_start, image_end;

static int read_image(void *user, uint64_t address, void *to, size_t size) {
    (void)user;
    if (address < image_start || address + size > image_end || address + size < address) return 1;
    memcpy(to, image + (address - image_start), size);
    return 0;
}

// The file's segments at their stated addresses, plus BIAS.
static void load(const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat)) exit(2);
    u8 *file = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    const Elf64_Ehdr *header = (void *)file;
    const Elf64_Phdr *segments = (void *)(file + header->e_phoff);
    u64 low = ~0ULL, high = 0;
    for (int i = 0; i < header->e_phnum; i++) {
        if (segments[i].p_type != PT_LOAD) continue;
        if (segments[i].p_vaddr < low) low = segments[i].p_vaddr & ~4095ULL;
        if (segments[i].p_vaddr + segments[i].p_memsz > high) high = segments[i].p_vaddr + segments[i].p_memsz;
    }
    high = (high + 4095) & ~4095ULL;
    image = calloc(1, high - low);
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD) memcpy(image + segments[i].p_vaddr - low, file + segments[i].p_offset, segments[i].p_filesz);
    image_start = BIAS + low;
    image_end = BIAS + high;
}

static const char *const NAMES[16] = {"rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"};

static void print_rule(const char *name, struct rule rule) {
    if (rule.kind == RULE_SAME) return;
    printf(" %s=", name);
    if (rule.kind == RULE_AT_CFA) printf("c%+d", rule.offset);
    if (rule.kind == RULE_CFA_VALUE) printf("v%+d", rule.offset);
    if (rule.kind == RULE_AT_REG) printf("exp");
    if (rule.kind == RULE_REG_VALUE) printf("%s", rule.offset ? "vexp" : NAMES[rule.base]);
    if (rule.kind == RULE_UNDEFINED) printf("u");
    if (rule.kind == RULE_UNSUPPORTED) printf("unsupported");
}

static void print_row(u64 pc, const struct row *row) {
    printf("%llx", pc);
    if (row->flags & ROW_STOP) {
        printf(" %s\n", unspool_stop_name(row->stop));
        return;
    }
    if (row->cfa_kind == CFA_REG || row->cfa_kind == CFA_FORM) printf(" %s%+d", NAMES[row->cfa_base], row->cfa_offset);
    if (row->cfa_kind == CFA_DEREF) printf(" exp");
    if (row->flags & ROW_OUTERMOST) {
        printf(" ra=u\n");
        return;
    }
    static const char *const SLOTS[SLOT_COUNT] = {"rbx", "rbp", "r12", "r13", "r14", "r15", "ra", "rsp"};
    for (u32 slot = 0; slot < SLOT_COUNT; slot++) print_rule(SLOTS[slot], row->rules[slot]);
    printf("\n");
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    load(argv[1]);
    struct unspool_mapping mapping = {.start = image_start, .end = image_end, .file = 1, .flags = UNSPOOL_EXECUTABLE};
    struct unspool_context *context = unspool_open(&mapping, 1, NULL);
    unspool_use_reader(context, read_image, NULL);
    struct walk *w = &context->walk;
    w->code_at = NO_WINDOW;
    unsigned long long pc;
    while (scanf("%llx", &pc) == 1) {
        w->ip = pc + BIAS;
        w->exact = 1;
        w->work = WORK_USER;
        int stop = row_decide(w);
        if (stop) row_stop(w, (u32)stop);
        print_row(pc, &w->row);
    }
    unspool_close(context);
    return 0;
}
