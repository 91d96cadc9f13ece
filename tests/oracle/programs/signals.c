/* Signals: nested, on an alternate stack, in the middle of libc, for a fault, and left by siglongjmp. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEEP __attribute__((noinline))

static volatile int sink;
static sigjmp_buf out;
static char other_stack[65536] __attribute__((aligned(4096)));

KEEP int work(int n) { return n > 1 ? work(n - 1) + n : sink; }

static void inner(int number)
{
    sink += work(number % 5);
}

static void nested(int number)
{
    sink += work(2);
    raise(SIGUSR2);
    sink += work(number % 3);
}

static void on_other_stack(int number, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    sink += work(number % 4);
    raise(SIGUSR1);
}

static void leaves(int number)
{
    sink += work(3);
    siglongjmp(out, number);
}

static void skips_fault(int number, siginfo_t *info, void *context)
{
    (void)info;
    sink += work(number % 4);
    (void)context;
    siglongjmp(out, 7);
}

static void set(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigaction(number, &action, NULL);
}

static void set_info(int number, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
    sigaction(number, &action, NULL);
}

KEEP int raises(int number)
{
    int result = work(2);
    kill(getpid(), number);
    return result + work(3);
}

KEEP int comes_back(int number)
{
    int volatile tries = 0;
    if (sigsetjmp(out, 1) == 0)
        sink += raises(number);
    tries++;
    return work(tries + 1);
}

KEEP int faults(void)
{
    int volatile *volatile nowhere = (int *)8;
    if (sigsetjmp(out, 1))
        return work(2);
    return *nowhere + work(3);
}

KEEP int divides(int by)
{
    if (sigsetjmp(out, 1))
        return work(2);
    return 7 / (by - by);
}

static int compare(const void *a, const void *b)
{
    raise(SIGUSR2);
    return *(const int *)a - *(const int *)b;
}

int main(void)
{
    stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
    sigaltstack(&stack, NULL);
    set(SIGUSR1, nested, 0);
    set(SIGUSR2, inner, SA_NODEFER);
    set_info(SIGPROF, on_other_stack, SA_ONSTACK);
    set(SIGHUP, leaves, 0);
    set(SIGINT, leaves, SA_ONSTACK);
    set_info(SIGSEGV, skips_fault, SA_ONSTACK | SA_NODEFER);
    set_info(SIGFPE, skips_fault, 0);
    for (int i = 0; i < 2; i++) {
        sink += raises(SIGUSR1) + raises(SIGPROF);
        sink += comes_back(SIGHUP) + comes_back(SIGINT);
        sink += faults() + divides(sink);
    }
    int v[] = {3, 1, 2};
    qsort(v, 3, sizeof *v, compare);
    write(1, "done\n", 5);
    return 0;
}
