/* The peers that run in the kernel: a program that does nothing, and the kernel's own walk by frame pointers. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char license_of_programs[] SEC("license") = "GPL";
const volatile unsigned int target;

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, unsigned int);
    __type(value, unsigned long long[512]);
} scratch SEC(".maps");

/* Stacks that were walked, and their frames. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 2);
    __type(key, unsigned int);
    __type(value, unsigned long long);
} totals SEC(".maps");

SEC("perf_event")
int peer_empty(void *context) { return 0; }

SEC("perf_event")
int peer_get_stack(void *context) {
    unsigned int zero = 0, one = 1;
    if (bpf_get_current_pid_tgid() >> 32 != target) return 0;
    void *stack = bpf_map_lookup_elem(&scratch, &zero);
    if (!stack) return 0;
    long size = bpf_get_stack(context, stack, 4096, BPF_F_USER_STACK);
    unsigned long long *stacks = bpf_map_lookup_elem(&totals, &zero), *frames = bpf_map_lookup_elem(&totals, &one);
    if (size > 0 && stacks && frames) {
        __sync_fetch_and_add(stacks, 1);
        __sync_fetch_and_add(frames, size / 8);
    }
    return 0;
}
