/* Calls into the vDSO, directly and below a signal. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>

static volatile long sink;

__attribute__((noinline)) static long now(int clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    clock_getres(clock, &t);
    return t.tv_nsec;
}

static void handler(int number)
{
    struct timeval t;
    gettimeofday(&t, NULL);
    sink += now(CLOCK_MONOTONIC) + number;
}

int main(void)
{
    signal(SIGUSR1, handler);
    for (int i = 0; i < 4; i++) {
        sink += now(CLOCK_REALTIME) + now(CLOCK_MONOTONIC_COARSE) + now(CLOCK_BOOTTIME) + time(NULL) + sched_getcpu();
        raise(SIGUSR1);
    }
    puts("done");
    return 0;
}
