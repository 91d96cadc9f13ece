/* elfutils' unwinder (libdw) over the stepper's states: libdw STATES ANSWERS. */
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <unistd.h>

#include "states.h"

static Dwfl *dwfl;

static int find_elf(Dwfl_Module *module, void **data, const char *name, Dwarf_Addr base, char **file, Elf **elf)
{
    (void)module, (void)data, (void)base;
    if (name[0] == '/') {
        int fd = open(name, O_RDONLY);
        *file = fd >= 0 ? strdup(name) : NULL;
        return fd;
    }
    if (vdso_bytes && base == vdso_address)
        *elf = elf_memory((char *)vdso_bytes, vdso_size);
    return -1;
}

static int no_debuginfo(Dwfl_Module *module, void **data, const char *name, Dwarf_Addr base, const char *file, const char *link, GElf_Word crc,
                        char **found)
{
    (void)module, (void)data, (void)name, (void)base, (void)file, (void)link, (void)crc, (void)found;
    return -1;
}

static const Dwfl_Callbacks callbacks = {.find_elf = find_elf, .find_debuginfo = no_debuginfo};

static pid_t next_thread(Dwfl *d, void *arg, void **thread)
{
    (void)d, (void)arg;
    if (*thread)
        return 0;
    *thread = &current;
    return (pid_t)current.tid;
}

static bool get_thread(Dwfl *d, pid_t tid, void *arg, void **thread)
{
    (void)d, (void)arg, (void)tid;
    *thread = &current;
    return true;
}

static bool memory_read(Dwfl *d, Dwarf_Addr address, Dwarf_Word *result, void *arg)
{
    (void)d, (void)arg;
    return stack_word(address, result);
}

static bool initial_registers(Dwfl_Thread *thread, void *arg)
{
    (void)arg;
    Dwarf_Word registers[17];
    memcpy(registers, current.registers, sizeof registers);
    return dwfl_thread_state_registers(thread, 0, 17, registers);
}

static const Dwfl_Thread_Callbacks thread_callbacks = {
    .next_thread = next_thread, .get_thread = get_thread, .memory_read = memory_read, .set_initial_registers = initial_registers};

static int frame(Dwfl_Frame *f, void *arg)
{
    (void)arg;
    Dwarf_Addr pc;
    bool exact;
    if (!dwfl_frame_pc(f, &pc, &exact))
        return DWARF_CB_ABORT;
    add_frame(pc, exact);
    return answer_frames < FRAMES_MAX ? DWARF_CB_OK : DWARF_CB_ABORT;
}

static void report_modules(void)
{
    if (dwfl)
        dwfl_end(dwfl);
    dwfl = dwfl_begin(&callbacks);
    dwfl_report_begin(dwfl);
    FILE *maps = fmemopen(current_maps, current_maps_size, "r");
    dwfl_linux_proc_maps_report(dwfl, maps);
    fclose(maps);
    if (vdso_bytes)
        dwfl_report_module(dwfl, "[vdso]", vdso_address, vdso_address + vdso_size);
    dwfl_report_end(dwfl, NULL, NULL);
    if (!dwfl_attach_state(dwfl, NULL, (pid_t)current.tid, &thread_callbacks, NULL))
        fprintf(stderr, "libdw: %s\n", dwfl_errmsg(-1));
    maps_are_new = 0;
}

static int unwind(void)
{
    if (maps_are_new)
        report_modules();
    int failed = dwfl_getthread_frames(dwfl, (pid_t)current.tid, frame, NULL);
    if (!answer_frames)
        add_frame(current.registers[16], 1);
    return failed == 0;
}

int main(int argc, char **argv) { return argc == 3 ? each_state(argv[1], argv[2], unwind) : 2; }
