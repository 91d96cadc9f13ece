/* libunwind over the stepper's states, through its remote interface: libunwind STATES ANSWERS. */
#include <elf.h>
#include <fcntl.h>
#include <libunwind-x86_64.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "states.h"

/* Exported by libunwind-x86_64 for callers with their own address space, as perf is one. */
extern int UNW_OBJ(dwarf_search_unwind_table)(unw_addr_space_t, unw_word_t, unw_dyn_info_t *, unw_proc_info_t *, int, void *);
#define dwarf_search_unwind_table UNW_OBJ(dwarf_search_unwind_table)

struct file {
    char path[512];
    uint8_t *bytes;
    size_t size;
};

struct module {
    uint64_t start, end, offset;
    struct file *file;
};

static struct file files[256];
static int file_count;
static struct module modules[4096];
static int module_count;
static unw_addr_space_t space;

static struct file *file_of(const char *path)
{
    for (int i = 0; i < file_count; i++)
        if (!strcmp(files[i].path, path))
            return &files[i];
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (file_count == 256 || fd < 0 || fstat(fd, &st))
        return NULL;
    struct file *f = &files[file_count++];
    snprintf(f->path, sizeof f->path, "%s", path);
    f->size = (size_t)st.st_size;
    f->bytes = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    return f;
}

static void read_modules(void)
{
    static struct file vdso;
    module_count = 0;
    vdso = (struct file){.bytes = vdso_bytes, .size = vdso_size};
    for (char *line = current_maps; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        unsigned long long start, end, offset;
        char mode[8], path[512] = "";
        if (sscanf(line, "%llx-%llx %7s %llx %*s %*s %511[^\n]", &start, &end, mode, &offset, path) < 4 || module_count == 4096)
            continue;
        struct file *f = path[0] == '/' ? file_of(path) : start == vdso_address ? &vdso : NULL;
        if (f && f->bytes) /* of writable ones what the file holds: it reads a personality pointer there, and does not use it */
            modules[module_count++] = (struct module){start, end, offset, f};
    }
    maps_are_new = 0;
}

static struct module *module_at(uint64_t address)
{
    for (int i = 0; i < module_count; i++)
        if (address >= modules[i].start && address < modules[i].end)
            return &modules[i];
    return NULL;
}

static int file_word(uint64_t address, uint64_t *value)
{
    struct module *m = module_at(address);
    uint64_t at = m ? address - m->start + m->offset : 0;
    if (!m || address + 8 > m->end || at + 8 > m->file->size)
        return 0;
    memcpy(value, m->file->bytes + at, 8);
    return 1;
}

/* The load address of the file that is mapped there, from the program header that holds the offset. */
static int bias_of(struct module *m, uint64_t *bias, const Elf64_Phdr **hdr)
{
    const Elf64_Ehdr *elf = (const void *)m->file->bytes;
    const Elf64_Phdr *ph = (const void *)(m->file->bytes + elf->e_phoff);
    int found = 0;
    *hdr = NULL;
    for (int i = 0; i < elf->e_phnum; i++) {
        if (ph[i].p_type == PT_GNU_EH_FRAME)
            *hdr = &ph[i];
        uint64_t first = ph[i].p_offset & ~0xfffull; /* lld's segments share pages: the one that begins at the mapping is the one */
        int inside = m->offset >= first && m->offset < ph[i].p_offset + ph[i].p_filesz;
        if (ph[i].p_type == PT_LOAD && (m->offset == first || (inside && !found))) {
            *bias = m->start - (m->offset - ph[i].p_offset + ph[i].p_vaddr);
            found = 1;
        }
    }
    return found && *hdr;
}

static int find_proc_info(unw_addr_space_t as, unw_word_t ip, unw_proc_info_t *info, int need, void *arg)
{
    struct module *m = module_at(ip);
    const Elf64_Phdr *hdr;
    uint64_t bias = 0;
    if (!m || !bias_of(m, &bias, &hdr))
        return -UNW_ENOINFO;
    const uint8_t *table = m->file->bytes + hdr->p_offset;
    if (table[2] != 0x03 || table[3] != 0x3b) /* udata4, datarel|sdata4: what the linkers write */
        return -UNW_ENOINFO;
    uint32_t count;
    memcpy(&count, table + 8, 4);
    unw_dyn_info_t di = {.format = UNW_INFO_FORMAT_REMOTE_TABLE, .start_ip = m->start, .end_ip = m->end};
    di.u.rti.segbase = bias + hdr->p_vaddr;
    di.u.rti.table_data = bias + hdr->p_vaddr + 12;
    di.u.rti.table_len = count * 8ul / sizeof(unw_word_t);
    return dwarf_search_unwind_table(as, ip, &di, info, need, arg);
}

static void put_unwind_info(unw_addr_space_t as, unw_proc_info_t *info, void *arg) { (void)as, (void)info, (void)arg; }

static int no_dyn_list(unw_addr_space_t as, unw_word_t *address, void *arg)
{
    (void)as, (void)address, (void)arg;
    return -UNW_ENOINFO;
}

static int access_mem(unw_addr_space_t as, unw_word_t address, unw_word_t *value, int write, void *arg)
{
    (void)as, (void)arg;
    return !write && (stack_word(address, value) || file_word(address, value)) ? 0 : -UNW_EINVAL;
}

static int access_reg(unw_addr_space_t as, unw_regnum_t number, unw_word_t *value, int write, void *arg)
{
    (void)as, (void)arg;
    if (write || number < 0 || number > 16)
        return -UNW_EBADREG;
    *value = current.registers[number]; /* UNW_X86_64_* are the DWARF numbers */
    return 0;
}

static int access_fpreg(unw_addr_space_t as, unw_regnum_t number, unw_fpreg_t *value, int write, void *arg)
{
    (void)as, (void)number, (void)value, (void)write, (void)arg;
    return -UNW_EBADREG;
}

static int resume(unw_addr_space_t as, unw_cursor_t *cursor, void *arg)
{
    (void)as, (void)cursor, (void)arg;
    return -UNW_EINVAL;
}

static int proc_name(unw_addr_space_t as, unw_word_t address, char *name, size_t size, unw_word_t *offset, void *arg)
{
    (void)as, (void)address, (void)name, (void)size, (void)offset, (void)arg;
    return -UNW_ENOINFO;
}

static unw_accessors_t accessors = {find_proc_info, put_unwind_info, no_dyn_list, access_mem, access_reg, access_fpreg, resume, proc_name};

static int unwind(void)
{
    if (maps_are_new)
        read_modules();
    unw_cursor_t cursor;
    unw_word_t ip;
    int more = unw_init_remote(&cursor, space, NULL), exact = 1;
    if (more < 0) {
        add_frame(current.registers[16], 1);
        return 0;
    }
    do {
        unw_get_reg(&cursor, UNW_REG_IP, &ip);
        if (!ip)
            break;
        add_frame(ip, exact);
        exact = unw_is_signal_frame(&cursor) > 0;
        more = unw_step(&cursor);
    } while (more > 0 && answer_frames < FRAMES_MAX);
    return more == 0;
}

int main(int argc, char **argv)
{
    space = unw_create_addr_space(&accessors, 0);
    unw_set_caching_policy(space, UNW_CACHE_NONE);
    return argc == 3 && space ? each_state(argv[1], argv[2], unwind) : 2;
}
