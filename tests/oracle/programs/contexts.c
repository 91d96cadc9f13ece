/* Coroutines by makecontext and swapcontext: each on its own mapping, switching from several depths, and a signal while one runs. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>

#define KEEP __attribute__((noinline))
#define SIZE 65536

static ucontext_t back, routines[2];
static volatile int sink;

KEEP int work(int n) { return n ? work(n - 1) + 1 : sink; }

KEEP static void yield(int self, int depth)
{
    if (depth) {
        yield(self, depth - 1);
        sink += work(1);
        return;
    }
    swapcontext(&routines[self], &back);
}

static void routine(int self)
{
    for (int i = 0; i < 3; i++) {
        sink += work(i);
        yield(self, i);
        if (i == 1)
            raise(SIGUSR1);
    }
}

static void handler(int number) { sink += work(number % 3); }

int main(void)
{
    signal(SIGUSR1, handler);
    for (int i = 0; i < 2; i++) {
        char *stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(stack, 4096, PROT_NONE);
        getcontext(&routines[i]);
        routines[i].uc_stack.ss_sp = stack + 4096;
        routines[i].uc_stack.ss_size = SIZE - 4096;
        routines[i].uc_link = &back;
        makecontext(&routines[i], (void (*)(void))routine, 1, i);
    }
    for (int turn = 0; turn < 4; turn++)
        for (int i = 0; i < 2; i++)
            swapcontext(&back, &routines[i]);
    printf("done %d\n", sink > 0);
    return 0;
}
