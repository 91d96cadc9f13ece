// Burns CPU time in a chain of calls that no compiler may shorten: main > outer > middle > inner.
//   burn CPU_SECONDS [THREADS]   prints "ready" and, with THREADS, the id of each; ends after that much CPU time of the process, or at the end of
//                                its standard input when CPU_SECONDS is 0
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double budget;
static volatile unsigned long sink;

static int is_over(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return budget > 0 ? (double)clock() / CLOCKS_PER_SEC >= budget : poll(&input, 1, 0) > 0;
}

__attribute__((noinline)) static unsigned long inner(unsigned long rounds) {
    unsigned long sum = 0;
    for (unsigned long i = 0; i < rounds; i++) sum += i * i ^ sink;
    sink += sum;
    return sum;
}

__attribute__((noinline)) static unsigned long middle(unsigned long rounds) {
    volatile char room[200];
    room[rounds % sizeof(room)] = 1;
    return inner(rounds) + (unsigned char)room[3];
}

__attribute__((noinline)) static unsigned long outer(unsigned long rounds) {
    unsigned long sum = 0;
    while (!is_over()) sum += middle(rounds) + 1;
    return sum;
}

static void *thread(void *rounds) {
    return (void *)outer((unsigned long)rounds);
}

static void *announced(void *rounds) {
    printf("%d\n", gettid());
    fflush(stdout);
    return thread(rounds);
}

int main(int argc, char **argv) {
    budget = argc > 1 ? atof(argv[1]) : 1;
    int threads = argc > 2 ? atoi(argv[2]) : 0;
    pthread_t started[16];
    printf("ready\n");
    fflush(stdout);
    for (int i = 0; i < threads && i < 16; i++) pthread_create(&started[i], NULL, announced, (void *)100000);
    unsigned long sum = outer(100000);
    for (int i = 0; i < threads && i < 16; i++) pthread_join(started[i], NULL);
    printf("%s\n", sum ? "done" : "nothing");
    return 0;
}
