// Loads the sampler twice, relocated by all of the kernel's types and by those that the programs name, and counts instructions that differ.
#define _GNU_SOURCE
#include <bpf/libbpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "capture.h"
#include "kernel_types.h"

static struct bpf_object *loaded(const char *file, const char *types, const struct btf *kernel, int descriptor) {
    LIBBPF_OPTS(bpf_object_open_opts, options, .btf_custom_path = types);
    struct bpf_object *object = bpf_object__open_file(file, &options);
    struct bpf_program *program;
    if (!object)
        exit(2);
    if (types) {
        struct btf *named = kernel_types_named(kernel, bpf_object__btf(object));
        u32 size = 0;
        const void *data = named ? btf__raw_data(named, &size) : NULL;
        if (!data || write(descriptor, data, size) != (ssize_t)size)
            exit(3);
        printf("%u of %u types\n", btf__type_cnt(named), btf__type_cnt(kernel));
        btf__free(named);
    }
    // Without the kernel's function that queues a callback: config.deferral is 0, so that its call is never reached.
    struct sampler_config config = {.trigger = 1, .kernel_frames = 1, .cpus = 1, .methods = 3};
    if (bpf_map__set_initial_value(bpf_object__find_map_by_name(object, ".rodata.config"), &config, sizeof(config)))
        exit(4);
    bpf_object__for_each_program(program, object)
        bpf_program__set_autoload(program, strcmp(bpf_program__name(program), "sample_syscall") != 0);
    if (bpf_object__load(object))
        exit(5);
    return object;
}

int main(int number, char **arguments) {
    struct btf *kernel = number == 2 ? btf__load_vmlinux_btf() : NULL;
    int descriptor = memfd_create("types", MFD_CLOEXEC);
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", descriptor);
    if (!kernel || descriptor < 0)
        return 1;
    struct bpf_object *by_all = loaded(arguments[1], NULL, kernel, descriptor);
    struct bpf_object *by_named = loaded(arguments[1], path, kernel, descriptor);
    size_t same = 0, different = 0;
    struct bpf_program *program;
    bpf_object__for_each_program(program, by_all) {
        struct bpf_program *twin = bpf_object__find_program_by_name(by_named, bpf_program__name(program));
        const struct bpf_insn *ours = bpf_program__insns(program), *theirs = bpf_program__insns(twin);
        if (!bpf_program__autoload(program))
            continue;
        if (bpf_program__insn_cnt(program) != bpf_program__insn_cnt(twin))
            return 6;
        for (size_t i = 0; i < bpf_program__insn_cnt(program); i++) {
            // Maps are named by descriptors, which differ.
            int is_map = ours[i].code == (BPF_LD | BPF_DW | BPF_IMM) && ours[i].src_reg;
            if (is_map || !memcmp(&ours[i], &theirs[i], sizeof(*ours)))
                same++;
            else
                different++;
        }
    }
    printf("%zu instructions are the same, %zu differ\n", same, different);
    bpf_object__close(by_all);
    bpf_object__close(by_named);
    btf__free(kernel);
    close(descriptor);
    return different != 0;
}
