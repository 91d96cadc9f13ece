/* Attaches one program of peer.bpf.o to a cpu-clock event on every CPU for some seconds and prints its figures as JSON.
     peer OBJECT PROGRAM HZ SECONDS PID
   Prints the figures of the loaded programs of a name (kernel.bpf_stats_enabled must be 1):
     peer --stats NAME */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int stats(const char *name) {
    unsigned long long runs = 0, run_ns = 0;
    for (unsigned id = 0; !bpf_prog_get_next_id(id, &id);) {
        int program = bpf_prog_get_fd_by_id(id);
        if (program < 0) continue;
        struct bpf_prog_info info = {0};
        unsigned size = sizeof info;
        if (!bpf_obj_get_info_by_fd(program, &info, &size) && !strcmp(info.name, name)) {
            runs += info.run_cnt;
            run_ns += info.run_time_ns;
        }
        close(program);
    }
    printf("{\"runs\": %llu, \"run_ns\": %llu}\n", runs, run_ns);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "--stats")) return stats(argv[2]);
    if (argc != 6) return 2;
    struct bpf_object *object = bpf_object__open_file(argv[1], NULL);
    if (!object) return 1;
    struct bpf_map *rodata = bpf_object__find_map_by_name(object, ".rodata");
    unsigned int target = (unsigned int)atoi(argv[5]);
    if (rodata) bpf_map__set_initial_value(rodata, &target, sizeof target);
    if (bpf_object__load(object)) return 1;
    struct bpf_program *program = bpf_object__find_program_by_name(object, argv[2]);
    if (!program) return 1;
    struct perf_event_attr attr = {
        .type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_CPU_CLOCK, .freq = 1, .sample_freq = (unsigned)atoi(argv[3])};
    int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    for (int cpu = 0; cpu < cpus; cpu++) {
        int event = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, 0);
        if (event < 0 || !bpf_program__attach_perf_event(program, event)) return 1;
    }
    printf("attached\n");
    fflush(stdout);
    usleep((useconds_t)(atof(argv[4]) * 1e6));
    struct bpf_prog_info info = {0};
    unsigned size = sizeof info;
    bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size);
    unsigned long long totals[2] = {0};
    int map = bpf_object__find_map_fd_by_name(object, "totals");
    for (unsigned key = 0; key < 2; key++) bpf_map_lookup_elem(map, &key, &totals[key]);
    printf("{\"runs\": %llu, \"run_ns\": %llu, \"stacks\": %llu, \"frames\": %llu}\n", (unsigned long long)info.run_cnt,
           (unsigned long long)info.run_time_ns, totals[0], totals[1]);
    return 0;
}
