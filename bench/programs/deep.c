/* A recursion of DEPTH frames (first argument) that then works at its bottom for SECONDS (second argument), or for a fixed number of rounds
   when the third argument is given; prints the seconds that the work took. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static volatile unsigned long sink;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

__attribute__((noinline)) static unsigned long work(double seconds, unsigned long rounds) {
    double end = now() + seconds;
    unsigned long total = 0;
    for (unsigned long round = 0; rounds ? round < rounds : now() < end; round++)
        for (unsigned i = 0; i < 20000; i++) total = total * 2862933555777941757ul + i + sink;
    return total;
}

__attribute__((noinline)) static unsigned long descend(int depth, double seconds, unsigned long rounds) {
    if (depth <= 0) return work(seconds, rounds);
    unsigned long below = descend(depth - 1, seconds, rounds);
    sink += below;
    return below + sink;
}

int main(int argc, char **argv) {
    int depth = argc > 1 ? atoi(argv[1]) : 100;
    double seconds = argc > 2 ? atof(argv[2]) : 1;
    unsigned long rounds = argc > 3 ? strtoul(argv[3], 0, 10) : 0;
    double start = now();
    sink = descend(depth, seconds, rounds);
    printf("%.6f\n", now() - start);
    return 0;
}
