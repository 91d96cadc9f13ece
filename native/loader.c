// Loads and attaches the sampler with libbpf, and hands its records over. capture.h documents every function.
#define _GNU_SOURCE
#include "capture.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel_types.h"
#include "record.h"

// Programs that sample in a context of their own, each with its working memory on every CPU: perf event, tracepoint.
#define CONTEXTS 2

// The end of libbpf's log that is kept: the verifier says what is wrong in its last lines.
#define LOG_SIZE 16384

struct sampler {
    struct bpf_object *object;
    struct ring_buffer *ring;
    struct bpf_link **links;
    int *events;
    u32 n_links;
    u32 n_events;
    u32 room;  // of links and events
    u32 cpus;
    int hardware;
    u8 *buffer;
    u64 used;
    u64 size;
    struct unread_file unread[UNREAD_MAX];
    u32 n_unread;
    u32 learned;
};

static char log_text[LOG_SIZE];
static u32 log_used;

// Append to the log, of which the last LOG_SIZE bytes are kept.
static void append(const char *text, u64 length) {
    if (length >= LOG_SIZE) {
        text += length - (LOG_SIZE - 1);
        length = LOG_SIZE - 1;
    }
    u64 keep = LOG_SIZE - 1 - length;
    keep = keep < log_used ? keep : log_used;
    memmove(log_text, log_text + log_used - keep, keep);
    memcpy(log_text + keep, text, length);
    log_used = (u32)(keep + length);
    log_text[log_used] = 0;
}

static int keep_log(enum libbpf_print_level level, const char *format, va_list arguments) {
    char *text = NULL;
    int length = level == LIBBPF_DEBUG ? 0 : vasprintf(&text, format, arguments);
    if (length > 0)
        append(text, (u64)length);
    free(text);
    return 0;
}

static void fail(const char *what, int error) {
    char text[256];
    int length = snprintf(text, sizeof(text), "%s: %s\n", what, strerror(error));
    append(text, (u64)length < sizeof(text) ? (u64)length : sizeof(text) - 1);
    errno = error;
}

const char *unspool_sampler_error(void) {
    return log_text;
}

// Reading a page from outside puts it into the process's page table (mm/process_vm_access.c): the next sample finds it.
static void bring_in(const struct record *record) {
    char byte;
    struct iovec local = {.iov_base = &byte, .iov_len = 1};
    struct iovec remote = {.iov_base = (void *)record->stop_address, .iov_len = 1};
    // A process that is gone, or may not be read, has no next sample that could be whole.
    if (process_vm_readv((pid_t)record->pid, &local, 1, &remote, 1, 0) < 0)
        return;
}

static void note_unread(struct sampler *sampler, const struct record *record) {
    for (u32 i = 0; i < sampler->n_unread; i++)
        if (sampler->unread[i].key == record->unread)
            return;
    struct unread_file file = {.key = record->unread, .pid = record->pid, .address = record->stop_address};
    if (sampler->n_unread < UNREAD_MAX)
        sampler->unread[sampler->n_unread++] = file;
}

// In the ring the user's frames come first, for they are found first; as the reader gets them, the kernel's, which are the inner ones.
static int copy_record(void *context, void *data, size_t size) {
    struct sampler *sampler = context;
    const struct record *record = data;
    const u8 *frames = (const u8 *)data + sizeof(*record);
    u64 user = record->n_user * sizeof(u64), kernel = record->n_kernel * sizeof(u64);
    u8 *to = sampler->buffer + sampler->used;
    // The ring's own length is rounded up to 8; a record that says more than it has is none of ours.
    if (sizeof(*record) + user + kernel > size || record->size != sizeof(*record) + user + kernel)
        return 0;
    memcpy(to, record, sizeof(*record));
    memcpy(to + sizeof(*record), frames + user, kernel);
    memcpy(to + sizeof(*record) + kernel, frames, user);
    sampler->used += record->size;
    if (record->unread)
        note_unread(sampler, record);
    if (record->flags & RECORD_MISSING)
        bring_in(record);
    // libbpf counts the record as consumed when the callback fails, so it fails after the copy: no room for another of the largest size.
    return sampler->size - sampler->used < RECORD_SIZE_MAX ? -ENOSPC : 0;
}

static int set_autoload(struct bpf_object *object, u32 trigger) {
    struct bpf_program *program;
    bpf_object__for_each_program(program, object) {
        const char *name = bpf_program__name(program);
        int wanted = 1;
        if (!strcmp(name, "sample_cpu"))
            wanted = trigger == TRIGGER_CPU;
        if (!strcmp(name, "sample_syscall"))
            wanted = trigger == TRIGGER_SYSCALL;
        bpf_program__set_autoload(program, wanted);
    }
    return 0;
}

// The number of the function that queues a callback, 0 when the kernel (before 6.18) has none. 6.18 and 6.19 have the name with _impl,
// later kernels both, with the same arguments but for the last, which the verifier fills in.
static int task_work_function(const struct btf *kernel) {
    int id = kernel ? btf__find_by_name_kind(kernel, "bpf_task_work_schedule_resume_impl", BTF_KIND_FUNC) : 0;
    if (kernel && id <= 0)
        id = btf__find_by_name_kind(kernel, "bpf_task_work_schedule_resume", BTF_KIND_FUNC);
    return id > 0 ? id : 0;
}

// Put the function's number where TASK_WORK_RESUME is called; 1, or 0 when there is none (then the call is never reached: config.deferral).
static u32 bind_task_work(struct bpf_object *object, const struct btf *kernel) {
    int id = task_work_function(kernel);
    struct bpf_program *program;
    bpf_object__for_each_program(program, object) {
        struct bpf_insn *code = (struct bpf_insn *)bpf_program__insns(program);
        for (size_t i = 0; id && i < bpf_program__insn_cnt(program); i++)
            if (code[i].code == (BPF_JMP | BPF_CALL) && !code[i].src_reg && code[i].imm == TASK_WORK_RESUME)
                code[i] = (struct bpf_insn){.code = BPF_JMP | BPF_CALL, .src_reg = BPF_PSEUDO_KFUNC_CALL, .imm = id};
    }
    return id != 0;
}

static int configure(struct sampler *sampler, const struct sampler_config *config, u64 ring_size, const struct btf *kernel) {
    struct sampler_config mine = *config;
    mine.cpus = sampler->cpus;
    mine.deferral = bind_task_work(sampler->object, kernel);
    struct bpf_map *constants = bpf_object__find_map_by_name(sampler->object, ".rodata.config");
    struct bpf_map *ring = bpf_object__find_map_by_name(sampler->object, "samples");
    struct bpf_map *jobs = bpf_object__find_map_by_name(sampler->object, "jobs");
    if (!constants || !ring || !jobs)
        return -ENOENT;
    int error = bpf_map__set_initial_value(constants, &mine, sizeof(mine));
    error = error ? error : bpf_map__set_max_entries(ring, (u32)ring_size);
    error = error ? error : bpf_map__set_max_entries(jobs, sampler->cpus * CONTEXTS + POOL_SIZE);
    return error ? error : set_autoload(sampler->object, config->trigger);
}

static struct bpf_object *open_object(const void *object, u64 size, const char *types) {
    LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = "unspool", .btf_custom_path = types);
    return bpf_object__open_mem(object, size, &options);
}

static int write_types(const struct bpf_object *object, const struct btf *kernel, int file) {
    struct btf *types = kernel_types_named(kernel, bpf_object__btf(object));
    u32 size = 0;
    const void *data = types ? btf__raw_data(types, &size) : NULL;
    int written = data && write(file, data, size) == (ssize_t)size;
    btf__free(types);
    return written;
}

// The object, which will find in `file` the kernel's types that it needs: 20 ms less than when libbpf looks for them in all types.
static struct bpf_object *open_with_types(const void *object, u64 size, const struct btf *kernel, int file) {
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    struct bpf_object *opened = kernel && file >= 0 ? open_object(object, size, path) : NULL;
    if (opened && write_types(opened, kernel, file))
        return opened;
    bpf_object__close(opened);
    return open_object(object, size, NULL);
}

static int attach_helpers(struct sampler *sampler);

// Open, configure and load the programs; 0 or -errno, and in `what` what was not possible.
static int load_programs(struct sampler *sampler, const void *object, u64 size, const struct sampler_config *config, u64 ring_size,
                         const char **what) {
    struct btf *kernel = btf__load_vmlinux_btf();
    int types = memfd_create("unspool-types", MFD_CLOEXEC);
    *what = "the BPF object cannot be opened";
    sampler->object = open_with_types(object, size, kernel, types);
    int error = sampler->object ? configure(sampler, config, ring_size, kernel) : -(errno ? errno : ENOMEM);
    btf__free(kernel);
    if (!error) {
        *what = "the kernel does not load the BPF programs";
        error = bpf_object__load(sampler->object);
    }
    if (types >= 0)
        close(types);
    return error;
}

struct sampler *unspool_sampler_load(const void *object, u64 size, const struct sampler_config *config, u64 ring_size) {
    libbpf_set_print(keep_log);
    log_used = 0;
    log_text[0] = 0;
    int cpus = libbpf_num_possible_cpus();
    struct sampler *sampler = calloc(1, sizeof(*sampler));
    if (!sampler || cpus <= 0) {
        free(sampler);
        fail("no memory, or no CPUs", cpus < 0 ? -cpus : ENOMEM);
        return NULL;
    }
    sampler->cpus = (u32)cpus;
    sampler->room = (u32)cpus + 8;
    sampler->links = calloc(sampler->room, sizeof(*sampler->links));
    sampler->events = calloc(sampler->room, sizeof(*sampler->events));
    const char *what = "no memory";
    int error = sampler->links && sampler->events ? load_programs(sampler, object, size, config, ring_size, &what) : -ENOMEM;
    if (!error) {
        what = "the BPF programs cannot be attached";
        error = attach_helpers(sampler);
    }
    if (!error)
        return sampler;
    fail(what, -error);
    int kept = errno;
    unspool_sampler_close(sampler);
    errno = kept;
    return NULL;
}

static int map_fd(const struct sampler *sampler, const char *name) {
    return bpf_object__find_map_fd_by_name(sampler->object, name);
}

static int keep_link(struct sampler *sampler, struct bpf_link *link) {
    if (!link)
        return -errno;
    if (sampler->n_links == sampler->room) {
        bpf_link__destroy(link);
        return -E2BIG;
    }
    sampler->links[sampler->n_links++] = link;
    return 0;
}

static int attach_tracepoint(struct sampler *sampler, const char *program, const char *tracepoint) {
    struct bpf_program *found = bpf_object__find_program_by_name(sampler->object, program);
    return found ? keep_link(sampler, bpf_program__attach_raw_tracepoint(found, tracepoint)) : -ENOENT;
}

// What runs in every recording: forks and exits, and the ring's reader. These links stay until close; those of the triggers come behind
// them.
static int attach_helpers(struct sampler *sampler) {
    sampler->ring = ring_buffer__new(map_fd(sampler, "samples"), copy_record, sampler, NULL);
    if (!sampler->ring)
        return -errno;
    int error = attach_tracepoint(sampler, "task_exit", "sched_process_exit");
    return error ? error : attach_tracepoint(sampler, "task_fork", "sched_process_fork");
}

#define HELPER_LINKS 2

static int open_event(u32 cpu, u32 frequency, int hardware) {
    struct perf_event_attr attributes = {
        .type = hardware ? PERF_TYPE_HARDWARE : PERF_TYPE_SOFTWARE,
        .size = sizeof(attributes),
        .config = hardware ? PERF_COUNT_HW_CPU_CYCLES : PERF_COUNT_SW_CPU_CLOCK,
        .freq = 1,
        .sample_freq = frequency,
    };
    int fd = (int)syscall(SYS_perf_event_open, &attributes, -1, (int)cpu, -1, PERF_FLAG_FD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int start_on(struct sampler *sampler, struct bpf_program *program, u32 cpu, u32 frequency) {
    int fd = open_event(cpu, frequency, sampler->hardware);
    // ENODEV: the CPU is possible, not online.
    if (fd < 0)
        return fd == -ENODEV ? 0 : fd;
    sampler->events[sampler->n_events++] = fd;
    return keep_link(sampler, bpf_program__attach_perf_event(program, fd));
}

static int has_hardware(u32 cpus, u32 frequency) {
    for (u32 cpu = 0; cpu < cpus; cpu++) {
        int fd = open_event(cpu, frequency, 1);
        if (fd >= 0) {
            close(fd);
            return 1;
        }
    }
    return 0;
}

int unspool_sampler_start_cpu(struct sampler *sampler, u32 frequency, int hardware) {
    struct bpf_program *program = bpf_object__find_program_by_name(sampler->object, "sample_cpu");
    if (!program || sampler->n_events)
        return -EINVAL;
    sampler->hardware = hardware && has_hardware(sampler->cpus, frequency);
    for (u32 cpu = 0; cpu < sampler->cpus; cpu++) {
        int error = start_on(sampler, program, cpu, frequency);
        if (error) {
            fail("perf_event_open", -error);
            return error;
        }
    }
    return sampler->n_events ? 0 : -ENODEV;
}

int unspool_sampler_start_syscalls(struct sampler *sampler) {
    int error = attach_tracepoint(sampler, "sample_syscall", "sys_enter");
    if (error)
        fail("raw tracepoint sys_enter", -error);
    return error;
}

int unspool_sampler_is_hardware(const struct sampler *sampler) {
    return sampler->hardware;
}

int unspool_sampler_watch(struct sampler *sampler, u32 kind, u32 id, int on) {
    struct target target = {.kind = kind, .id = id};
    u32 value = 1;
    int fd = map_fd(sampler, "targets");
    int error = on ? bpf_map_update_elem(fd, &target, &value, BPF_ANY) : bpf_map_delete_elem(fd, &target);
    return error ? -errno : 0;
}

s64 unspool_sampler_drain(struct sampler *sampler, void *buffer, u64 size) {
    if (size < RECORD_SIZE_MAX)
        return -EINVAL;
    sampler->buffer = buffer;
    sampler->size = size;
    sampler->used = 0;
    sampler->n_unread = 0;
    int taken = ring_buffer__consume(sampler->ring);
    sampler->buffer = NULL;
    return taken < 0 && taken != -ENOSPC ? taken : (s64)sampler->used;
}

u32 unspool_sampler_unread(struct sampler *sampler, struct unread_file *files) {
    memcpy(files, sampler->unread, sampler->n_unread * sizeof(*files));
    return sampler->n_unread;
}

int unspool_sampler_frame_section(struct sampler *sampler, u32 key, u64 start, u64 end) {
    struct frame_section section = {.start = start, .end = end};
    u32 zero = 0;
    // What was decided without it is forgotten: the number is part of every module's name.
    u32 learned = ++sampler->learned;
    if (bpf_map_update_elem(map_fd(sampler, "frame_sections"), &key, &section, BPF_ANY))
        return -errno;
    return bpf_map_update_elem(map_fd(sampler, "learned"), &zero, &learned, BPF_ANY) ? -errno : 0;
}

// Runs that the kernel dropped because the program was running on that CPU already.
static u64 missed_runs(const struct sampler *sampler) {
    u64 missed = 0;
    struct bpf_program *program;
    bpf_object__for_each_program(program, sampler->object) {
        struct bpf_prog_info info = {0};
        u32 size = sizeof(info);
        if (bpf_program__autoload(program) && !bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size))
            missed += info.recursion_misses;
    }
    return missed;
}

int unspool_sampler_counters(const struct sampler *sampler, u64 *values, u32 number) {
    int fd = map_fd(sampler, "counters");
    u64 *rows = calloc(sampler->cpus, sizeof(*rows));
    int error = rows ? 0 : -ENOMEM;
    for (u32 which = 0; !error && which < number && which < COUNT_MAX; which++) {
        error = bpf_map_lookup_elem(fd, &which, rows) ? -errno : 0;
        values[which] = 0;
        for (u32 cpu = 0; !error && cpu < sampler->cpus; cpu++)
            values[which] += rows[cpu];
    }
    free(rows);
    if (!error && number > COUNT_LOST_NESTED)
        values[COUNT_LOST_NESTED] = missed_runs(sampler);
    return error;
}

void unspool_sampler_stop(struct sampler *sampler) {
    while (sampler->n_links > HELPER_LINKS)
        bpf_link__destroy(sampler->links[--sampler->n_links]);
    while (sampler->n_events)
        close(sampler->events[--sampler->n_events]);
}

int unspool_sampler_flush(struct sampler *sampler) {
    struct bpf_program *program = bpf_object__find_program_by_name(sampler->object, "flush_pending");
    LIBBPF_OPTS(bpf_test_run_opts, options);
    if (!program)
        return -ENOENT;
    int error = bpf_prog_test_run_opts(bpf_program__fd(program), &options);
    return error < 0 ? error : 0;
}

u32 unspool_sampler_pending(const struct sampler *sampler) {
    u64 key = 0, next = 0;
    u32 number = 0;
    int fd = map_fd(sampler, "pending");
    for (void *last = NULL; !bpf_map_get_next_key(fd, last, &next) && number < PENDING_MAX; last = &key, number++)
        key = next;
    return number;
}

void unspool_sampler_close(struct sampler *sampler) {
    if (!sampler)
        return;
    if (sampler->events)
        unspool_sampler_stop(sampler);
    while (sampler->n_links)
        bpf_link__destroy(sampler->links[--sampler->n_links]);
    ring_buffer__free(sampler->ring);
    bpf_object__close(sampler->object);
    free(sampler->links);
    free(sampler->events);
    free(sampler);
}
