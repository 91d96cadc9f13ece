/* Written after the rules were final: code on the stack, vfork, spawned programs, asynchronous timers, cleanup handlers, once and thread-exit hooks. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <regex.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

static volatile int ticks, sink;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

static void tick(int number) { ticks += number > 0; }
static void first(void) { sink++; }
static void gone(void *value) { sink += *(int *)value; }
static void tidy(int *value) { sink += *value; }

__attribute__((noinline)) static int with_trampoline(int base)
{
    int below(const void *a, const void *b) { return (*(const int *)a - *(const int *)b) * base; }
    int values[] = {4, 1, 3, 2};
    qsort(values, 4, sizeof *values, below);
    return values[0];
}

__attribute__((noinline)) static int tidies(int depth)
{
    __attribute__((cleanup(tidy))) int own = depth;
    return depth ? tidies(depth - 1) + own : own;
}

static int each(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size;
    *(int *)data += (int)strlen(info->dlpi_name);
    return 0;
}

static void *worker(void *argument)
{
    static int value = 3;
    pthread_once(&once, first);
    pthread_setspecific(key, &value);
    struct timespec short_time = {0, 1000};
    nanosleep(&short_time, NULL);
    return argument;
}

int main(void)
{
    signal(SIGALRM, tick);
    struct itimerval often = {{0, 4000}, {0, 4000}};
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 1; i < 4; i++)
        sink += with_trampoline(i) + tidies(i);
    pid_t child = vfork();
    if (!child)
        _exit(3);
    waitpid(child, NULL, 0);
    char *arguments[] = {"true", NULL};
    if (!posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ))
        while (waitpid(child, NULL, 0) < 0)
            ;
    int length = 0;
    dl_iterate_phdr(each, &length);
    pthread_t thread;
    pthread_key_create(&key, gone);
    pthread_create(&thread, NULL, worker, NULL);
    pthread_join(thread, NULL);
    regex_t pattern;
    regcomp(&pattern, "^(a+|b)*c$", REG_EXTENDED);
    sink += regexec(&pattern, "aabac", 0, NULL, 0);
    regfree(&pattern);
    wchar_t wide[32];
    swprintf(wide, 32, L"%ls %.2f", L"wide", strtod("2.75", NULL));
    char text[64];
    time_t epoch = 0;
    strftime(text, sizeof text, "%F", gmtime(&epoch));
    alarm(0);
    printf("%s %d %ls\n", text, length > 0, wide);
    return 0;
}
